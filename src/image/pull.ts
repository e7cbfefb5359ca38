/**
 * An image from a registry into the store: its documents, checked by digest, then its layers, each unpacked as it arrives.
 * Nothing has a name before all of it is on the disk.
 */
import { CaissonError } from '../errors.ts'
import { Registry } from '../registry/registry.ts'
import { parseConfig } from './config.ts'
import type { Config } from './config.ts'
import type { Content, Entry } from './content.ts'
import { invalid } from './document.ts'
import { unpackLayers } from './layers.ts'
import type { UnpackLayer } from './layers.ts'
import {
  choose,
  hostPlatform,
  imagesOf,
  mostConfigBytes,
  mostManifestBytes,
  parseManifest,
} from './manifest.ts'
import type { Descriptor, Manifest, Platform } from './manifest.ts'
import { fullName } from './reference.ts'
import type { RegistryReference } from './reference.ts'
import type { Facts, ImageStore } from './store.ts'
import { remote } from './transfer.ts'

/** How many layers come at a time. */
const parallel = 4

/** What a pull is doing. */
export type PullProgress =
  /** What the name stands for is known. */
  | { kind: 'resolved'; digest: string; layers: readonly { digest: string; size: number }[] }
  /** A layer, by its place in the image, the lowest first: `received` of `size` bytes came, from this pull or an earlier one. */
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
  signal: AbortSignal
  report?: ((progress: PullProgress) => void) | undefined
}

/** Documents, and their bytes: they are stored once the layers are. */
interface Documents {
  /** What the registry calls the image: the digest of its manifest, or of the index that it is in. */
  served: string
  descriptor: Descriptor
  manifest: Manifest
  config: Config
  blobs: { digest: string; bytes: Buffer }[]
}

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
      report?.({ kind: 'complete', digest: unchanged.digest, changed: false })
      return unchanged
    }
    // From here on until it has a name, nobody takes away what it builds on.
    const kept = await content.keep(signal)
    try {
      const documents = await this.#documents()
      const { descriptor, manifest, config, served } = documents
      report?.({ kind: 'resolved', digest: served, layers: manifest.layers })
      const chains = await this.#layers(documents)
      for (const { digest, bytes } of documents.blobs) content.put(digest, bytes)
      content.sync()
      const facts: Facts = {
        digest: descriptor.digest,
        id: manifest.config.digest,
        config: config.config,
        chains,
      }
      store.remember(facts)
      const name = fullName(this.#reference)
      const entry: Entry = { ...descriptor, platform: config.platform, name, served }
      await content.name(entry, signal)
      report?.({ kind: 'complete', digest: served, changed: true })
      return facts
    } finally {
      kept.release()
    }
  }

  /** What is in the store, if nothing of it is missing and the registry still means it. One request. */
  async #unchanged(): Promise<Facts | undefined> {
    const { content, store } = this.#context
    const { path, tag, digest } = this.#reference
    const entry = content.entry(fullName(this.#reference))
    if (entry?.served === undefined || !this.#isFor(entry)) return undefined
    const facts = store.image(entry.digest)
    if (facts === undefined || !store.isWhole(facts) || !content.isWhole(entry)) return undefined
    if (digest !== undefined) return facts
    const served = await this.#registry.head(path, tag ?? '', { signal: this.#options.signal })
    if (served !== entry.served) return undefined
    store.touch(facts.digest)
    return facts
  }

  #isFor({ platform }: Entry): boolean {
    const { os, architecture } = this.#platform
    return platform?.os === os && platform.architecture === architecture
  }

  async #documents(): Promise<Documents> {
    const { path, tag, digest } = this.#reference
    const { signal } = this.#options
    const top = await this.#manifest(digest ?? tag ?? '', undefined)
    const blobs = [{ digest: top.digest, bytes: top.bytes }]
    let found = top
    if (top.document.kind === 'index') {
      const entry = choose(imagesOf(top.document), fullName(this.#reference), this.#platform)
      found = this.#known(entry) ?? (await this.#manifest(entry.digest, entry))
      blobs.push({ digest: found.digest, bytes: found.bytes })
    }
    const { document } = found
    if (document.kind === 'index') throw invalid(`manifest ${found.digest}`, 'is an index in an index')
    const what = `config ${document.config.digest}`
    const bytes =
      this.#context.content.document(document.config, mostConfigBytes) ??
      (await this.#registry.blob(path, document.config, { signal, most: mostConfigBytes }))
    const config = parseConfig(bytes, what, document.layers.length, this.#platform)
    blobs.push({ digest: document.config.digest, bytes })
    const descriptor = { mediaType: found.mediaType, digest: found.digest, size: found.bytes.length }
    return { served: top.digest, descriptor, manifest: document, config, blobs }
  }

  /** The manifest that an index means, if it is here. */
  #known(described: Descriptor) {
    const { digest } = described
    const bytes = this.#context.content.document(described, mostManifestBytes)
    if (bytes === undefined) return undefined
    const document = parseManifest(bytes, `manifest ${digest}`, described.mediaType)
    return { document, bytes, digest, mediaType: document.mediaType }
  }

  /** A manifest or an index, of the size and type that its descriptor says, if it has one. */
  async #manifest(reference: string, described: Descriptor | undefined) {
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

  #layers({ manifest, config }: Documents): Promise<readonly string[]> {
    const { store, content, unpackLayer } = this.#context
    const { signal, report } = this.#options
    const { path } = this.#reference
    const received = manifest.layers.map(() => 0)
    const tell = (at: number, state: 'present' | 'downloading' | 'unpacking' | 'complete'): void => {
      const layer = manifest.layers[at]
      if (layer === undefined) return
      const { digest, size } = layer
      const came = state === 'downloading' ? (received[at] ?? 0) : size
      report?.({ kind: 'layer', layer: at, digest, state, received: came, size })
    }
    return unpackLayers({
      store,
      layers: manifest.layers,
      diffIds: config.diffIds,
      unpackLayer,
      parallel,
      signal,
      kept: ({ digest, size }, diffId) => content.has(digest, size) && store.isPair(digest, diffId),
      open: (layer, at, over) => {
        const source = remote(
          layer,
          (blob, offset, ended) => this.#registry.open(path, blob, offset, { signal: ended }),
          over,
          (bytes) => {
            received[at] = (received[at] ?? 0) + bytes
            tell(at, (received[at] ?? 0) < layer.size ? 'downloading' : 'unpacking')
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
      },
      report: (at, state) => {
        if (state === 'present') tell(at, 'present')
        else if (state === 'done') tell(at, 'complete')
      },
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
