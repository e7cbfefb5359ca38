/**
 * What an archive of images holds: docker's (`manifest.json`; before 25 with `LAYER/layer.tar`, links between them) or an
 * OCI layout's (`oci-layout`, `index.json`). Where it is both, as docker's are since 25, the layout decides: its manifests
 * are the registry's, byte for byte. All of it is somebody's word: bounded, typed, and compared with the bytes' digests.
 */
import { native } from '../native.ts'
import { CaissonError } from '../errors.ts'
import { parseConfig } from './config.ts'
import type { Config } from './config.ts'
import { field, invalid, parse, parseList, requiredText, text, words } from './document.ts'
import {
  checkDigest,
  choose,
  imagesOf,
  mostConfigBytes,
  mostManifestBytes,
  parseManifest,
} from './manifest.ts'
import type { Descriptor, IndexEntry, Platform } from './manifest.ts'
import { fullName, parseName } from './reference.ts'
import { head } from './spool.ts'
import type { Spool, SpooledFile } from './spool.ts'

/** A layer, and where its blob lies; without a file it is in the store. */
export interface ArchivedLayer extends Descriptor {
  file: SpooledFile | undefined
}

/** An image of an archive. */
export interface ArchivedImage {
  manifest: Descriptor & { bytes: Buffer }
  config: Config & { digest: string; bytes: Buffer }
  /** The lowest first. */
  layers: readonly ArchivedLayer[]
  /** Whole names; none: it is known by its id alone. */
  names: readonly string[]
}

const mostImages = 10_000
const mostNames = { count: 4096, length: 1 << 20 }
const mostLayers = { count: 127, length: 1 << 20 }
const manifestType = 'application/vnd.oci.image.manifest.v1+json'
const configType = 'application/vnd.oci.image.config.v1+json'
const layerType = 'application/vnd.oci.image.layer.v1.tar'
/** containerd's and buildkit's, a whole name. */
const wholeName = 'io.containerd.image.name'

function wrong(what: string, message: string): CaissonError {
  return new CaissonError('ERR_DIGEST', `${what}: ${message}`, { stage: 'resolve', subject: what })
}

/**
 * A name that an archive gives an image. One with a digest is what a registry said, which an archive cannot: it is none.
 */
function named(name: string, what: string): string | undefined {
  try {
    const reference = parseName(name)
    return reference.digest === undefined ? fullName(reference) : undefined
  } catch (error) {
    if (error instanceof CaissonError) throw invalid(what, error.message)
    throw error
  }
}

/** By the blob's first bytes: what the archive calls it says nothing. */
export function typeOf(file: SpooledFile): string {
  const [first, second, third, fourth] = head(file)
  if (first === 0x1f && second === 0x8b) return `${layerType}+gzip`
  if (first === 0x28 && second === 0xb5 && third === 0x2f && fourth === 0xfd) return `${layerType}+zstd`
  return layerType
}

/** The digest that a blob's own name says, as docker's have it since 25. */
function checkOwnName(name: string, { digest }: SpooledFile): void {
  const [, hex] = /^blobs\/sha256\/([a-f0-9]{64})$/.exec(name) ?? []
  if (hex !== undefined && `sha256:${hex}` !== digest)
    throw wrong(name, `its bytes have the digest ${digest}`)
}

/** The blob of a descriptor. */
function blob(spool: Spool, { digest, size }: Descriptor, what: string): SpooledFile {
  const file = spool.find(`blobs/${checkDigest(digest, what).replace(':', '/')}`)
  if (file.size !== size) throw wrong(what, `has ${file.size} bytes, not ${size}`)
  if (file.digest !== digest) throw wrong(what, `its bytes have the digest ${file.digest}`)
  return file
}

class DockerArchive {
  readonly #spool: Spool
  readonly #platform: Platform | undefined

  constructor(spool: Spool, platform: Platform | undefined) {
    this.#spool = spool
    this.#platform = platform
  }

  async images(): Promise<ArchivedImage[]> {
    const what = 'manifest.json'
    const images: ArchivedImage[] = []
    for (const [at, fields] of parseList(
      await this.#spool.bytes(what, mostManifestBytes),
      what,
      mostImages,
    ).entries()) {
      images.push(await this.#image(fields, `${what}[${at}]`))
    }
    return images
  }

  async #image(fields: Readonly<Record<string, unknown>>, what: string): Promise<ArchivedImage> {
    const configName = requiredText(fields, 'Config', 4096, what)
    const config = this.#spool.find(configName)
    checkOwnName(configName, config)
    const bytes = await this.#spool.bytes(configName, mostConfigBytes)
    const layers = (words(fields, 'Layers', mostLayers, what) ?? []).map((name): ArchivedLayer => {
      const file = this.#spool.find(name)
      checkOwnName(name, file)
      return { mediaType: typeOf(file), digest: file.digest, size: file.size, file }
    })
    const parsed = parseConfig(bytes, `config ${configName.slice(0, 300)}`, layers.length, this.#platform)
    for (const [at, layer] of layers.entries()) {
      if (layer.mediaType === layerType && layer.digest !== parsed.diffIds[at])
        throw wrong(
          `${what} Layers[${at}]`,
          `has the digest ${layer.digest}, not ${parsed.diffIds[at]} of its config`,
        )
    }
    const names = (words(fields, 'RepoTags', mostNames, what) ?? []).flatMap(
      (name) => named(name, `${what} RepoTags`) ?? [],
    )
    return {
      manifest: manifestOf(config, layers),
      config: { ...parsed, digest: config.digest, bytes },
      layers,
      names: [...new Set(names)],
    }
  }
}

/** The manifest of an image that has none. The same image gives the same one. */
export function manifestOf(
  config: Pick<Descriptor, 'digest' | 'size'>,
  layers: readonly ArchivedLayer[],
): Descriptor & { bytes: Buffer } {
  const described = (
    mediaType: string,
    { digest, size }: Pick<Descriptor, 'digest' | 'size'>,
  ): Descriptor => ({
    mediaType,
    digest,
    size,
  })
  const document = {
    schemaVersion: 2,
    mediaType: manifestType,
    config: described(configType, config),
    layers: layers.map((layer) => described(layer.mediaType, layer)),
  }
  const bytes = Buffer.from(JSON.stringify(document))
  return { mediaType: manifestType, digest: native().addon.sha256(bytes), size: bytes.length, bytes }
}

class LayoutArchive {
  readonly #spool: Spool
  readonly #platform: Platform | undefined

