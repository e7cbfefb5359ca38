/**
 * An image from a registry into the store: its documents, checked by digest, then its layers, each unpacked as it arrives.
 * Nothing has a name before all of it is on the disk.
 */
import { CaissonError } from '../errors.ts'
import { Registry } from '../registry/registry.ts'
import { parseConfig } from './config.ts'
import type { Config } from './config.ts'
import type { Content } from './content.ts'
import { invalid } from './document.ts'
import { fetchBlobs } from './fetch.ts'
import { unpackLayers } from './layers.ts'
import type { BlobSource, UnpackLayer } from './layers.ts'
import {
  choose,
  fits,
  hostPlatform,
  imagesOf,
  mostConfigBytes,
  mostManifestBytes,
  parseManifest,
} from './manifest.ts'
import type { Descriptor, Index, IndexEntry, Manifest, Platform } from './manifest.ts'
import { memberFor, membersOf, readMember } from './platforms.ts'
import type { Member } from './platforms.ts'
import { present, wantsAll } from './present.ts'
import { fullName } from './reference.ts'
import type { RegistryReference } from './reference.ts'
import { chainIds } from './store.ts'
import type { Facts, ImageStore } from './store.ts'
import { remote } from './transfer.ts'

/** How many layers come at a time. */
const parallel = 4

/** What a pull is doing. */
export type PullProgress =
  /** What the name stands for is known. */
  | { kind: 'resolved'; digest: string; layers: readonly { digest: string; size: number }[] }
  /**
   * A layer, by its place in the image, the lowest first: `received` of `size` bytes came, from this pull or an earlier one.
   * Blobs of platforms that are not unpacked are numbered behind its layers.
   */
  | {
      kind: 'layer'
      layer: number
      digest: string
      state: 'present' | 'downloading' | 'unpacking' | 'complete'
      received: number
      size: number
    }
  /** All is there. `changed` is false where nothing had to be done. */
  | { kind: 'complete'; digest: string; changed: boolean }

/** What a pull works with. */
export interface PullContext {
  store: ImageStore
  content: Content
  unpackLayer: UnpackLayer
}

export interface PullOptions {
  /** Default: this machine's. */
  platform?: Platform | undefined
  /** All that the index lists is kept; what is unpacked is this machine's platform. */
  allPlatforms?: boolean | undefined
  signal: AbortSignal
  report?: ((progress: PullProgress) => void) | undefined
}

/** Documents, and their bytes: they are stored once the layers are. */
interface Documents {
  /** What the registry calls the image: the digest of its manifest, or of the index that it is in. */
  served: string
  descriptor: Descriptor
  /** What the name is to stand for: the manifest, or the index with all its platforms. */
  named: Descriptor
  manifest: Manifest
  config: Config
  blobs: { digest: string; bytes: Buffer }[]
  /** What is kept and not unpacked. */
  others: readonly Descriptor[]
  /** Whether the image itself is unpacked. */
  unpacked: boolean
}

/** A document of a registry. */
interface Found {
  document: Index | Manifest
  bytes: Buffer
  digest: string
  mediaType: string
}

/** How blobs come, each by its number, and how that is told. */
interface Coming {
  tell: Tell
  open: (blob: Descriptor, at: number, over: AbortSignal) => BlobSource
}

type Tell = (at: number, state: 'present' | 'downloading' | 'unpacking' | 'complete') => void

/** Registries say this of what they do not know. */
const anything = new Set(['application/octet-stream', 'application/json', 'text/plain'])

class Pull {
  readonly #context: PullContext
  readonly #reference: RegistryReference
  readonly #registry: Registry
  readonly #options: PullOptions
  readonly #platform: Platform

  constructor(context: PullContext, reference: RegistryReference, registry: Registry, options: PullOptions) {
    this.#context = context
    this.#reference = reference
    this.#registry = registry
    this.#options = options
    this.#platform = options.platform ?? hostPlatform()
  }

