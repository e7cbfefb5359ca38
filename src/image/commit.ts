/** A container's writable layer into an image: the image that the container is of, and one layer on top. */
import { statSync } from 'node:fs'
import { native } from '../native.ts'
import { CaissonError } from '../errors.ts'
import { manifestOf, typeOf } from './archive.ts'
import type { ArchivedImage, ArchivedLayer } from './archive.ts'
import { changed } from './changes.ts'
import type { ChangedConfig } from './changes.ts'
import { parseConfig, stepsOf } from './config.ts'
import { field, invalid, object, parse, tooLarge } from './document.ts'
import type { Fields } from './document.ts'
import { settle } from './load.ts'
import type { LoadContext } from './load.ts'
import { mostLayers, mostManifestBytes, parseManifest } from './manifest.ts'
import type { Manifest } from './manifest.ts'
import { Spool } from './spool.ts'

/** What a container was started with, beside what its image says. */
export interface OwnConfig {
  entrypoint?: readonly string[]
  command?: readonly string[]
  /** Variables; null: one that it does not have. */
  env?: Readonly<Record<string, string | null>>
  user?: string
  workdir?: string
  stopSignal?: string
  labels?: Readonly<Record<string, string>>
}

/** A container, as far as an image of it goes. */
export interface Committed {
  /** The digest of its image's manifest. */
  digest: string
  own: OwnConfig
  /** Its words, for the history. */
  command: readonly string[]
}

/** What the image is to be. */
export interface CommittedAs {
  /** Whole; none: it is known by its id alone. */
  name: string | undefined
  author: string | undefined
  /** What its history says. */
  message: string | undefined
  /** Changes to its config, in a Dockerfile's words. */
  changes: readonly string[]
}

/** Writes the writable layer into an open empty directory; settles once nobody writes there any more. */
export type PackLayer = (directory: number, signal: AbortSignal) => Promise<void>

interface Base {
  manifest: Manifest
  config: Fields
  what: string
}

/** The documents of the container's image. */
function baseOf({ content }: LoadContext, digest: string): Base {
  const size = statSync(content.path(digest), { throwIfNoEntry: false })?.size
  if (size === undefined) {
    const message = `the container's image ${digest} is not in the store: only one that was pulled, loaded or made there is a base`
    throw new CaissonError('ERR_IMAGE_NOT_FOUND', message, { stage: 'commit', subject: digest })
  }
  const about = `manifest ${digest}`
  const described = { mediaType: '', digest, size }
  const manifest = parseManifest(content.layout.blob(described, mostManifestBytes, about), about)
  if (manifest.kind !== 'manifest') throw invalid(about, 'is an index')
  const what = `config ${manifest.config.digest}`
  return { manifest, config: parse(content.layout.config(manifest.config), what), what }
}

/** That the new image can have all layers of the old one. */
function checkBlobs({ content }: LoadContext, { manifest }: Base): void {
  const missing = manifest.layers.find(({ digest, size }) => !content.has(digest, size))
  if (missing === undefined) return
  const message = `layer ${missing.digest} of the container's image: its blob is not in the store any more; pull or load the image again`
  throw new CaissonError('ERR_IMAGE_NOT_FOUND', message, { stage: 'commit', subject: missing.digest })
}

/** Docker's words for a layer's type in OCI's. */
function ociType(mediaType: string): string {
  const [, foreign, compression] =
    /^application\/vnd\.docker\.image\.rootfs\.(foreign\.)?diff\.tar(?:\.(gzip|zstd))?$/.exec(mediaType) ?? []
  if (!mediaType.startsWith('application/vnd.docker.')) return mediaType
  const kind = foreign === undefined ? 'layer' : 'layer.nondistributable'
  return `application/vnd.oci.image.${kind}.v1.tar${compression === undefined ? '' : `+${compression}`}`
}

