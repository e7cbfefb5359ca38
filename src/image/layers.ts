/** The layers of one image into the store, several at a time: each has a directory and a process of its own. */
import { CaissonError } from '../errors.ts'
import type { ErrorCode } from '../errors.ts'
import { native } from '../native.ts'
import { setAside } from './aside.ts'
import type { Descriptor } from './manifest.ts'
import { chainIds } from './store.ts'
import type { ImageStore } from './store.ts'

/** A layer to be put into the store. */
export interface LayerRequest {
  /** Its name there. */
  chain: string
  /** The chain ids of the layers below it, the topmost first. */
  lowers: readonly string[]
  /** What the blob must hash to, and its size. */
  digest: string
  size: number
  /** What it must hash to when it is inflated. */
  diffId: string
  /** The blob, opened, or where it comes from; it stays the caller's. */
  blob: number
  /** Whether the blob is kept in the content store; then it comes once `wanted` was called. */
  keep: boolean
  /** What ends once the layers below are there; none: they are. */
  gate?: number
  /** Nothing is put into the store: the layer that is there is held against its blob. */
  check?: boolean
}

/** Unpacks a layer; settles once it is in the store, or once nothing of it is left. */
export type UnpackLayer = (
  layer: LayerRequest,
  signal: AbortSignal,
  wanted?: (offset: number) => void,
) => Promise<void>

/** Where the blob of a layer comes from. */
export interface BlobSource {
  blob: number
  keep: boolean
  /** Called if bytes are wanted, with the number of the first. */
  wanted?: (offset: number) => void
  /** It is read by nobody any more; rejects with the reason why bytes did not arrive, if there is one. */
  close(): Promise<void>
}

/** What becomes of a layer: `present` in the store already, `started`, `done`. */
export type LayerState = 'present' | 'started' | 'done'

/** What is to be unpacked, and by whom. */
export interface LayersOptions {
  store: ImageStore
  /** The lowest first. */
  layers: readonly Descriptor[]
  diffIds: readonly string[]
  unpackLayer: UnpackLayer
  open: (layer: Descriptor, at: number, signal: AbortSignal) => BlobSource
  /** Whether the blob of a layer is known and kept, where it has to be. Default: it has not. */
  kept?: (layer: Descriptor, diffId: string) => boolean
  /** How many at a time. */
  parallel: number
  signal: AbortSignal
  report?: (at: number, state: LayerState) => void
}

/** What wrong bytes come to. */
const lies: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'ERR_DIGEST',
  'ERR_ARCHIVE',
  'ERR_IMAGE_LIMIT',
  'ERR_UNSUPPORTED',
])

/** A layer that waits for those below: the end of the pipe to close once they are there. */
interface Gate {
  at: number
  end: number
}

/** A pipe whose end says that the layers below `at` are there. */
class Gates {
  readonly #done: boolean[]
  #open = 0
  #waiting: Gate[] = []

  constructor(count: number) {
    this.#done = Array.from({ length: count }, () => false)
  }