  async run(): Promise<Facts> {
    const { content, store } = this.#context
    const { signal, report } = this.#options
    const unchanged = await this.#unchanged()
    if (unchanged !== undefined) {
      const served = content.entry(fullName(this.#reference))?.served
      report?.({ kind: 'complete', digest: served ?? unchanged.digest, changed: false })
      return unchanged
    }
    // From here on until it has a name, nobody takes away what it builds on.
    const kept = await content.keep(signal)
    try {
      const documents = await this.#documents()
      const { descriptor, manifest, config, served, others, unpacked } = documents
      const layers = unpacked ? manifest.layers : []
      report?.({ kind: 'resolved', digest: served, layers: [...layers, ...others] })
      const come = this.#coming([...layers, ...others], layers.length)
      const chains = unpacked ? await this.#layers(documents, come) : chainIds(config.diffIds).toReversed()
      await this.#others(others, layers.length, come)
      for (const { digest, bytes } of documents.blobs) content.put(digest, bytes)
      content.sync()
      const facts: Facts = {
        digest: descriptor.digest,
        id: manifest.config.digest,
        config: config.config,
        chains,
      }
      if (unpacked) store.remember(facts)
      else store.touch(facts.digest)
      await this.#name(documents)
      report?.({ kind: 'complete', digest: served, changed: true })
      return facts
    } finally {
      kept.release()
    }
  }

  async #name({ descriptor, named, config, served }: Documents): Promise<void> {
    const { content } = this.#context
    const name = fullName(this.#reference)
    const before = content.entry(name)
    // What holds all platforms of the same index goes on doing so.
    const all = before?.digest === served && before.digest !== descriptor.digest
    const platform = named === descriptor ? config.platform : undefined
    if (!all || named !== descriptor)
      await content.name({ ...named, platform, name, served }, this.#options.signal)
  }

  /** What is in the store, if nothing of it is missing and the registry still means it. One request. */
  async #unchanged(): Promise<Facts | undefined> {
    const { content } = this.#context
    const { path, tag, digest } = this.#reference
    const entry = content.entry(fullName(this.#reference))
    const facts = entry?.served === undefined ? undefined : present(this.#context, entry, this.#options)
    if (facts === undefined) return undefined
    if (digest === undefined) {
      const served = await this.#registry.head(path, tag ?? '', { signal: this.#options.signal })
      if (served !== entry?.served) return undefined
    }
    this.#context.store.touch(facts.digest)
    return facts
  }

  async #documents(): Promise<Documents> {
    const { tag, digest } = this.#reference
    const top = await this.#manifest(digest ?? tag ?? '', undefined)
    const entry = this.#context.content.entry(fullName(this.#reference))
    const same = entry?.digest === top.digest ? entry : undefined
    if (wantsAll(same, this.#options))
      return top.document.kind === 'index' ? this.#all(top, top.document) : this.#document(top, top, [], null)
    if (top.document.kind === 'manifest') return this.#document(top, top, [], this.#platform)
    const chosen = choose(imagesOf(top.document), fullName(this.#reference), this.#platform)
    const found = this.#known(chosen) ?? (await this.#manifest(chosen.digest, chosen))
    return this.#document(top, found, [], this.#platform)
  }

  /** What the index `top` lists, and which of it is the image: this machine's, else the first. */
  async #all(top: Found, index: Index): Promise<Documents> {
    const { content } = this.#context
    const what = fullName(this.#reference)
    const members: Member[] = []
    for (const entry of membersOf(index, `manifest ${top.digest}`)) members.push(await this.#member(entry))
    const own = memberFor(members, undefined)
    if (own === undefined) throw invalid(what, 'has no image for any platform')
    const bytes = content.layout.blob(own.entry, own.entry.size, `manifest ${own.entry.digest}`)
    const { mediaType } = own.manifest
    const found = { document: own.manifest, bytes, digest: own.entry.digest, mediaType }
    const named = { mediaType: top.mediaType, digest: top.digest, size: top.bytes.length }
    return { ...(await this.#document(top, found, members, null)), named }
  }

  /** An entry of an index, and its document in the store: not kept in memory, since there may be many. */
  async #member(entry: IndexEntry): Promise<Member> {
    const { content } = this.#context
    const { signal } = this.#options
    const { digest, size, mediaType: accept } = entry
    const what = `manifest ${digest}`
    const here = content.document(entry, mostManifestBytes)
    const bytes =
      here ?? (await this.#registry.manifest(this.#reference.path, digest, { signal, accept })).bytes
    if (bytes.length !== size) throw invalid(what, `has ${bytes.length} bytes, not ${size}`)
    const member = readMember(entry, bytes, what)
    if (here === undefined) content.put(digest, bytes)
    return member
  }

  /** The documents of an image, and what of `members` is kept beside it. */
  async #document(
    top: Found,
    found: Found,
    members: readonly Member[],
    wanted: Platform | null,
  ): Promise<Documents> {
    const { document } = found
    if (document.kind === 'index') throw invalid(`manifest ${found.digest}`, 'is an index in an index')
    const { path } = this.#reference
    const { signal } = this.#options
    const what = `config ${document.config.digest}`
    const bytes =
      this.#context.content.document(document.config, mostConfigBytes) ??
      (await this.#registry.blob(path, document.config, { signal, most: mostConfigBytes }))
    const config = parseConfig(bytes, what, document.layers.length, wanted)
    const unpacked = wanted !== null || fits(config.platform, this.#platform)
    const mine = unpacked ? document.layers : []
    const kept = [...members.flatMap(({ blobs }) => blobs), ...document.layers]
    const others = new Map(kept.map((blob) => [blob.digest, blob]))
    for (const { digest } of [...mine, document.config]) others.delete(digest)
    const descriptor = { mediaType: found.mediaType, digest: found.digest, size: found.bytes.length }
    const documents = [top, found, { digest: document.config.digest, bytes }]
    return {
      served: top.digest,
      descriptor,
      named: descriptor,
      manifest: document,
      config,
      blobs: [...new Map(documents.map((one) => [one.digest, one])).values()],
      others: [...others.values()],
      unpacked,
    }
  }

  /** The manifest that an index means, if it is here. */
  #known(described: Descriptor): Found | undefined {
    const { digest } = described
    const bytes = this.#context.content.document(described, mostManifestBytes)
    if (bytes === undefined) return undefined
    const document = parseManifest(bytes, `manifest ${digest}`, described.mediaType)
    return { document, bytes, digest, mediaType: document.mediaType }
  }

  /** A manifest or an index, of the size and type that its descriptor says, if it has one. */
  async #manifest(reference: string, described: Descriptor | undefined): Promise<Found> {
    const { signal } = this.#options
    const { bytes, mediaType, digest } = await this.#registry.manifest(this.#reference.path, reference, {
      signal,
    })
    const what = `manifest ${digest}`
    if (described !== undefined && bytes.length !== described.size)
      throw invalid(what, `has ${bytes.length} bytes, not ${described.size}`)
    const said = mediaType !== undefined && anything.has(mediaType) ? undefined : mediaType
    const document = parseManifest(bytes, what, said ?? described?.mediaType)
    return { document, bytes, digest, mediaType: document.mediaType }
  }

  #coming(blobs: readonly Descriptor[], unpacked: number): Coming {
    const { path } = this.#reference
    const { report } = this.#options
    const received = blobs.map(() => 0)
    const tell: Tell = (at, state) => {
      const blob = blobs[at]
      if (blob === undefined) return
      const { digest, size } = blob
      const came = state === 'downloading' ? (received[at] ?? 0) : size
      report?.({ kind: 'layer', layer: at, digest, state, received: came, size })
    }
    const open = (blob: Descriptor, at: number, over: AbortSignal): BlobSource => {
      const source = remote(
        blob,
        (wanted, offset, ended) => this.#registry.open(path, wanted, offset, { signal: ended }),
        over,
        (bytes) => {
          received[at] = (received[at] ?? 0) + bytes
          tell(at, (received[at] ?? 0) < blob.size || at >= unpacked ? 'downloading' : 'unpacking')
        },
      )
      return {
        ...source,
        wanted: (offset) => {
          received[at] = offset
          tell(at, 'downloading')
          source.wanted?.(offset)
        },
      }
    }
    return { tell, open }
  }

  #layers({ manifest, config }: Documents, { tell, open }: Coming): Promise<readonly string[]> {
    const { store, content, unpackLayer } = this.#context
    return unpackLayers({
      store,
      layers: manifest.layers,
      diffIds: config.diffIds,
      unpackLayer,
      parallel,
      signal: this.#options.signal,
      kept: ({ digest, size }, diffId) => content.has(digest, size) && store.isPair(digest, diffId),
      open,
      report: (at, state) => {
        if (state === 'present') tell(at, 'present')
        else if (state === 'done') tell(at, 'complete')
      },
    })
  }

  /** Blobs that are not unpacked, numbered from `first` on. */
  async #others(blobs: readonly Descriptor[], first: number, { tell, open }: Coming): Promise<void> {
    const { content, unpackLayer } = this.#context
    const numbered = blobs.map((blob, at) => ({ blob, at: first + at }))
    const wanted = numbered.filter(({ blob: { digest, size }, at }) => {
      const here = content.has(digest, size)
      if (here) tell(at, 'present')
      return !here
    })
    if (wanted.length === 0) return
    await fetchBlobs({
      directory: content.directory,
      blobs: wanted.map(({ blob }) => blob),
      unpackLayer,
      open: (blob, at, over) => open(blob, wanted[at]?.at ?? first, over),
      parallel,
      signal: this.#options.signal,
      done: (at) => tell(wanted[at]?.at ?? first, 'complete'),
    })
  }
}

/** Pulls an image; what is there and unchanged is not pulled again. */
export async function pull(
  context: PullContext,
  reference: RegistryReference,
  options: PullOptions,
): Promise<Facts> {
  const registry = new Registry(reference.domain)
  try {
    return await new Pull(context, reference, registry, options).run()
  } catch (error) {
    options.signal.throwIfAborted()
    if (error instanceof CaissonError && error.code === 'ERR_CUT')
      throw new CaissonError('ERR_REGISTRY', error.message, { stage: 'pull', cause: error })
    throw error
  } finally {
    registry.close()
  }
}
