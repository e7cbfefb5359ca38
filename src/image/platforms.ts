/**
 * All platforms of an image: an index, and what its entries lead to. An entry that is no image, an attestation or an
 * artifact, is kept as it is: its bytes, and the blobs that it refers to.
 */
import { field, invalid, isObject, object, objects, parse, tooLarge } from './document.ts'
import type { Layout } from './layout.ts'
import {
  choose,
  descriptor,
  fits,
  hostPlatform,
  isAttestation,
  isConfig,
  isIndex,
  isManifest,
  mostManifestBytes,
  parseManifest,
  showPlatform,
} from './manifest.ts'
import type { Descriptor, Index, IndexEntry, Manifest, Platform } from './manifest.ts'

/** The most entries of an index of which all are wanted: a request and a document each. */
const mostMembers = 256
/** The most blobs of one that is no image. */
const mostBlobs = 1000

/** It becomes a header of a request. */
const mediaTypes = /^[\w!#$&^.+-]{1,127}\/[\w!#$&^.+-]{1,127}$/

/** An entry of an index, or an image that is in none, and what it consists of. */
export interface Member {
  entry: Pick<IndexEntry, keyof Descriptor | 'platform'>
  /** None of what is no image. */
  manifest: Manifest | undefined
  /** All that it refers to, its config among them. */
  blobs: readonly Descriptor[]
}

/** A member that is an image. */
export type ImageMember = Member & { manifest: Manifest }

/** Whether a member is an image. */
export function isImage(member: Member): member is ImageMember {
  return member.manifest !== undefined
}

/**
 * The entries of an index of which all are wanted, each document once.
 * @throws CaissonError ERR_IMAGE_LIMIT for too many, ERR_INVALID_IMAGE for what no request can name, or an index.
 */
export function membersOf({ manifests }: Index, what: string): readonly IndexEntry[] {
  const found = [...new Map(manifests.map((entry) => [entry.digest, entry])).values()]
  if (found.length > mostMembers) throw tooLarge(what, `manifests has more than ${mostMembers} entries`)
  for (const entry of found) {
    if (isIndex(entry)) throw invalid(`manifest ${entry.digest}`, 'is an index in an index')
    if (!mediaTypes.test(entry.mediaType)) throw invalid(what, 'mediaType of an entry is no media type')
    if (entry.size > mostManifestBytes)
      throw tooLarge(`manifest ${entry.digest}`, `is larger than ${mostManifestBytes} bytes`)
  }
  return found
}

/** The descriptors in a document that may be anything. */
function references(bytes: Uint8Array, what: string): Descriptor[] {
  const fields = parse(bytes, what)
  if (field(fields, 'manifests') !== undefined) throw invalid(what, 'is an index in an index')
  const config = object(fields, 'config', what)
  const lists = ['layers', 'blobs'].flatMap((name) =>
    Array.isArray(field(fields, name)) ? objects(fields, name, mostBlobs, what) : [],
  )
  return [...(config === undefined ? [] : [config]), ...lists].map((one) => descriptor(one, what))
}

/** Whether a manifest is an image's, by the type of its config. */
function hasImageConfig(bytes: Uint8Array, what: string): boolean {
  const config = field(parse(bytes, what), 'config')
  const mediaType = isObject(config) ? field(config, 'mediaType') : undefined
  return typeof mediaType === 'string' && isConfig({ mediaType })
}

/**
 * Reads the document of an entry.
 * @throws CaissonError ERR_INVALID_IMAGE, ERR_IMAGE_LIMIT, ERR_UNSUPPORTED, ERR_DIGEST, as parseManifest.
 */
export function readMember(
  entry: Member['entry'] & Pick<IndexEntry, 'annotations'>,
  bytes: Uint8Array,
  what: string,
): Member {
  if (isAttestation(entry) || !isManifest(entry) || !hasImageConfig(bytes, what))
    return { entry, manifest: undefined, blobs: references(bytes, what) }
  const manifest = parseManifest(bytes, what, entry.mediaType)
  if (manifest.kind === 'index') throw invalid(what, 'is an index in an index')
  return { entry, manifest, blobs: [manifest.config, ...manifest.layers] }
}

/** The index that an entry of a layout stands for; none where it stands for one image. */
export function indexOf(layout: Layout, entry: Descriptor): Index | undefined {
  if (!isIndex(entry)) return undefined
  const what = `index ${entry.digest}`
  const index = parseManifest(layout.blob(entry, mostManifestBytes, what), what, entry.mediaType)
  if (index.kind !== 'index') throw invalid(what, 'is no index')
  return index
}

/** What an entry of a layout stands for: itself, or what its index lists. */
export function listedIn(layout: Layout, entry: Member['entry']): readonly Member['entry'][] {
  const index = indexOf(layout, entry)
  return index === undefined ? [entry] : membersOf(index, `index ${entry.digest}`)
}

/** What one of these consists of. */
export function memberIn(layout: Layout, entry: Member['entry']): Member {
  const what = `manifest ${entry.digest}`
  return readMember(entry, layout.blob(entry, mostManifestBytes, what), what)
}

/**
 * The image of these for a platform; undefined where there is none. Without a platform this machine's, else the first: what
 * stands for all of them.
 */
export function memberFor(members: readonly Member[], wanted: Platform | undefined): ImageMember | undefined {
  const images = members.filter(isImage)
  const suits = (platform: Platform): ImageMember | undefined =>
    images.find(({ entry }) => entry.platform !== undefined && fits(entry.platform, platform)) ??
    (images.length === 1 && images[0]?.entry.platform === undefined ? images[0] : undefined)
  return wanted === undefined ? (suits(hostPlatform()) ?? images[0]) : suits(wanted)
}

/** As {@link memberFor}, for a platform that somebody named. @throws CaissonError ERR_IMAGE_NOT_FOUND where there is none. */
export function requireMember(members: readonly Member[], what: string, wanted: Platform): ImageMember {
  const images = members.filter(isImage)
  const entries = images.map(({ entry }) => ({ ...entry, name: undefined }))
  const { digest } = choose(entries, what, wanted)
  const found = images.find(({ entry }) => entry.digest === digest)
  if (found === undefined) throw invalid(what, 'has no image')
  return found
}

/** What a member is called in a message. */
export function showMember({ platform, digest }: Pick<IndexEntry, 'platform' | 'digest'>): string {
  return platform === undefined ? digest : `${showPlatform(platform)} (${digest})`
}
