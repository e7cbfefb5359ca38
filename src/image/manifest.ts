/** Indexes and manifests: what an image consists of. Typed and bounded as security.md D7 to D9 want it. */
import { CaissonError } from '../errors.ts'
import { field, invalid, object, objects, parse, requiredText, text, unsupported } from './document.ts'
import type { Fields } from './document.ts'

/** The most bytes of an index or a manifest (security.md 1.1). */
export const mostManifestBytes: number = 4 << 20
/** The most bytes of an image's config. */
export const mostConfigBytes: number = 8 << 20
const mostLayers = 127
const mostManifests = 10_000

/** A blob: its type, its name, its exact size. */
export interface Descriptor {
  mediaType: string
  /** `sha256:` and 64 lower-case hex digits. */
  digest: string
  size: number
}

/** An image of an index. */
export interface IndexEntry extends Descriptor {
  platform: { os: string; architecture: string; variant: string | undefined } | undefined
  /** `org.opencontainers.image.ref.name`: its tag, in a layout's index.json. */
  name: string | undefined
}

export interface Index {
  kind: 'index'
  manifests: readonly IndexEntry[]
}

export interface Manifest {
  kind: 'manifest'
  config: Descriptor
  /** The lowest first. */
  layers: readonly Descriptor[]
}

const indexTypes: ReadonlySet<string> = new Set([
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
])
const manifestTypes: ReadonlySet<string> = new Set([
  'application/vnd.oci.image.manifest.v1+json',
  'application/vnd.docker.distribution.manifest.v2+json',
])
const configTypes: ReadonlySet<string> = new Set([
  'application/vnd.oci.image.config.v1+json',
  'application/vnd.docker.container.image.v1+json',
])
/** Which compression a layer really has is seen in its bytes. A foreign one is a blob like others: its urls are nobody's order. */
const layerTypes: ReadonlySet<string> = new Set([
  'application/vnd.oci.image.layer.v1.tar',
  'application/vnd.oci.image.layer.v1.tar+gzip',
  'application/vnd.oci.image.layer.nondistributable.v1.tar',
  'application/vnd.oci.image.layer.nondistributable.v1.tar+gzip',
  'application/vnd.docker.image.rootfs.diff.tar',
  'application/vnd.docker.image.rootfs.diff.tar.gzip',
  'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip',
])

/** A digest becomes a file name and is compared: it has one form. */
export function checkDigest(digest: string, what: string): string {
  if (/^sha256:[a-f0-9]{64}$/.test(digest)) return digest
  if (/^sha512:[a-f0-9]{128}$/.test(digest)) throw unsupported(what, 'SHA-512 digests are not supported yet')
  throw new CaissonError('ERR_DIGEST', `${what}: '${digest.slice(0, 100)}' is no digest`, {
    stage: 'resolve',
    subject: what,
  })
}

function descriptor(fields: Fields, what: string): Descriptor {
  const mediaType = requiredText(fields, 'mediaType', 255, what)
  const digest = checkDigest(requiredText(fields, 'digest', 255, what), what)
  const size = field(fields, 'size')
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) {
    throw invalid(what, 'size is no number of bytes')
  }
  return { mediaType, digest, size }
}

function indexEntry(fields: Fields, what: string): IndexEntry {
  const platform = object(fields, 'platform', what)
  const annotations = object(fields, 'annotations', what)
  return {
    ...descriptor(fields, what),
    platform: platform && {
      os: requiredText(platform, 'os', 255, `${what} platform`),
      architecture: requiredText(platform, 'architecture', 255, `${what} platform`),
      variant: text(platform, 'variant', 255, `${what} platform`),
    },
    name: annotations && text(annotations, 'org.opencontainers.image.ref.name', 4096, `${what} annotations`),
  }
}

