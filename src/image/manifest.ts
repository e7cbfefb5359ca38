/** Indexes and manifests: what an image consists of. Typed and bounded as security.md D7 to D9 want it. */
import { CaissonError } from '../errors.ts'
import { field, invalid, object, objects, parse, requiredText, text, unsupported } from './document.ts'
import type { Fields } from './document.ts'

/** The most bytes of an index or a manifest (security.md 1.1). */
export const mostManifestBytes: number = 4 << 20
/** The most bytes of an image's config. */
export const mostConfigBytes: number = 8 << 20
export const mostLayers = 127
export const mostManifests = 10_000

/** A blob: its type, its name, its exact size. */
export interface Descriptor {
  mediaType: string
  /** `sha256:` and 64 lower-case hex digits. */
  digest: string
  size: number
}

/** What an image runs on, in Go's words: `linux`, `arm64`, `v8`. */
export interface Platform {
  os: string
  architecture: string
  variant: string | undefined
}

/** An image of an index. */
export interface IndexEntry extends Descriptor {
  platform: Platform | undefined
  /** `org.opencontainers.image.ref.name`: its tag, in a layout's index.json. */
  name: string | undefined
  /** All it has. Read by name, and only what Caisson itself wrote. */
  annotations?: Fields | undefined
}

export interface Index {
  kind: 'index'
  mediaType: string
  manifests: readonly IndexEntry[]
}

export interface Manifest {
  kind: 'manifest'
  mediaType: string
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
  'application/vnd.oci.image.layer.v1.tar+zstd',
  'application/vnd.oci.image.layer.nondistributable.v1.tar',
  'application/vnd.oci.image.layer.nondistributable.v1.tar+gzip',
  'application/vnd.oci.image.layer.nondistributable.v1.tar+zstd',
  'application/vnd.docker.image.rootfs.diff.tar',
  'application/vnd.docker.image.rootfs.diff.tar.gzip',
  'application/vnd.docker.image.rootfs.diff.tar.zstd',
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

/** Reads a descriptor. */
export function descriptor(fields: Fields, what: string): Descriptor {
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
    annotations,
  }
}

/** Whether a type is an index'. */
export function isIndex({ mediaType }: Pick<Descriptor, 'mediaType'>): boolean {
  return indexTypes.has(mediaType)
}

/** Whether a type is a manifest's. */
export function isManifest({ mediaType }: Pick<Descriptor, 'mediaType'>): boolean {
  return manifestTypes.has(mediaType)
}

/** Whether a type is the one of an image's config: any other is an artifact's. */
export function isConfig({ mediaType }: Pick<Descriptor, 'mediaType'>): boolean {
  return configTypes.has(mediaType)
}

/** What a document is: by its own word, which must not differ from its descriptor's; else by the descriptor's. */
function kindOf(
  fields: Fields,
  what: string,
  described: string | undefined,
): Pick<Index | Manifest, 'kind' | 'mediaType'> {
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
  if (type === undefined) {
    const kind = has('manifests') ? 'index' : 'manifest'
    return { kind, mediaType: `application/vnd.oci.image.${kind}.v1+json` }
  }
  if (indexTypes.has(type)) return { kind: 'index', mediaType: type }
  if (manifestTypes.has(type)) return { kind: 'manifest', mediaType: type }
  throw unsupported(what, `mediaType ${type} is no image or index`)
}

/**
 * Reads an index or a manifest. `described` is the type that its descriptor gave.
 * @throws CaissonError ERR_INVALID_IMAGE, ERR_IMAGE_LIMIT, ERR_UNSUPPORTED, ERR_DIGEST (a malformed digest).
 */
