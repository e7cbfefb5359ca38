/**
 * An archive of images into the store. It is read once, into a spool; nothing of it is in the store before all its
 * documents were found right, and nothing has a name before all of it is on the disk.
 */
import { closeSync, openSync } from 'node:fs'
import type { Readable } from 'node:stream'
import { CaissonError } from '../errors.ts'
import { imagesIn } from './archive.ts'
import type { ArchivedImage } from './archive.ts'
import type { Content, Entry } from './content.ts'
import { unpackLayers } from './layers.ts'
import type { UnpackLayer } from './layers.ts'
import type { Platform } from './manifest.ts'
import { showName } from './reference.ts'
import { readSource } from './source.ts'
import type { ReadArchive } from './spool.ts'
import type { Facts, ImageStore } from './store.ts'

/** How many layers are unpacked at a time: it is the processors' work. */
const parallel = 2

/** What a load is doing. */
export type LoadProgress =
  /** A layer, by its place in its image, the lowest first. */
  | {
      kind: 'layer'
      layer: number
      digest: string
      state: 'present' | 'unpacking' | 'complete'
      received: number
      size: number
    }
  /** A name stood for another image, which has it no more. */
  | { kind: 'renamed'; name: string; id: string }
  /** An image is there, under a name or its id alone. */
  | { kind: 'loaded'; name: string | undefined; id: string }

/** What a load works with. */
export interface LoadContext {
  /** The data root. */
  root: string
  store: ImageStore
  content: Content
  unpackLayer: UnpackLayer
  readArchive: ReadArchive
}

export interface LoadOptions {
  /** Default: this machine's. */
  platform?: Platform | undefined
  signal: AbortSignal
  report?: ((progress: LoadProgress) => void) | undefined
}

/** An image whose layers are there. */
interface Ready {
  image: ArchivedImage
  /** Whether its blobs have still to be stored. */
  isNew: boolean
  facts: Facts
  /** Under any name, or none. */
  entry: Entry
}

class Load {
  readonly #context: LoadContext
  readonly #options: LoadOptions

  constructor(context: LoadContext, options: LoadOptions) {
    this.#context = context
    this.#options = options
  }

  /** Unpacks what is not there, stores, and names. */
  async run(images: readonly ArchivedImage[]): Promise<void> {
    // From here on until they have names, nobody takes away what they build on.
    const kept = await this.#context.content.keep(this.#options.signal)
    try {
      const ready: Ready[] = []
      for (const image of images) ready.push(this.#known(image) ?? (await this.#unpack(image)))
      for (const { image, isNew } of ready) if (isNew) await this.#store(image)
      this.#context.content.sync()
      await this.#name(ready)
    } finally {
      kept.release()
    }
  }

  /** An image that is here already, with all its blobs: perhaps under a manifest that a registry knows. */
  #known(image: ArchivedImage): Ready | undefined {
    const { content, store } = this.#context
    for (const entry of content.entries()) {
      const facts = store.image(entry.digest)
      if (facts === undefined || facts.id !== image.config.digest || !store.isWhole(facts)) continue
      if (content.isWhole(entry)) return { image, isNew: false, facts, entry }
    }
    return undefined
  }

  async #unpack(image: ArchivedImage): Promise<Ready> {
    const { store, content, unpackLayer } = this.#context
    const { signal, report } = this.#options
    const { layers, config, manifest } = image
    const chains = await unpackLayers({
      store,
      layers,
      diffIds: config.diffIds,
      unpackLayer,
      parallel,
      signal,
      // Where the layer is here already, its blob has still to be one of it.
      kept: ({ digest }, diffId) => store.isPair(digest, diffId),
      open: (_, at) => {
        const layer = layers[at]
        if (layer === undefined)
          throw new CaissonError('ERR_INTERNAL', 'a layer that the image does not have')
        const file = layer.file === undefined ? content.layout.open(layer) : openSync(layer.file.path, 'r')
        return { blob: file, keep: false, close: async () => closeSync(file) }
      },
      report: (at, state) => {
        const { digest = '', size = 0 } = layers[at] ?? {}
        const now = state === 'done' ? 'complete' : state === 'started' ? 'unpacking' : 'present'
        report?.({ kind: 'layer', layer: at, digest, state: now, received: size, size })
      },
    })
    const { mediaType, digest, size } = manifest
    const facts = { digest, id: config.digest, config: config.config, chains }
    const entry = { mediaType, digest, size, platform: config.platform, name: undefined, served: undefined }
    return { image, isNew: true, facts, entry }
  }

  async #store({ manifest, config, layers }: ArchivedImage): Promise<void> {
    const { content } = this.#context
    for (const { digest, size, file } of layers) {
      this.#options.signal.throwIfAborted()
      if (file !== undefined) await content.adopt(digest, size, file.path)
    }
    content.put(config.digest, config.bytes)
    content.put(manifest.digest, manifest.bytes)
  }

  /** Gives all of them their names, at once. */
  async #name(ready: readonly Ready[]): Promise<void> {
    const { content, store } = this.#context
    const { signal, report } = this.#options
    const before = new Map(content.entries().map((entry) => [entry.name, entry]))
    const given: Entry[] = []
    for (const { image, isNew, facts, entry } of ready) {
      if (isNew) store.remember(facts)
      if (isNew && image.names.length === 0) given.push(entry)
      for (const name of image.names)
        if (before.get(name)?.digest !== entry.digest) given.push({ ...entry, name, served: undefined })
    }
    if (given.length > 0) await content.nameAll(given, signal)
    for (const { image, facts } of ready) {
      const { id } = facts
      if (image.names.length === 0) report?.({ kind: 'loaded', name: undefined, id })
      for (const name of image.names) {
        const old = before.get(name)
        const was = old && (store.image(old.digest)?.id ?? old.digest)
        if (was !== undefined && was !== id) report?.({ kind: 'renamed', name: showName(name), id: was })
        report?.({ kind: 'loaded', name: showName(name), id })
      }
    }
  }
}

/** Puts images of a spool into the store, all or none. */
export async function settle(
  context: LoadContext,
  images: readonly ArchivedImage[],
  options: LoadOptions,
): Promise<void> {
  try {
    await new Load(context, options).run(images)
  } catch (error) {
    options.signal.throwIfAborted()
    throw error
  }
}

/** Loads the images of an archive; their ids, in the archive's order. */
export async function load(
  context: LoadContext,
  source: string | Readable,
  options: LoadOptions,
): Promise<string[]> {
  const { root, readArchive } = context
  const spool = await readSource(root, source, readArchive, options.signal)
  try {
    const images = await imagesIn(spool, options.platform)
    await settle(context, images, options)
    return [...new Set(images.map(({ config }) => config.digest))]
  } finally {
    await spool.dispose()
  }
}
