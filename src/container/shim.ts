/** The shim of this thread, started at the first run, and who waits for which of its events. */
import type { Socket } from 'node:net'
import type { ShimEvent } from '../native.ts'
import { CaissonError } from '../errors.ts'
import { bare } from './options.ts'
import { native, toError } from '../native.ts'
import type { Native } from '../native.ts'
import { idMap } from '../state/ids.ts'
import type { Roots } from '../state/roots.ts'
import { streams } from './streams.ts'

export type NativeShim = InstanceType<Native['Shim']>

/** Hears what the shim says about one run, or why nothing will be heard any more. */
export type Listener = (event: ShimEvent | CaissonError) => void

/** A way to a shim, for what is asked of it. */
export interface Connection {
  /** A number for something new. */
  token(): number
  /** The shim, with `listener` for what it says about `token`; see {@link ShimConnection.get}. */
  get(token: number, listener: Listener, lost?: NativeShim): { shim: NativeShim; forget: () => void }
}

/** A shim and its stream of events. */
export class Connected {
  readonly shim: NativeShim
  readonly listeners: Map<number, Listener> = new Map()
  #stream: Socket | undefined
  readonly #lost: (connected: Connected, failure: CaissonError | undefined) => void
  /** The beginning of an event whose rest is on its way. */
  #rest: Buffer = Buffer.alloc(0)
  #failure: CaissonError | undefined
  #closing = false
  /** Settles once its process is gone, and all that it held. */
  readonly gone: Promise<void>
  /** Hears where the numbers begin of who is no owner. */
  welcome: ((base: number) => void) | undefined
  readonly #left: () => void

  constructor(shim: NativeShim, lost: (connected: Connected, failure: CaissonError | undefined) => void) {
    this.shim = shim
    this.#lost = lost
    const { promise, resolve } = Promise.withResolvers<void>()
    this.gone = promise
    this.#left = resolve
    // After what is said to it in this turn: while a new shim starts, this side loads its streams.
    queueMicrotask(() => this.#open())
  }

  #open(): void {
    const { Socket } = streams()
    this.#stream = new Socket({
      fd: this.shim.events,
      readable: true,
      writable: false,
      onread: {
        buffer: Buffer.allocUnsafe(1 << 16),
        callback: (length, buffer) => this.#read(length, buffer as Buffer),
      },
    })
    native().addon.releaseDescriptor(this.shim.events)
    this.#stream.on('error', () => {})
    this.#stream.once('close', () => this.#lost(this, this.#failure))
    if (this.listeners.size === 0 && !this.#closing && this.welcome === undefined) this.#stream.unref()
  }

  listen(token: number, listener: Listener): void {
    this.listeners.set(token, listener)
    // An awaited promise alone does not keep Node alive.
    if (this.listeners.size === 1) this.#stream?.ref()
  }

  forget(token: number): void {
    this.listeners.delete(token)
    if (this.listeners.size === 0 && !this.#closing) this.#stream?.unref()
  }

  /** Ends it and all it holds. Node lives until that is done. */
  close(): Promise<void> {
    this.#closing = true
    this.shim.close()
    this.#stream?.ref()
    return this.gone
  }

  /** Lets go of one that is another program's: nobody waits for its end. */
  leave(): void {
    this.#closing = true
    this.shim.close()
    this.#stream?.destroy()
  }

  /** It is gone, and was waited for. */
  settle(): void {
    this.#left()
  }

  #read(length: number, buffer: Buffer): boolean {
    const fresh = buffer.subarray(0, length)
    const bytes = this.#rest.length === 0 ? fresh : Buffer.concat([this.#rest, fresh])
    const { events, taken, failure } = native().addon.hear(bytes)
    this.#rest = taken === bytes.length ? Buffer.alloc(0) : Buffer.from(bytes.subarray(taken))
    for (const event of events) {
      // Token 0 is the shim itself: it could not begin.
      if (event.token === 0) this.#failure = failureOf(event)
      else if (event.kind === 'welcome') {
        this.welcome?.(event.token)
        if (this.listeners.size === 0) this.#stream?.unref()
      } else
        // Figures are for who asked; all else for whom it is about.
        this.listeners.get(event.request ?? event.token)?.(event)
    }
    if (failure !== undefined) {
      this.#failure = toError(failure)
      this.#stream?.destroy()
    }
    return true
  }
}

/** The shims of one engine: one at a time, a new one after a loss. */
export class ShimConnection implements Connection {
  readonly #roots: Roots
  readonly #cgroupParent: string | undefined
  #connected: Connected | undefined
  #next = 1

  constructor(roots: Roots, cgroupParent: string | undefined) {
    this.#roots = roots
    this.#cgroupParent = cgroupParent
  }

  /** A number for a new run. */
  token(): number {
    return this.#next++
  }

  /**
   * The shim, started if there is none, with `listener` for what it says of the run `token`. Not `lost`: one whose end
   * is known before its stream says so, which takes a turn of the loop.
   */
  get(token: number, listener: Listener, lost?: NativeShim): { shim: NativeShim; forget: () => void } {
    if (lost !== undefined && this.#connected?.shim === lost) this.#connected = undefined
    const connected = this.start()
    connected.listen(token, listener)
    return { shim: connected.shim, forget: () => connected.forget(token) }
  }

  /** Ends the shim and all it holds; settles once nothing of it is left. */
  async close(): Promise<void> {
    const connected = this.#connected
    this.#connected = undefined
    await connected?.close()
  }

  /** Has one started, if there is none: what is said to it waits until it is there. */
  start(): Connected {
    if (this.#connected !== undefined) return this.#connected

    const { addon, runtimePath, javascriptPath } = native()
    const ids = idMap()
    const options = bare({
      runtime: runtimePath,
      javascript: javascriptPath,
      runRoot: this.#roots.run,
      dataRoot: this.#roots.data,
      ...(this.#cgroupParent !== undefined && { cgroupParent: this.#cgroupParent }),
      ...(ids.kind !== 'root' && { ids: bare(ids) }),
    })
    const shim = new addon.Shim(options)
    if (shim.events < 0 && shim.failure !== null) throw toError(shim.failure)
    this.#connected = new Connected(shim, (connected, failure) => void this.#lost(connected, failure))
    return this.#connected
  }

  /** The shim is gone. What it held is killed and taken down before anybody is told. */
  async #lost(connected: Connected, failure: CaissonError | undefined): Promise<void> {
    if (this.#connected === connected) this.#connected = undefined
    await connected.shim.ended()
    const unstarted = connected.shim.failure
    const error =
      failure ??
      (unstarted === null ? undefined : toError(unstarted)) ??
      new CaissonError(
        'ERR_SHIM_LOST',
        'the process that held the containers ended; they were killed and taken down',
      )
    for (const listener of Array.from(connected.listeners.values())) listener(error)
    connected.settle()
  }
}

/** A failure as an error; a failure that says nothing is a bug. */
export function failureOf(event: ShimEvent): CaissonError {
  if (event.failure === undefined) return new CaissonError('ERR_INTERNAL', 'the shim failed without a reason')
  return toError(event.failure)
}