/** What a document is: by its own word, which must not differ from its descriptor's; else by the descriptor's. */
function kindOf(fields: Fields, what: string, described: string | undefined): 'index' | 'manifest' {
  const version = field(fields, 'schemaVersion')
  if (version !== 2) {
    throw version === 1
      ? unsupported(what, 'manifests of schema 1 are not supported')
      : invalid(what, 'schemaVersion is not 2')
  }
  const has = (name: string): boolean => field(fields, name) !== undefined
  // One document that is valid as both would be an image to one reader and another to the next (CVE-2021-41190).
  if (has('manifests') && (has('layers') || has('config') || has('fsLayers'))) {
    throw invalid(what, 'has manifests and layers: it is ambiguous')
  }
  const own = text(fields, 'mediaType', 255, what)
  if (own !== undefined && described !== undefined && own !== described) {
    throw invalid(what, `mediaType is ${own}, but its descriptor says ${described}`)
  }
  const type = own ?? described
  if (type === undefined) return has('manifests') ? 'index' : 'manifest'
  if (indexTypes.has(type)) return 'index'
  if (manifestTypes.has(type)) return 'manifest'
  throw unsupported(what, `mediaType ${type} is no image or index`)
}

/**
 * Reads an index or a manifest. `described` is the type that its descriptor gave.
 * @throws CaissonError ERR_INVALID_IMAGE, ERR_IMAGE_LIMIT, ERR_UNSUPPORTED, ERR_DIGEST (a malformed digest).
 */
export function parseManifest(bytes: Uint8Array, what: string, described?: string): Index | Manifest {
  const fields = parse(bytes, what)
  if (kindOf(fields, what, described) === 'index') {
    const manifests = objects(fields, 'manifests', mostManifests, what)
    return {
      kind: 'index',
      manifests: manifests.map((entry, at) => indexEntry(entry, `${what} manifests[${at}]`)),
    }
  }
  const configFields = object(fields, 'config', what)
  if (configFields === undefined) throw invalid(what, 'config is missing')
  const config = descriptor(configFields, `${what} config`)
  if (!configTypes.has(config.mediaType)) {
    throw unsupported(what, `its config is ${config.mediaType}: an artifact, no image`)
  }
  const layers = objects(fields, 'layers', mostLayers, what).map((entry, at) => {
    const layer = descriptor(entry, `${what} layers[${at}]`)
    if (!layerTypes.has(layer.mediaType)) {
      throw unsupported(`${what} layers[${at}]`, `mediaType ${layer.mediaType} is not supported`)
    }
    return layer
  })
  return { kind: 'manifest', config, layers }
}

/** Node's word for a processor, in Go's words, with the variants that every processor of that kind runs. */
const architectures: Partial<
  Record<NodeJS.Architecture, { architecture: string; variants: readonly string[] }>
> = {
  x64: { architecture: 'amd64', variants: ['v1'] },
  arm64: { architecture: 'arm64', variants: ['v8'] },
}

/** This machine, as images call it. */
export function hostArchitecture(): string {
  return architectures[process.arch]?.architecture ?? process.arch
}

/** Whether an image for this platform runs here. */
function runsHere({ os, architecture, variant }: NonNullable<IndexEntry['platform']>): boolean {
  const variants = architectures[process.arch]?.variants ?? []
  const known = variant === undefined || variant === '' || variants.includes(variant)
  return os === 'linux' && architecture === hostArchitecture() && known
}

/**
 * The one image of these that runs here. An entry without a platform is for whoever asks, if it is the only one.
 * @throws CaissonError ERR_IMAGE_NOT_FOUND where there is none, ERR_INVALID_IMAGE where there are several.
 */
export function choose(entries: readonly IndexEntry[], what: string): IndexEntry {
  const [only] = entries
  if (only !== undefined && entries.length === 1 && only.platform === undefined) return only
  const fitting = entries.filter(({ platform }) => platform !== undefined && runsHere(platform))
  const digests = new Set(fitting.map(({ digest }) => digest))
  const [found] = fitting
  if (found !== undefined && digests.size === 1) return found
  if (found !== undefined) throw invalid(what, `has ${digests.size} images for linux/${hostArchitecture()}`)
  const there = entries.map(({ platform }) =>
    platform === undefined
      ? 'unnamed'
      : [platform.os, platform.architecture, platform.variant].filter(Boolean).join('/'),
  )
  const list = [...new Set(there)].slice(0, 20).join(', ')
  throw new CaissonError(
    'ERR_IMAGE_NOT_FOUND',
    `${what}: has no image for linux/${hostArchitecture()}${list === '' ? '' : `; it has ${list}`}`,
    { stage: 'resolve', subject: what },
  )
}
