/**
 * What an archive of images holds: docker's (`manifest.json`; before 25 with `LAYER/layer.tar`, links between them) or an
 * OCI layout's (`oci-layout`, `index.json`). Where it is both, as docker's are since 25, the layout decides: its manifests
 * are the registry's, byte for byte. All of it is somebody's word: bounded, typed, and compared with the bytes' digests.
 */
import { native } from '../native.ts'
import { CaissonError } from '../errors.ts'
import { parseConfig } from './config.ts'
import type { Config } from './config.ts'
import { field, invalid, parse, parseList, requiredText, text, unsupported, words } from './document.ts'
import {
  checkDigest,
  choose,
  fits,
  hostPlatform,
  imagesOf,
  isIndex,
  mostConfigBytes,
  mostManifestBytes,
  parseManifest,
} from './manifest.ts'
import type { Descriptor, IndexEntry, Manifest, Platform } from './manifest.ts'
import { memberFor, membersOf, readMember, showMember } from './platforms.ts'
import type { Member } from './platforms.ts'
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
  /** All platforms of it; none: it is one image. */
  whole?: ArchivedIndex
  /** Whether it is for this machine, or for the platform that is wanted. Default: true. */
  unpacked?: boolean
}

/** An index of an archive, and what its entries consist of. */
export interface ArchivedIndex {
  descriptor: Descriptor
  /** Documents and layers of all platforms. */
  blobs: readonly ArchivedLayer[]
}

/** What is wanted of an archive. */
export interface Wanted {
  /** Default: this machine's. */
  platform?: Platform | undefined
  /** All platforms of each image. */
  allPlatforms?: boolean | undefined
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

/** What a config must be for; null: anything. */
function platformOf({ platform, allPlatforms }: Wanted): Platform | null | undefined {
  return allPlatforms === true ? null : platform
}

function isUnpacked({ platform }: Config, { allPlatforms }: Wanted): boolean {
  return allPlatforms !== true || fits(platform, hostPlatform())
}

class DockerArchive {
  readonly #spool: Spool
  readonly #wanted: Wanted

  constructor(spool: Spool, wanted: Wanted) {
    this.#spool = spool
    this.#wanted = wanted
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
    const parsed = parseConfig(
      bytes,
      `config ${configName.slice(0, 300)}`,
      layers.length,
      platformOf(this.#wanted),
    )
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
      unpacked: isUnpacked(parsed, this.#wanted),
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
  readonly #wanted: Wanted

  constructor(spool: Spool, wanted: Wanted) {
    this.#spool = spool
    this.#wanted = wanted
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
      const { platform: wanted, allPlatforms } = this.#wanted
      const platforms = new Set(group.map(({ platform }) => JSON.stringify(platform)))
      const each = platforms.size === 1 || allPlatforms === true
      if (name === undefined && each) return group.map((entry) => [entry, name])
      const what = `index.json ${name ?? ''}`.trim()
      if (allPlatforms === true)
        throw unsupported(what, 'has several images of this name and no index of them: name a platform')
      return [[choose(group, what, wanted), name]]
    })
  }

  async #image(entry: IndexEntry): Promise<ArchivedImage> {
    if (this.#wanted.allPlatforms === true && isIndex(entry)) return this.#whole(entry)
    let described: Descriptor = entry
    // index.json, an index in it, its manifests: no deeper (security.md D9).
    for (let depth = 0; depth < 2; depth += 1) {
      const what = `manifest ${described.digest}`
      const bytes = await this.#document(described, mostManifestBytes, what)
      const document = parseManifest(bytes, what, described.mediaType)
      if (document.kind === 'manifest') return this.#ofManifest(described, document, bytes)
      described = choose(imagesOf(document), what, this.#wanted.platform)
    }
    throw invalid(`manifest ${described.digest}`, 'is an index in an index')
  }

  async #ofManifest(described: Descriptor, document: Manifest, bytes: Buffer): Promise<ArchivedImage> {
    const about = `config ${document.config.digest}`
    const configBytes = await this.#document(document.config, mostConfigBytes, about)
    const config = parseConfig(configBytes, about, document.layers.length, platformOf(this.#wanted))
    const { digest, size } = described
    return {
      manifest: { mediaType: document.mediaType, digest, size, bytes },
      config: { ...config, digest: document.config.digest, bytes: configBytes },
      layers: document.layers.map((layer) => this.#blob(layer)),
      names: [],
      unpacked: isUnpacked(config, this.#wanted),
    }
  }

  #blob(described: Descriptor): ArchivedLayer {
    return { ...described, file: blob(this.#spool, described, `layer ${described.digest}`) }
  }

  /** An index with all that it lists; the image is this machine's, else the first. */
  async #whole(entry: IndexEntry): Promise<ArchivedImage> {
    const what = `index ${entry.digest}`
    const index = parseManifest(await this.#document(entry, mostManifestBytes, what), what, entry.mediaType)
    if (index.kind !== 'index') throw invalid(what, 'is no index')
    const listed = membersOf(index, what)
    const isHere = ({ digest }: Descriptor): boolean => this.#spool.has(`blobs/${digest.replace(':', '/')}`)
    const members: Member[] = []
    for (const one of listed.filter(isHere)) {
      const about = `manifest ${one.digest}`
      members.push(readMember(one, await this.#document(one, mostManifestBytes, about), about))
    }
    const lacking = [
      ...listed.filter((one) => !isHere(one)),
      ...members.filter(({ blobs }) => !blobs.every(isHere)).map((member) => member.entry),
    ]
    if (lacking.length > 0) {
      const list = lacking.slice(0, 20).map(showMember).join(', ')
      throw invalid(what, `lists what is not in the archive: ${list}; load one platform of it`)
    }
    const own = memberFor(members, undefined)
    if (own === undefined) throw invalid(what, 'has no image for any platform')
    const bytes = await this.#document(own.entry, mostManifestBytes, `manifest ${own.entry.digest}`)
    const image = await this.#ofManifest(own.entry, own.manifest, bytes)
    const mine = new Set(image.layers.map(({ digest }) => digest))
    const all = [entry, ...members.flatMap((member) => [member.entry, ...member.blobs])]
    const others = new Map(all.map((one) => [one.digest, one]))
    const { mediaType, digest, size } = { ...entry, mediaType: index.mediaType }
    const blobs = [...others.values()].filter((one) => !mine.has(one.digest)).map((one) => this.#blob(one))
    return { ...image, whole: { descriptor: { mediaType, digest, size }, blobs } }
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
 * The images of an archive, for one platform or with all.
 * @throws CaissonError ERR_INVALID_IMAGE, ERR_IMAGE_LIMIT, ERR_DIGEST; ERR_UNSUPPORTED for another platform's;
 * ERR_IMAGE_NOT_FOUND where an index has none for it.
 */
export async function imagesIn(spool: Spool, wanted: Wanted): Promise<ArchivedImage[]> {
  const isLayout = spool.has('index.json') && spool.has('oci-layout')
  if (!isLayout && !spool.has('manifest.json'))
    throw invalid('archive', 'holds no images: it has no manifest.json, and no index.json with an oci-layout')
  const archive = isLayout ? new LayoutArchive(spool, wanted) : new DockerArchive(spool, wanted)
  const images = await archive.images()
  if (images.length === 0) throw invalid('archive', 'holds no images')
  return images
}
