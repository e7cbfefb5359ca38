/** The images of an engine: what has which name, what it is, and how it goes. */
import type { Readable, Writable } from 'node:stream'
import { CaissonError, refuse } from '../errors.ts'
import { limit } from '../state/sizes.ts'
import { collect, isPostponed } from './collect.ts'
import type { Collected, CollectOptions } from './collect.ts'
import type { Content, Entry } from './content.ts'
import { describe, historyOf, unreadable } from './described.ts'
import { followed } from './followed.ts'
import type { Followed } from './followed.ts'
import { given } from './given.ts'
import type { Images } from './images.ts'
import { parsePlatform } from './manifest.ts'
import { findImage, nameMeant, noSuchImage, readImages } from './known.ts'
import type { Known } from './known.ts'
import type { PruneContext } from './prune.ts'
import type { LoadProgress } from './load.ts'
import type { PullProgress } from './pull.ts'
import type { PushProgress } from './push.ts'
import { fullName, parseName, showName } from './reference.ts'
import type {
  HistoryEntry,
  ImageInfo,
  ImportOptions,
  PrunedImages,
  PruneOptions,
  Removed,
  SaveImageOptions,
  StoreUsage,
  TransferOptions,
  VerifiedImage,
  VerifyOptions,
} from './info.ts'
import type { SavedImage } from './save.ts'
import type { ImageStore } from './store.ts'

const never = new AbortController().signal

function inUse(reference: string, digest: string): CaissonError {
  const short = digest.slice('sha256:'.length, 'sha256:'.length + 12)
  const message = `unable to remove ${reference} (must force): a running container is using its image ${short}`
  return new CaissonError('ERR_IMAGE_IN_USE', message, { subject: reference })
}

/** The images of one engine. */
export class ImageCollection {
  readonly #root: string
  readonly #images: Images
  readonly #sweep: () => Promise<void>
  readonly #limit: number | undefined

  /** `sweep` has removed what was thrown away. With `most` the store is kept within so many bytes. */
  constructor(root: string, images: Images, sweep: () => Promise<void>, most?: number) {
    this.#limit = most
    images.whenGrown((held) => this.#settle(held))
    this.#root = root
    this.#images = images
    this.#sweep = sweep
  }

  get #content(): Content {
    return this.#images.content
  }