export function parseManifest(bytes: Uint8Array, what: string, described?: string): Index | Manifest {
  const fields = parse(bytes, what)
  const { kind, mediaType } = kindOf(fields, what, described)
  if (kind === 'index') {
    const manifests = objects(fields, 'manifests', mostManifests, what)
    return {
      kind,
      mediaType,
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
  return { kind, mediaType, config, layers }
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

/** This machine's platform. */
export function hostPlatform(): Platform {
  return { os: 'linux', architecture: hostArchitecture(), variant: undefined }
}

/** Go's other words for a processor. */
const aliases: Record<string, string> = {
  x86_64: 'amd64',
  'x86-64': 'amd64',
  aarch64: 'arm64',
  i386: '386',
  armhf: 'arm',
}

/**
 * Reads `OS/ARCH[/VARIANT]`, or a processor alone.
 * @throws CaissonError ERR_INVALID_OPTION for anything else.
 */
export function parsePlatform(given: string): Platform {
  const parts = given.toLowerCase().split('/')
  const [os = '', architecture = '', variant] = parts.length === 1 ? ['linux', ...parts] : parts
  if (parts.length > 3 || ![os, architecture, variant ?? 'v1'].every((part) => /^[a-z0-9_.-]+$/.test(part))) {
    throw new CaissonError('ERR_INVALID_OPTION', `platform: '${given}' is not OS/ARCH[/VARIANT]`, {
      subject: 'platform',
    })
  }
  return { os, architecture: aliases[architecture] ?? architecture, variant }
}

/** A platform as people write it. */
export function showPlatform({ os, architecture, variant }: Platform): string {
  return [os, architecture, variant].filter(Boolean).join('/')
}

/** The variants that are no difference to the bare processor. */
function variantsOf(architecture: string): readonly string[] {
  const known = Object.values(architectures).find((one) => one.architecture === architecture)
  return known?.variants ?? []
}

/** Whether an image for `offered` is one for `wanted`. */
export function fits(offered: Platform, wanted: Platform): boolean {
  const plain = variantsOf(wanted.architecture)
  const variant = (one: Platform): string =>
    one.variant === undefined || plain.includes(one.variant) ? '' : one.variant
  return (
    offered.os === wanted.os &&
    offered.architecture === wanted.architecture &&
    variant(offered) === variant(wanted)
  )
}

/** What says of an entry that it is no image: the attestations that docker's builder adds. */
const attestation = 'vnd.docker.reference.type'

/** Whether an entry says that it is about another one, and no image. */
export function isAttestation({ annotations }: Pick<IndexEntry, 'annotations'>): boolean {
  return annotations !== undefined && field(annotations, attestation) !== undefined
}

/** The images of an index: attestations are none. */
export function imagesOf({ manifests }: Pick<Index, 'manifests'>): readonly IndexEntry[] {
  return manifests.filter((entry) => !isAttestation(entry))
}

/**
 * The one image of these for a platform. An entry without a platform is for whoever asks, if it is the only one.
 * @throws CaissonError ERR_IMAGE_NOT_FOUND where there is none, ERR_INVALID_IMAGE where there are several.
 */
export function choose(
  entries: readonly IndexEntry[],
  what: string,
  wanted: Platform = hostPlatform(),
): IndexEntry {
  const [only] = entries
  if (only !== undefined && entries.length === 1 && only.platform === undefined) return only
  const fitting = entries.filter(({ platform }) => platform !== undefined && fits(platform, wanted))
  const digests = new Set(fitting.map(({ digest }) => digest))
  const [found] = fitting
  if (found !== undefined && digests.size === 1) return found
  const shown = showPlatform(wanted)
  if (found !== undefined) throw invalid(what, `has ${digests.size} images for ${shown}`)
  const there = entries.map(({ platform }) => (platform === undefined ? 'unnamed' : showPlatform(platform)))
  const list = [...new Set(there)].slice(0, 20).join(', ')
  throw new CaissonError(
    'ERR_IMAGE_NOT_FOUND',
    `${what}: has no image for ${shown}${list === '' ? '' : `; it has ${list}`}`,
    { stage: 'resolve', subject: what },
  )
}
