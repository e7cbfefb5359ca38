/**
 * Whether what is in the store is still what its names say. Documents and blobs are hashed, and each layer's tree is held
 * against its blob. What is damaged is moved out of the way, so that the next pull gets it anew, and nothing else.
 */
import { createHash } from 'node:crypto'
import { closeSync, createReadStream, existsSync, statSync } from 'node:fs'
import { constants } from 'node:os'
import { pipeline } from 'node:stream/promises'
import { CaissonError, refuse } from '../errors.ts'
import type { ErrorCode } from '../errors.ts'
import { setAside } from './aside.ts'
import { parseConfig } from './config.ts'
import type { Content, Entry } from './content.ts'
import type { Fault, VerifiedImage } from './info.ts'
import type { UnpackLayer } from './layers.ts'
import { hostPlatform, isIndex, mostConfigBytes, mostManifestBytes, parseManifest } from './manifest.ts'
import type { Descriptor, Index, Manifest, Platform } from './manifest.ts'
import { memberFor, membersOf, readMember } from './platforms.ts'
import { fullName, parseName, showName } from './reference.ts'
import { chainIds } from './store.ts'
import type { ImageStore } from './store.ts'

/** What is verified, and by whom. */
export interface VerifyContext {
  store: ImageStore
  content: Content
  unpackLayer: UnpackLayer
}

/** A fault as it is found, and what mends it: answers why it was left, if it was. */
interface Found {
  fault: Omit<Fault, 'left'>
  mend?: () => string | undefined
}

/** What may say something of a blob or a tree. */
const speaking: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'ERR_DIGEST',
  'ERR_ARCHIVE',
  'ERR_IMAGE_LIMIT',
  'ERR_UNSUPPORTED',
  'ERR_IMAGE_NOT_FOUND',
])

/** A manifest that is here; `pruned` as of its entry. */
type Kept = Descriptor & Pick<Entry, 'pruned'>

/** One image under all its names. */
interface Target {
  entry: Entry
  names: string[]
}

/** What a name, an id, or the beginning of an id means: also of an image whose documents cannot be read. */
function isMeant(
  reference: string,
  { entry, names }: Target,
  ids: readonly string[],
  listed: readonly string[],
): boolean {
  const hex = reference.replace(/^sha256:/, '')
  if (
    /^[a-f0-9]{1,64}$/.test(hex) &&
    [...ids, entry.digest, ...listed].some((one) => one.slice(7).startsWith(hex))
  )
    return true
  try {
    return names.includes(fullName(parseName(reference)))
  } catch (error) {
    if (error instanceof CaissonError) return false
    throw error
  }
}

/** What a path is now. Whatever takes its place is another. */
function identityOf(path: string): string | undefined {
  const known = statSync(path, { bigint: true, throwIfNoEntry: false })
  return known && [known.ino, known.size, known.ctimeNs].join(' ')
}

const changed = 'it was changed meanwhile'

class Verification {
  readonly #context: VerifyContext
  readonly #signal: AbortSignal
  /** Layers that images share are looked at once. */
  readonly #layers = new Map<string, Found[]>()

  constructor(context: VerifyContext, signal: AbortSignal) {
    this.#context = context
    this.#signal = signal
  }

  targets(references: readonly string[]): Target[] {
    const { content } = this.#context
    const all = new Map<string, Target>()
    for (const entry of content.entries()) {
      const target = all.get(entry.digest) ?? { entry, names: [] }
      if (entry.name !== undefined) target.names.push(entry.name)
      // The index that one of them came from is looked at, too.
      if (target.entry.served === undefined) target.entry = entry
      all.set(entry.digest, target)
    }
    if (references.length === 0) return [...all.values()]
    const wanted = new Set<Target>()
    for (const reference of references) {
      if (reference === '') throw refuse('image', 'is empty')
      const meant = [...all.values()].filter((one) =>
        isMeant(reference, one, this.#ids(one.entry), content.listed(one.entry)),
      )
      if (meant.length === 0)
        throw new CaissonError('ERR_IMAGE_NOT_FOUND', `No such image: ${reference}`, { subject: reference })
      for (const one of meant) wanted.add(one)
    }
    return [...wanted]
  }

  /** What is known of it; of an index on all its platforms, this machine's first. */
  #ids(entry: Entry): string[] {
    const { content, store } = this.#context
    const own = memberFor(content.undamaged(entry), undefined)
    const digests = [entry.digest, ...(own === undefined ? [] : [own.entry.digest]), ...content.listed(entry)]
    const unpacked = digests.flatMap((digest) => store.image(digest)?.id ?? [])
    return own === undefined ? unpacked : [own.manifest.config.digest, ...unpacked]
  }