/** The image's config with what the container was started with, as docker has it. */
function merged(image: ChangedConfig, own: OwnConfig): ChangedConfig {
  const config = { ...image }
  const { entrypoint, command, env, user, workdir, stopSignal, labels } = own
  if (entrypoint !== undefined) {
    // Either way the image's command does not belong to the new one.
    delete config.Cmd
    if (entrypoint.length === 0) delete config.Entrypoint
    else config.Entrypoint = [...entrypoint]
  }
  if (command !== undefined) config.Cmd = [...command]
  if (env !== undefined) {
    const all = new Map((config.Env ?? []).map((entry) => [entry.split('=', 1)[0] ?? '', entry]))
    for (const [name, value] of Object.entries(env)) {
      if (value === null) all.delete(name)
      else all.set(name, `${name}=${value}`)
    }
    config.Env = [...all.values()]
  }
  if (user !== undefined) config.User = user
  if (workdir !== undefined) config.WorkingDir = workdir
  if (stopSignal !== undefined) config.StopSignal = stopSignal
  if (labels !== undefined) config.Labels = { ...config.Labels, ...labels }
  return config
}

/** The steps of the image; of layers that none of them made, one each: readers compare their numbers. */
function historyOf({ config, manifest, what }: Base): object[] {
  const known = stepsOf(config, what)
  const made = known.filter((step) => field(step, 'empty_layer') !== true).length
  const missing = Array.from({ length: Math.max(0, manifest.layers.length - made) }, () => ({}))
  return [...known, ...missing]
}

function documentOf(
  base: Base,
  { own, command }: Committed,
  { author, message, changes }: CommittedAs,
  diffId: string,
): object {
  const { config, what } = base
  const rootfs = object(config, 'rootfs', what)
  const diffIds = (rootfs === undefined ? [] : field(rootfs, 'diff_ids')) as string[]
  const run = (object(config, 'config', what) ?? {}) as ChangedConfig
  const created = new Date().toISOString()
  const about = {
    created,
    created_by: command.join(' '),
    ...(author !== undefined && { author }),
    ...(message !== undefined && { comment: message }),
  }
  const platform = ['architecture', 'os', 'variant', 'os.version', 'os.features'].flatMap((name) => {
    const value = field(config, name)
    return value === undefined || value === null ? [] : [[name, value]]
  })
  return {
    created,
    ...(author !== undefined && { author }),
    ...(Object.fromEntries(platform) as object),
    config: changed(changes, merged(run, own)),
    rootfs: { type: 'layers', diff_ids: [...diffIds, diffId] },
    history: [...historyOf(base), about],
  }
}

/** A config as an image has it: read again, as everybody will. */
function configOf({ manifest }: Base, document: object): ArchivedImage['config'] {
  const bytes = Buffer.from(JSON.stringify(document))
  const parsed = parseConfig(bytes, 'config', manifest.layers.length + 1, null)
  return { ...parsed, digest: native().addon.sha256(bytes), bytes }
}

/** Makes an image of a container; its id. */
export async function commit(
  context: LoadContext,
  container: Committed,
  pack: PackLayer,
  as: CommittedAs,
  signal: AbortSignal,
): Promise<string> {
  // Nobody takes away what it builds on.
  const kept = await context.content.keep(signal)
  try {
    const base = baseOf(context, container.digest)
    checkBlobs(context, base)
    // What is refused is refused before anything is written.
    if (base.manifest.layers.length >= mostLayers)
      throw tooLarge(`image ${container.digest}`, `has ${mostLayers} layers, and there may be no more`)
    configOf(base, documentOf(base, container, as, container.digest))
    const packed = (_: number, directory: number, ended: AbortSignal): Promise<void> => pack(directory, ended)
    const spool = await Spool.read(context.root, -1, packed, signal)
    try {
      const { diffId, ...file } = spool.layer()
      const config = configOf(base, documentOf(base, container, as, diffId))
      const below = base.manifest.layers.map((layer): ArchivedLayer => ({
        mediaType: ociType(layer.mediaType),
        digest: layer.digest,
        size: layer.size,
        file: undefined,
      }))
      const layers = [...below, { mediaType: typeOf(file), digest: file.digest, size: file.size, file }]
      const image: ArchivedImage = {
        manifest: manifestOf({ digest: config.digest, size: config.bytes.length }, layers),
        config,
        layers,
        names: as.name === undefined ? [] : [as.name],
      }
      await settle(context, [image], { signal })
      return config.digest
    } finally {
      await spool.dispose()
    }
  } finally {
    kept.release()
  }
}