  /** What is read by who waits for the layers below; undefined where they are there. To be closed by the caller. */
  before(at: number): number | undefined {
    if (this.#open >= at) return undefined
    const [read, end] = native().addon.pipe() as [number, number]
    this.#waiting.push({ at, end })
    return read
  }

  /** One more layer is there. */
  done(at: number): void {
    this.#done[at] = true
    while (this.#done[this.#open] === true) this.#open += 1
    const opened = this.#waiting.filter((gate) => gate.at <= this.#open)
    this.#waiting = this.#waiting.filter((gate) => gate.at > this.#open)
    for (const { end } of opened) native().addon.closeDescriptor(end)
  }

  /** Nobody waits any more. */
  close(): void {
    for (const { end } of this.#waiting) native().addon.closeDescriptor(end)
    this.#waiting = []
  }
}

/** Unpacks what is not there. Started in order, so that whatever waits for a layer below waits for one that works. */
class Layers {
  readonly #options: LayersOptions
  readonly #chains: readonly string[]
  readonly #gates: Gates
  readonly #over = new AbortController()
  #next = 0

  constructor(options: LayersOptions) {
    this.#options = options
    this.#chains = chainIds(options.diffIds)
    this.#gates = new Gates(options.layers.length)
  }

  /** Settles once all are there; or, with the first failure, once nothing works any more. */
  async run(): Promise<void> {
    const { signal, parallel } = this.#options
    const leave = (): void => this.#over.abort(signal.reason)
    signal.addEventListener('abort', leave, { once: true })
    try {
      signal.throwIfAborted()
      const settled = await Promise.allSettled(Array.from({ length: parallel }, () => this.#work()))
      signal.throwIfAborted()
      // The first reason, not what its end made of the others.
      if (settled.some(({ status }) => status === 'rejected')) throw this.#over.signal.reason
    } finally {
      signal.removeEventListener('abort', leave)
      this.#gates.close()
    }
  }

  async #work(): Promise<void> {
    while (this.#next < this.#chains.length && !this.#over.signal.aborted) {
      const at = this.#next
      this.#next += 1
      try {
        await this.#one(at)
      } catch (error) {
        this.#over.abort(error)
        throw error
      }
    }
  }

  async #one(at: number): Promise<void> {
    const { store, layers, diffIds, kept, report } = this.#options
    const [layer, chain, diffId] = [layers[at], this.#chains[at], diffIds[at]]
    if (layer === undefined || chain === undefined || diffId === undefined) return
    if (store.isBroken(chain) && !setAside(store, chain, () => store.isBroken(chain))) {
      const message = `layer ${layer.digest}: it is damaged in the store, and a running container uses it: it comes anew once that has ended`
      throw new CaissonError('ERR_IMAGE_IN_USE', message, { stage: 'unpack', subject: layer.digest })
    }
    // The same files may have come from another blob, or from a layout.
    if (store.layer(chain) !== undefined && (kept?.(layer, diffId) ?? true)) {
      report?.(at, 'present')
      this.#gates.done(at)
      return
    }
    report?.(at, 'started')
    const gate = this.#gates.before(at)
    const want = {
      chain,
      lowers: this.#chains.slice(0, at).toReversed(),
      digest: layer.digest,
      size: layer.size,
      diffId,
      ...(gate !== undefined && { gate }),
    }
    try {
      const again = await this.#fetch(layer, at, want)
      if (again) await this.#fetch(layer, at, want, true)
    } finally {
      if (gate !== undefined) native().addon.closeDescriptor(gate)
    }
    if (store.layer(chain) === undefined)
      throw new CaissonError('ERR_INTERNAL', `layer ${chain} was unpacked and is not there`)
    store.rememberPair(layer.digest, diffId)
    this.#gates.done(at)
    report?.(at, 'done')
  }

  /**
   * Has one layer unpacked from its blob. Answers whether that is worth another try: where some of the blob was here
   * before, and was not what it should be, it is here no more, and all of it may be had.
   */
  async #fetch(
    layer: Descriptor,
    at: number,
    want: Omit<LayerRequest, 'blob' | 'keep'>,
    isLast = false,
  ): Promise<boolean> {
    const { open, unpackLayer } = this.#options
    const source = open(layer, at, this.#over.signal)
    let from: number | undefined
    const wanted = (offset: number): void => {
      from = offset
      source.wanted?.(offset)
    }
    try {
      await unpackLayer({ ...want, blob: source.blob, keep: source.keep }, this.#over.signal, wanted)
      return false
    } catch (error) {
      const isOurs = source.keep && from !== 0 && error instanceof CaissonError && lies.has(error.code)
      if (isLast || !isOurs || this.#over.signal.aborted) throw error
      return true
    } finally {
      // Why bytes did not come says more than that they did not: it is thrown instead.
      await source.close()
    }
  }
}

/** Puts an image's layers into the store; gives the chain ids to mount, the topmost first. */
export async function unpackLayers(options: LayersOptions): Promise<readonly string[]> {
  await new Layers(options).run()
  const chains: string[] = []
  for (const chain of chainIds(options.diffIds).toReversed()) {
    chains.push(chain)
    // overlayfs has no mark for a layer that hides all others: they are left out.
    if (options.store.layer(chain)?.opaque === true) break
  }
  return chains
}