  constructor(spool: Spool, platform: Platform | undefined) {
    this.#spool = spool
    this.#platform = platform
  }

  async images(): Promise<ArchivedImage[]> {
    const marker = parse(await this.#spool.bytes('oci-layout', 4096), 'oci-layout')
    if (field(marker, 'imageLayoutVersion') !== '1.0.0')
      throw invalid('oci-layout', 'imageLayoutVersion is not 1.0.0')
    const what = 'index.json'
    const index = parseManifest(await this.#spool.bytes(what, mostManifestBytes), what)
    if (index.kind !== 'index') throw invalid(what, 'is no index')
    const images = new Map<string, ArchivedImage>()
    for (const [entry, name] of this.#chosen(imagesOf(index))) {
      const image = await this.#image(entry)
      const known = images.get(image.manifest.digest) ?? image
      const names = new Set([...known.names, ...(name === undefined ? [] : [name])])
      images.set(image.manifest.digest, { ...known, names: [...names] })
    }
    return [...images.values()]
  }

  /** Of entries with one name those for the platform; of those without a name each. */
  #chosen(entries: readonly IndexEntry[]): [IndexEntry, string | undefined][] {
    const groups = new Map<string | undefined, IndexEntry[]>()
    for (const entry of entries) {
      const name = nameOf(entry)
      groups.set(name, [...(groups.get(name) ?? []), entry])
    }
    return [...groups].flatMap(([name, group]): [IndexEntry, string | undefined][] => {
      const digests = new Set(group.map(({ digest }) => digest))
      if (digests.size === 1) return group.slice(0, 1).map((entry) => [entry, name])
      const platforms = new Set(group.map(({ platform }) => JSON.stringify(platform)))
      if (name === undefined && platforms.size === 1) return group.map((entry) => [entry, name])
      return [[choose(group, `index.json ${name ?? ''}`.trim(), this.#platform), name]]
    })
  }

  async #image(entry: IndexEntry): Promise<ArchivedImage> {
    let described: Descriptor = entry
    // index.json, an index in it, its manifests: no deeper (security.md D9).
    for (let depth = 0; depth < 2; depth += 1) {
      const what = `manifest ${described.digest}`
      const bytes = await this.#document(described, mostManifestBytes, what)
      const document = parseManifest(bytes, what, described.mediaType)
      if (document.kind === 'index') {
        described = choose(imagesOf(document), what, this.#platform)
        continue
      }
      const about = `config ${document.config.digest}`
      const configBytes = await this.#document(document.config, mostConfigBytes, about)
      const config = parseConfig(configBytes, about, document.layers.length, this.#platform)
      const layers = document.layers.map((layer) => ({
        ...layer,
        file: blob(this.#spool, layer, `layer ${layer.digest}`),
      }))
      const { digest, size } = described
      return {
        manifest: { mediaType: document.mediaType, digest, size, bytes },
        config: { ...config, digest: document.config.digest, bytes: configBytes },
        layers,
        names: [],
      }
    }
    throw invalid(`manifest ${described.digest}`, 'is an index in an index')
  }

  async #document(described: Descriptor, most: number, what: string): Promise<Buffer> {
    blob(this.#spool, described, what)
    return this.#spool.bytes(`blobs/${described.digest.replace(':', '/')}`, most)
  }
}

/** What an entry's image is called: a whole name. A tag alone names no repository. */
function nameOf(entry: IndexEntry): string | undefined {
  const what = 'index.json annotations'
  const { annotations, name } = entry
  const whole = annotations === undefined ? undefined : text(annotations, wholeName, 4096, what)
  if (whole !== undefined) return named(whole, what)
  return name !== undefined && /[/:]/.test(name) ? named(name, what) : undefined
}

/**
 * The images of an archive, for one platform.
 * @throws CaissonError ERR_INVALID_IMAGE, ERR_IMAGE_LIMIT, ERR_DIGEST; ERR_UNSUPPORTED for another platform's;
 * ERR_IMAGE_NOT_FOUND where an index has none for it.
 */
export async function imagesIn(spool: Spool, platform: Platform | undefined): Promise<ArchivedImage[]> {
  const isLayout = spool.has('index.json') && spool.has('oci-layout')
  if (!isLayout && !spool.has('manifest.json'))
    throw invalid('archive', 'holds no images: it has no manifest.json, and no index.json with an oci-layout')
  const archive = isLayout ? new LayoutArchive(spool, platform) : new DockerArchive(spool, platform)
  const images = await archive.images()
  if (images.length === 0) throw invalid('archive', 'holds no images')
  return images
}