  get #store(): ImageStore {
    return this.#images.store
  }

  /** All images, the newest first. */
  async list(): Promise<ImageInfo[]> {
    const { known, damaged } = readImages(this.#content)
    return [
      ...known.map((one) => describe(this.#images, one)),
      ...unreadable(this.#images, damaged),
    ].toSorted((one, other) => Number(other.created ?? 0) - Number(one.created ?? 0))
  }

  /**
   * An image by its name, its id, or the beginning of that.
   * @throws CaissonError ERR_IMAGE_NOT_FOUND; ERR_INVALID_OPTION where a beginning means several.
   */
  async get(reference: string): Promise<ImageInfo> {
    return describe(this.#images, this.#find(reference))
  }

  /** An image's config, as its maker wrote it. */
  async config(reference: string): Promise<Readonly<Record<string, unknown>>> {
    return this.#find(reference).config
  }

  /** How it was made, the last step first. */
  async history(reference: string): Promise<HistoryEntry[]> {
    return historyOf(this.#images, this.#find(reference))
  }

  /** Gives an image one more name; what had it loses it. */
  async tag(source: string, target: string): Promise<void> {
    const name = parseName(target)
    if (name.digest !== undefined) throw refuse('target', 'a digest is no tag')
    // What was found is not collected before it has its name.
    const kept = await this.#content.keep()
    try {
      const { entries, other, descriptor } = this.#find(source)
      const [first] = entries
      await this.#content.nameAll((now) => {
        const same = now.filter(({ digest }) => digest === first?.digest)
        const entry = same.find((one) => one.name === first?.name) ?? same[0]
        // Somebody removed it meanwhile.
        if (entry === undefined) throw noSuchImage(source)
        // By its id another platform is an image of its own.
        return [{ ...entry, ...(other && descriptor), name: fullName(name), served: undefined }]
      })
      for (const entry of entries.slice(0, 1))
        for (const { digest } of this.#manifests([entry])) this.#store.touch(digest)
    } finally {
      kept.release()
    }
    if (isPostponed(this.#root)) await this.#collect({})
  }

  /**
   * Pulls an image from a registry; what is here and unchanged is not pulled again. Awaited it is the image; iterated, what
   * is being done.
   */
  pull(reference: string, options: TransferOptions<PullProgress> = {}): Followed<ImageInfo, PullProgress> {
    return followed(async (tell) => {
      const taken = given(options, 'signal', 'platform', 'allPlatforms', 'onProgress')
      const { signal = never, platform, allPlatforms, onProgress } = taken
      const report = (progress: PullProgress): void => {
        onProgress?.(progress)
        tell(progress)
      }
      const facts = await this.#images.pull(reference, { signal, platform, allPlatforms, report })
      return this.get(facts.id)
    })
  }

  /**
   * Loads the images of an archive: docker's, or an OCI layout's, plain or gzip; a path, or a stream that is read to its
   * end. A name that stands for another image moves.
   * @throws CaissonError ERR_ARCHIVE, ERR_INVALID_IMAGE, ERR_IMAGE_LIMIT, ERR_DIGEST, ERR_UNSUPPORTED: then no name moved.
   */
  async load(source: string | Readable, options: TransferOptions<LoadProgress> = {}): Promise<ImageInfo[]> {
    const taken = given(options, 'signal', 'platform', 'allPlatforms', 'onProgress')
    const { signal = never, platform, allPlatforms, onProgress: report } = taken
    const ids = await this.#images.load(source, { signal, platform, allPlatforms, report })
    const loaded = await Promise.all(ids.map((id) => this.get(id)))
    await this.#settle(loaded.map(({ digest }) => digest))
    return loaded
  }

  /**
   * Imports the tar archive of a root file system, plain or gzip, as an image with one layer.
   * @throws CaissonError ERR_ARCHIVE, ERR_IMAGE_LIMIT; ERR_INVALID_OPTION for a name or a change that is none.
   */
  async import(source: string | Readable, options: ImportOptions = {}): Promise<ImageInfo> {
    const taken = given(options, 'reference', 'changes', 'message', 'signal', 'platform')
    const { reference, changes = [], message = 'Imported from -', signal = never, platform } = taken
    const name = reference === undefined ? undefined : parseName(reference)
    if (name?.digest !== undefined) throw refuse('reference', 'a digest is no tag')
    const as = { name: name && fullName(name), changes, message }
    const imported = await this.get(await this.#images.import(source, as, { signal, platform }))
    await this.#settle([imported.digest])
    return imported
  }

  /**
   * Saves images, each once and under the names that are asked for, to an archive for `load`, docker, podman and skopeo:
   * a file, written aside and renamed, or a stream, which is ended.
   * @throws CaissonError ERR_IMAGE_NOT_FOUND for an image that is not here, or whose blobs were pruned.
   */
  async save(
    references: string | readonly string[],
    target: string | Writable,
    options: SaveImageOptions = {},
  ): Promise<void> {
    const { format = 'docker', platform, signal = never } = given(options, 'format', 'platform', 'signal')
    const asked = platform === undefined ? undefined : parsePlatform(platform)
    if (!['docker', 'oci', 'oci-dir'].includes(format))
      throw refuse('format', "is none of 'docker', 'oci', 'oci-dir'")
    const { partsOf, save } = await import('./save.ts')
    const images = new Map<string, SavedImage>()
    const wanted = typeof references === 'string' ? [references] : references
    if (wanted.length === 0) throw refuse('image', 'is missing')
    for (const reference of wanted) {
      const { descriptor, manifest, blobs } = partsOf(this.#content, reference, this.#find(reference), asked)
      const name = nameMeant(this.#content, reference)
      const names = images.get(descriptor.digest)?.names ?? []
      images.set(descriptor.digest, {
        descriptor,
        manifest,
        blobs,
        names: name === undefined || name.includes('@') ? names : [...new Set([...names, name])],
      })
    }
    await save(this.#content, [...images.values()], target, { format, signal })
  }

  /**
   * Pushes an image to the registry that its name says. What is there already is not sent. One with all its platforms goes
   * as a whole, its index byte for byte; with `platform` that one alone.
   * @throws CaissonError ERR_IMAGE_NOT_FOUND where something of it is not here, before anything is sent.
   */
  async push(reference: string, options: TransferOptions<PushProgress> = {}): Promise<string> {
    const { push } = await import('./push.ts')
    const name = parseName(reference)
    const {
      signal = never,
      platform,
      onProgress: report,
    } = given(options, 'signal', 'platform', 'allPlatforms', 'onProgress')
    const wanted = platform === undefined ? undefined : parsePlatform(platform)
    return push(this.#content, name, { signal, platform: wanted, report })
  }

  /**
   * Takes a name away, and with the last one the image; or by its id the image with all its names, if that is one or
   * `force` is given.
   * @throws CaissonError ERR_IMAGE_IN_USE where a container runs, or an id has several names.
   */
  async remove(reference: string, options: { force?: boolean } = {}): Promise<Removed> {
    const { force = false } = given(options, 'force')
    const byName = nameMeant(this.#content, reference)
    const damaged = readImages(this.#content).damaged.find(
      ({ name }) => name !== undefined && name === byName,
    )
    if (damaged !== undefined) return this.#forget(damaged, reference, force)
    const known = this.#find(reference)
    const names = known.entries.flatMap(({ name }) => (name === undefined ? [] : [name]))
    const id = known.manifest.config.digest
    const taken = byName === undefined ? names : [byName]
    const short = id.slice('sha256:'.length, 'sha256:'.length + 12)
    if (byName === undefined && new Set(names).size > 1 && !force) {
      const message = `unable to delete ${short} (must be forced): the image has several names: ${names.map(showName).join(', ')}`
      throw new CaissonError('ERR_IMAGE_IN_USE', message, { subject: reference })
    }
    if (known.other) {
      const message = `unable to delete ${short}: it is one platform of ${names.map(showName).join(', ') || 'an image'}`
      throw new CaissonError('ERR_IMAGE_IN_USE', message, { subject: reference })
    }
    const last = names.every((name) => taken.includes(name))
    if (last && !force && this.#images.isUsed(this.#manifests(known.entries))) {
      throw inUse(reference, id)
    }
    const digests = new Set(known.entries.map(({ digest }) => digest))
    await this.#content.change((entries) =>
      entries.filter(
        ({ name, digest }) => !digests.has(digest) || (name === undefined ? !last : !taken.includes(name)),
      ),
    )
    if (last) await this.#collect({})
    return { untagged: taken.map(showName), deleted: last ? [id] : [] }
  }

  /** Takes a name away from an image of which no more is known. */
  async #forget(forgotten: Entry, reference: string, force: boolean): Promise<Removed> {
    const { name = '', digest } = forgotten
    const others = this.#content.entries().some((entry) => entry.digest === digest && entry.name !== name)
    if (!others && !force && this.#images.isUsed(this.#manifests([forgotten]))) throw inUse(reference, digest)
    await this.#content.change((entries) =>
      entries.filter((entry) => entry.name !== name || entry.digest !== digest),
    )
    const last = !this.#content.entries().some((entry) => entry.digest === digest)
    const { id = digest } = this.#store.image(digest) ?? {}
    if (last) await this.#collect({})
    return { untagged: [showName(name)], deleted: last ? [id] : [] }
  }

  /**
   * Removes images without a name, or with `all` every image of which no container runs; with `blobs` also the compressed
   * blobs of what is unpacked.
   */
  async prune(options: PruneOptions = {}): Promise<PrunedImages> {
    const { all = false, blobs = false, keepStorage } = given(options, 'all', 'blobs', 'keepStorage')
    const { prune, shrink } = await import('./prune.ts')
    if (keepStorage !== undefined && blobs) throw refuse('keepStorage', 'is not for blobs alone')
    const { untagged, deleted, collected } =
      keepStorage === undefined
        ? await prune(this.#pruning, { all, blobs })
        : await shrink(this.#pruning, limit('keepStorage', keepStorage), { all })
    if (collected.layers > 0) await this.#sweep()
    return { untagged, deleted, reclaimed: collected.bytes, damaged: this.#damaged() }
  }

  /** What grew is brought back within the limit, if there is one; `held` stays. */
  async #settle(held: readonly string[]): Promise<void> {
    if (isPostponed(this.#root)) await this.#collect({})
    if (this.#limit === undefined) return
    const { shrink } = await import('./prune.ts')
    const { collected } = await shrink(this.#pruning, this.#limit, { all: true, held: new Set(held) })
    if (collected.layers > 0) await this.#sweep()
  }

  get #pruning(): PruneContext {
    const isUsed: PruneContext['isUsed'] = (entries) => this.#images.isUsed(this.#manifests(entries))
    return { root: this.#root, content: this.#content, store: this.#store, isUsed }
  }

  /**
   * Verifies images by their names or ids, all where none is given: documents and blobs against their digests, unpacked
   * layers against their blobs, entry by entry, for which each is unpacked once more, aside. What is damaged is removed, so
   * that the next pull gets that, and nothing else, anew; but not what a running container uses.
   * @throws CaissonError ERR_IMAGE_NOT_FOUND. What is found is no error.
   */
  async verify(
    references: string | readonly string[] = [],
    options: VerifyOptions = {},
  ): Promise<VerifiedImage[]> {
    const { signal = never, onProgress } = given(options, 'signal', 'onProgress')
    const wanted = typeof references === 'string' ? [references] : references
    const { verify } = await import('./verify.ts')
    const verified = await verify(this.#images.context, wanted, signal, onProgress)
    if (verified.some(({ isWhole }) => !isWhole)) await this.#sweep()
    if (isPostponed(this.#root)) await this.#collect({})
    return verified
  }

  /** What the store holds. */
  async usage(): Promise<StoreUsage> {
    const { known, damaged } = readImages(this.#content)
    const layers = this.#store.layers()
    const named = new Set(
      [...known, ...damaged.map((entry) => ({ entries: [entry] }))]
        .filter(({ entries }) => entries.some(({ name }) => name !== undefined))
        .flatMap(({ entries }) =>
          this.#manifests(entries).flatMap(({ digest }) => this.#store.image(digest)?.chains ?? []),
        ),
    )
    const blobs = this.#content.blobs()
    const sum = (sizes: readonly number[]): number => sizes.reduce((all, one) => all + one, 0)
    return {
      images: known.length + new Set(damaged.map(({ digest }) => digest)).size,
      damaged: this.#damaged(),
      layers: { count: layers.length, bytes: sum(layers.map(({ bytes }) => bytes)) },
      blobs: { count: blobs.length, bytes: sum(blobs.map(({ size }) => size)) },
      reclaimable: sum(layers.filter(({ chain }) => !named.has(chain)).map(({ bytes }) => bytes)),
    }
  }

  /** Images that keep every blob. */
  #damaged(): number {
    const damaged = this.#content.entries().filter((entry) => this.#content.isDamaged(entry))
    return new Set(damaged.map(({ digest }) => digest)).size
  }

  async #collect(options: CollectOptions): Promise<Collected> {
    const collected = collect(this.#root, this.#content, this.#store, options)
    if (collected !== undefined && collected.layers > 0) await this.#sweep()
    return collected ?? { layers: 0, blobs: 0, bytes: 0 }
  }

  /** The digests of the manifests of these, on every platform, whether they are here or not. */
  #manifests(entries: readonly Entry[]): { digest: string }[] {
    return entries.flatMap((entry) =>
      [entry.digest, ...this.#content.listed(entry)].map((digest) => ({ digest })),
    )
  }

  #find(reference: string): Known {
    return findImage(this.#content, reference)
  }
}
