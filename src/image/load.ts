/**
 * An archive of images into the store. It is read once, into a spool; nothing of it is in the store before all its
 * documents were found right, and nothing has a name before all of it is on the disk.
 */
import { once } from 'node:events'
import { closeSync, openSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { Socket } from 'node:net'
import type { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { CaissonError, refuse } from '../errors.ts'
import { native } from '../native.ts'
import { imagesIn } from './archive.ts'
import type { ArchivedImage } from './archive.ts'
import type { Content, Entry } from './content.ts'
import { unpackLayers } from './layers.ts'
import type { UnpackLayer } from './layers.ts'
import type { Platform } from './manifest.ts'
import { showName } from './reference.ts'
import { Spool } from './spool.ts'
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

/** Reads a file of this machine. */
async function readFile(
  { root, readArchive }: LoadContext,
  path: string,
  signal: AbortSignal,
): Promise<Spool> {
  const file = await open(path, 'r').catch((error: unknown) => {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error)
    throw refuse('source', `'${path}' cannot be opened: ${code}`)
  })
  try {
    if ((await file.stat()).isDirectory()) throw refuse('source', `'${path}' is a directory`)
    return await Spool.read(root, file.fd, readArchive, signal)
  } finally {
    await file.close()
  }
}

/** Reads a stream, by a pipe. */
async function readStream(context: LoadContext, source: Readable, signal: AbortSignal): Promise<Spool> {
  const { addon } = native()
  const [read, write] = addon.pipe() as [number, number]
  addon.widen(write)
  const writer = new Socket({ fd: write, readable: false, writable: true })
  addon.releaseDescriptor(write)
  const broken = new AbortController()
  const both = AbortSignal.any([signal, broken.signal])
  // Not waited for: a source that never ends does not end when it is destroyed either.
  void pipeline(source, writer).catch((error: unknown) => broken.abort(error))
  try {
    return await Spool.read(context.root, read, context.readArchive, both)
  } finally {
    addon.closeDescriptor(read)
    // Who reads no more, because it failed, must not keep who writes waiting.
    writer.destroy()
    if (!writer.closed) await once(writer, 'close')
  }
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

  /** The ids of the images, in the archive's order. */
  async run(source: string | Readable): Promise<string[]> {
    const { signal, platform } = this.#options
    signal.throwIfAborted()
    const spool =
      typeof source === 'string'
        ? await readFile(this.#context, source, signal)
        : await readStream(this.#context, source, signal)
    try {
      const images = await imagesIn(spool, platform)
      // From here on until they have names, nobody takes away what they build on.
      const kept = await this.#context.content.keep(signal)
      try {
        const ready: Ready[] = []
        for (const image of images) ready.push(this.#known(image) ?? (await this.#unpack(image)))
        for (const { image, isNew } of ready) if (isNew) await this.#store(image)
        this.#context.content.sync()
        await this.#name(ready)
      } finally {
        kept.release()
      }
      return [...new Set(images.map(({ config }) => config.digest))]
    } finally {
      await spool.dispose()
    }
  }

  /** An image that is here already, with all its blobs: perhaps under a manifest that a registry knows. */
  #known(image: ArchivedImage): Ready | undefined {
    const { content, store } = this.#context
    for (const entry of content.entries()) {
      const facts = store.image(entry.digest)
      if (facts === undefined || facts.id !== image.config.digest || !store.has(facts)) continue
      if (content.manifest(entry).layers.every(({ digest, size }) => content.has(digest, size)))
        return { image, isNew: false, facts, entry }
    }
    return undefined
  }

  async #unpack(image: ArchivedImage): Promise<Ready> {
    const { store, unpackLayer } = this.#context
    const { signal, report } = this.#options
    const { layers, config, manifest } = image
    const chains = await unpackLayers({
      store,
      layers,
      diffIds: config.diffIds,
      unpackLayer,
      parallel,
      signal,
      open: (_, at) => {
        const layer = layers[at]
        if (layer === undefined)
          throw new CaissonError('ERR_INTERNAL', 'a layer that the image does not have')
        const file = openSync(layer.file.path, 'r')
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
      await content.adopt(digest, size, file.path)
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

/** Loads the images of an archive; their ids. */
export async function load(
  context: LoadContext,
  source: string | Readable,
  options: LoadOptions,
): Promise<string[]> {
  try {
    return await new Load(context, options).run(source)
  } catch (error) {
    options.signal.throwIfAborted()
    throw error
  }
}