  async image({ entry, names }: Target): Promise<VerifiedImage> {
    const { content } = this.#context
    const kept = await content.keep(this.#signal)
    let found: Found[]
    try {
      found = await this.#look(entry)
    } finally {
      kept.release()
    }
    const faults = this.#mend(found)
    return {
      digest: entry.digest,
      id: this.#ids(entry)[0],
      names: names.map(showName),
      isWhole: faults.every(({ state }) => state === 'unverifiable'),
      faults,
    }
  }

  /** Under the lock that collecting has alone: nobody builds on what is thrown away. */
  #mend(found: readonly Found[]): Fault[] {
    if (found.every(({ mend }) => mend === undefined)) return found.map(({ fault }) => ({ ...fault }))
    const lock = this.#context.content.collect()
    try {
      return found.map(({ fault, mend }) => {
        const left = lock === undefined ? 'a pull is at work' : mend?.()
        return mend === undefined || left === undefined ? { ...fault } : { ...fault, left }
      })
    } finally {
      lock?.release()
    }
  }

  async #look(entry: Entry): Promise<Found[]> {
    const found: Found[] = []
    const { served, digest } = entry
    if (served !== undefined && served !== digest) this.#index(served, found)
    if (isIndex(entry)) await this.#platforms(entry, found)
    else {
      const manifest = this.#document(entry, 'manifest', mostManifestBytes, found, (bytes, what) =>
        parseManifest(bytes, what, entry.mediaType),
      )
      if (manifest?.kind === 'manifest')
        await this.#image(entry, manifest, entry.platform ?? hostPlatform(), found)
    }
    return found
  }

  /** All that an index lists. What is no image is hashed, and no more is known of it. */
  async #platforms(entry: Entry, found: Found[]): Promise<void> {
    const { store } = this.#context
    const listed = this.#document(entry, 'index', mostManifestBytes, found, (bytes, what) => {
      const index = parseManifest(bytes, what, entry.mediaType)
      return index.kind === 'index' ? membersOf(index, what) : []
    })
    for (const one of listed ?? []) {
      const member = this.#document(one, 'manifest', mostManifestBytes, found, (bytes, what) =>
        readMember(one, bytes, what),
      )
      if (member?.manifest === undefined) {
        for (const blob of member?.blobs ?? []) found.push(...(await this.#blob(blob)))
        continue
      }
      // A prune takes the blobs of what is unpacked alone.
      const pruned = entry.pruned === true && store.image(one.digest) !== undefined
      await this.#image({ ...one, pruned }, member.manifest, null, found)
    }
  }

  /** A blob that is only kept. */
  async #blob({ digest, size }: Descriptor): Promise<Found[]> {
    const { content } = this.#context
    const fault = (state: Fault['state'], message: string): Found['fault'] => ({
      part: 'blob',
      digest,
      state,
      message,
    })
    const mend = this.#remover(digest)
    if (!existsSync(content.path(digest))) return [{ fault: fault('missing', 'is not here') }]
    if (!content.has(digest, size)) return [{ fault: fault('damaged', `has not ${size} bytes`), mend }]
    if ((await this.#hash(digest)) === digest) return []
    return [{ fault: fault('damaged', 'its bytes have another digest'), mend }]
  }

  /** The config and the layers of a manifest. */
  async #image(
    entry: Kept,
    { layers, config }: Manifest,
    platform: Platform | null,
    found: Found[],
  ): Promise<void> {
    const read = this.#document(config, 'config', mostConfigBytes, found, (bytes, what) =>
      parseConfig(bytes, what, layers.length, platform),
    )
    const { diffIds } = read ?? {}
    const chains = diffIds && chainIds(diffIds)
    for (const [at, layer] of layers.entries()) {
      this.#signal.throwIfAborted()
      const chain = chains?.[at] ?? ''
      const isUnpacked = this.#context.store.image(entry.digest)?.chains.includes(chain) === true
      // What is said of one that is not here depends on the image.
      const key = [chain, layer.digest, entry.pruned === true, isUnpacked].join(' ')
      const known =
        this.#layers.get(key) ??
        (await this.#layer(entry, layer, chain, diffIds?.[at], chains?.slice(0, at) ?? []))
      this.#layers.set(key, known)
      found.push(...known.map((one) => ({ ...one, fault: { ...one.fault, layer: at } })))
    }
  }

  /** An index, of which nobody here knows the size. */
  #index(digest: string, found: Found[]): void {
    const { content } = this.#context
    const known = content.blobs().find((blob) => blob.digest === digest)
    const size = known?.size ?? 0
    this.#document(
      { mediaType: '', digest, size },
      'index',
      mostManifestBytes,
      found,
      (bytes, what): Index | Manifest => parseManifest(bytes, what, undefined),
    )
  }

  #document<Document>(
    descriptor: Descriptor,
    part: Fault['part'],
    most: number,
    found: Found[],
    parse: (bytes: Buffer, what: string) => Document,
  ): Document | undefined {
    const { content } = this.#context
    const { digest } = descriptor
    const what = `${part} ${digest}`
    let bytes: Buffer | undefined
    const mend = this.#remover(digest)
    try {
      bytes = content.layout.blob(descriptor, most, what)
      return parse(bytes, what)
    } catch (error) {
      if (!(error instanceof CaissonError)) throw error
      const state = existsSync(content.path(digest)) ? 'damaged' : 'missing'
      const fault = { part, digest, state, message: error.message } as const
      // One that hashes right is what its maker wrote: no pull would bring another.
      found.push({ fault, ...(state === 'damaged' && bytes === undefined && { mend }) })
      return undefined
    }
  }

  /**
   * Removes a blob that is still the one that is here now: before it is mended, or for the next image that has it, a pull may
   * have brought a good one.
   */
  #remover(digest: string): () => string | undefined {
    const { content } = this.#context
    const path = content.path(digest)
    const seen = identityOf(path)
    return () => {
      const now = identityOf(path)
      if (now !== seen) return now === undefined ? undefined : changed
      content.remove(digest)
      return undefined
    }
  }

  async #hash(digest: string): Promise<string> {
    const hash = createHash('sha256')
    try {
      await pipeline(createReadStream(this.#context.content.path(digest)), hash, { signal: this.#signal })
    } catch (error) {
      // What the disk does not give has no digest.
      if (error instanceof Error && 'code' in error && error.code === 'EIO') return 'none'
      throw error
    }
    return `sha256:${hash.digest('hex')}`
  }

  /** A layer: its blob, and its tree if the config could be read, which says whose it is. */
  async #layer(
    entry: Kept,
    layer: Descriptor,
    chain: string,
    diffId: string | undefined,
    below: readonly string[],
  ): Promise<Found[]> {
    const { store, content } = this.#context
    const { digest, size } = layer
    const found: Found[] = []
    const say = (
      part: 'blob' | 'tree',
      state: Fault['state'],
      message: string,
      mend?: Found['mend'],
    ): void => {
      found.push({ fault: { part, digest, state, message }, ...(mend !== undefined && { mend }) })
    }
    const drop = this.#remover(digest)
    const tree = chain === '' ? undefined : identityOf(store.place(chain))
    const aside = (): string | undefined => {
      const isStill = (): boolean => identityOf(store.place(chain)) === tree
      if (!isStill()) return existsSync(store.place(chain)) ? changed : undefined
      return setAside(store, chain, isStill) ? undefined : 'a running container uses it'
    }
    const isBroken = chain !== '' && store.isBroken(chain)
    if (isBroken) say('tree', 'damaged', 'its mark or its tree cannot be read', aside)
    const isThere = chain !== '' && !isBroken && store.layer(chain) !== undefined
    if (!isThere && !isBroken && store.image(entry.digest)?.chains.includes(chain) === true)
      say('tree', 'missing', 'is not here')
    if (!content.has(digest, size)) {
      if (existsSync(content.path(digest))) say('blob', 'damaged', `has not ${size} bytes`, drop)
      else if (entry.pruned === true) say('blob', 'unverifiable', 'was pruned')
      else say('blob', 'missing', 'is not here')
      if (isThere) say('tree', 'unverifiable', 'its blob is not here')
      return found
    }
    if (diffId === undefined) {
      if ((await this.#hash(digest)) !== digest) say('blob', 'damaged', 'its bytes have another digest', drop)
      say('tree', 'unverifiable', 'the config, which says what it is, cannot be read')
      return found
    }
    const blob = content.layout.open(layer)
    try {
      await this.#context.unpackLayer(
        { chain, lowers: below.toReversed(), digest, size, diffId, blob, keep: false, check: true },
        this.#signal,
      )
    } catch (error) {
      this.#signal.throwIfAborted()
      if (!(error instanceof CaissonError) || !speaking.has(error.code)) throw error
      const { code, stage, errno } = error
      const message = error.message.replace(/^(?:verify|unpack): /, '')
      if (stage === 'verify' && errno === undefined) say('tree', 'damaged', message, aside)
      else if (errno !== undefined && errno !== constants.errno.EIO) throw error
      else if ((await this.#hash(digest)) !== digest) {
        say('blob', 'damaged', message, drop)
        if (isThere) say('tree', 'unverifiable', 'its blob is damaged')
      }
      // The disk gives the blob and not the tree.
      else if (errno !== undefined && isThere) say('tree', 'damaged', message, aside)
      // The right bytes: the image itself is wrong, or a layer below is.
      else say('tree', code === 'ERR_DIGEST' ? 'damaged' : 'unverifiable', message)
    } finally {
      closeSync(blob)
    }
    return found
  }
}

/**
 * Verifies images, all where none is named, and moves what is damaged out of the way.
 * @throws CaissonError ERR_IMAGE_NOT_FOUND; those of what could not be read for want of room or rights.
 */
export async function verify(
  context: VerifyContext,
  references: readonly string[],
  signal: AbortSignal,
  report?: (image: VerifiedImage) => void,
): Promise<VerifiedImage[]> {
  const verification = new Verification(context, signal)
  const verified: VerifiedImage[] = []
  for (const target of verification.targets(references)) {
    const image = await verification.image(target)
    report?.(image)
    verified.push(image)
  }
  return verified
}
