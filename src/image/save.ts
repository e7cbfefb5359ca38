/**
 * Images to an archive: an OCI layout, with docker's `manifest.json` beside it, as docker writes them since 25. What is in
 * it depends on the images and their names alone, and each blob is in it once.
 */
import { createReadStream } from 'node:fs'
import type { Writable } from 'node:stream'
import { CaissonError, refuse } from '../errors.ts'
import type { Content } from './content.ts'
import type { Known } from './known.ts'
import { isIndex } from './manifest.ts'
import type { Descriptor, Manifest, Platform } from './manifest.ts'
import { requireMember, showMember } from './platforms.ts'
import { parseName, showName } from './reference.ts'
import { tar } from './tar.ts'
import type { TarEntry } from './tar.ts'
import { writeTo } from './target.ts'

/** What is written: an archive for docker too, or of an OCI layout alone; or a layout itself, into a directory. */
export type ArchiveFormat = 'docker' | 'oci' | 'oci-dir'

/** An image to be saved. */
export interface SavedImage {
  /** Of its manifest, or of the index with all its platforms. */
  descriptor: Descriptor
  /** What docker's own reader is told of. */
  manifest: Manifest
  /** All documents and layers of it. */
  blobs: readonly Descriptor[]
  /** The whole names that it has in the archive. */
  names: readonly string[]
}

export interface SaveOptions {
  format: ArchiveFormat
  signal: AbortSignal
}

/** Bytes of a blob that are read at a time. */
const piece = 1 << 18

function path(digest: string): string {
  return `blobs/${digest.replace(':', '/')}`
}

/** All blobs of the images, by name. */
function blobsOf(content: Content, images: readonly SavedImage[]): Map<string, Descriptor> {
  const blobs = new Map<string, Descriptor>()
  for (const image of images) for (const one of image.blobs) blobs.set(path(one.digest), one)
  for (const { digest, size } of blobs.values()) {
    if (content.has(digest, size)) continue
    const message = `blob ${digest} is not in the store any more: pull the image again, or load it`
    throw new CaissonError('ERR_IMAGE_NOT_FOUND', message, { stage: 'save', subject: digest })
  }
  return blobs
}

/** What an archive holds of an image: all its platforms if they are here, or the one that is asked for. */
export function partsOf(
  content: Content,
  reference: string,
  known: Known,
  asked: Platform | undefined,
): Omit<SavedImage, 'names'> {
  const [entry] = known.entries
  // By its id another platform is an image of its own.
  const isMeant = (one: Descriptor): boolean => !known.other || one.digest === known.descriptor.digest
  const members =
    entry === undefined ? [] : content.undamaged(entry).filter((member) => isMeant(member.entry))
  const one = asked === undefined ? undefined : requireMember(members, reference, asked)
  const { manifest } = one ?? known
  const descriptor = one?.entry ?? (known.other || entry === undefined ? known.descriptor : entry)
  if (entry === undefined || !isIndex(descriptor))
    return { descriptor, manifest, blobs: [descriptor, manifest.config, ...manifest.layers] }
  const [lacking] = content.missing(entry)
  if (lacking !== undefined) {
    const what = `${reference}: ${showMember(lacking.entry)} is not in the store any more`
    const message = `${what}: pull it again with all platforms, or save one platform`
    throw new CaissonError('ERR_IMAGE_NOT_FOUND', message, { stage: 'save', subject: lacking.digest })
  }
  const blobs = members.flatMap((member) => [member.entry, ...member.blobs])
  return { descriptor, manifest, blobs: [descriptor, ...blobs] }
}

function document(name: string, value: object): TarEntry {
  const bytes = Buffer.from(JSON.stringify(value))
  return { name, size: bytes.length, content: () => [bytes] }
}

/** The index of the layout: an entry a name. */
function index(images: readonly SavedImage[]): { manifests: object[] } & Record<string, unknown> {
  const manifests = images.flatMap(({ descriptor: { mediaType, digest, size }, names }) => {
    const entry = { mediaType, digest, size }
    if (names.length === 0) return [entry]
    return names.map((name) => ({
      ...entry,
      annotations: {
        'io.containerd.image.name': name,
        'org.opencontainers.image.ref.name': parseName(name).tag,
      },
    }))
  })
  return { schemaVersion: 2, mediaType: 'application/vnd.oci.image.index.v1+json', manifests }
}

function entries(content: Content, images: readonly SavedImage[], format: ArchiveFormat): TarEntry[] {
  const none = (): [] => []
  const blobs = [...blobsOf(content, images)].map(([name, { digest, size }]): TarEntry => ({
    name,
    size,
    content: () => createReadStream(content.path(digest), { highWaterMark: piece }),
  }))
  const docker = images.map(({ manifest, names }) => ({
    Config: path(manifest.config.digest),
    RepoTags: names.length === 0 ? null : names.map(showName),
    Layers: manifest.layers.map(({ digest }) => path(digest)),
  }))
  const all: TarEntry[] = [
    { name: 'blobs/', size: 0, content: none },
    { name: 'blobs/sha256/', size: 0, content: none },
    ...blobs,
    document('index.json', index(images)),
    ...(format === 'docker' ? [document('manifest.json', docker)] : []),
    document('oci-layout', { imageLayoutVersion: '1.0.0' }),
  ]
  return all.toSorted((one, other) => (one.name < other.name ? -1 : 1))
}

/** Saves images to a file, or to a stream, which is ended then; or into a directory. */
export async function save(
  content: Content,
  images: readonly SavedImage[],
  target: string | Writable,
  { format, signal }: SaveOptions,
): Promise<void> {
  signal.throwIfAborted()
  const kept = await content.keep(signal)
  try {
    if (format !== 'oci-dir') await writeTo(target, tar(entries(content, images, format)), signal)
    else if (typeof target !== 'string') throw refuse('target', 'a directory is wanted for oci-dir')
    else {
      const { writeLayout } = await import('./write-layout.ts')
      const parts = { manifests: index(images).manifests, blobs: blobsOf(content, images) }
      await writeLayout(content, target, parts, signal)
    }
  } catch (error) {
    signal.throwIfAborted()
    throw error
  } finally {
    kept.release()
  }
}
