/** The shim of this thread, started at the first run, and who waits for which of its events. */
import type { ShimEvent } from '../../index.js'
import { CaissonError } from '../errors.ts'
import { native, toError } from '../native.ts'
import type { Native } from '../native.ts'
import type { Roots } from '../state/roots.ts'

type NativeShim = InstanceType<Native['Shim']>

/** Hears what the shim says about one run. */
export type Listener = (event: ShimEvent) => void

/** The longest a timer of Node's goes: it only keeps the process alive while runs are awaited. */
const longest = 2 ** 31 - 1

/** The shims of one engine: one at a time, a new one after a loss. */
export class ShimConnection {
  readonly #roots: Roots
  readonly #cgroupParent: string | undefined
  #shim: NativeShim | undefined
  #listeners: Map<number, Listener> = new Map()
  #next = 1
  #alive: NodeJS.Timeout | undefined

  constructor(roots: Roots, cgroupParent: string | undefined) {
    this.#roots = roots
    this.#cgroupParent = cgroupParent
  }

  /** The shim, started if there is none. */
  get(): NativeShim {
    if (this.#shim !== undefined) return this.#shim
    const { addon, runtimePath } = native()
    // Each shim has listeners of its own: an event of one that was lost is none of its successor's.
    const listeners = this.#listeners
    const shim = new addon.Shim(
      {
        runtime: runtimePath,
        runRoot: this.#roots.run,
        dataRoot: this.#roots.data,
        ...(this.#cgroupParent !== undefined && { cgroupParent: this.#cgroupParent }),
      },
      (event) => this.#dispatch(shim, listeners, event),
    )
    if (shim.failure !== null) throw toError(shim.failure)
    this.#shim = shim
    return shim
  }

  /** A number for a new run, whose events go to `listener` until {@link forget}. */
  listen(listener: Listener): number {
    const token = this.#next++
    this.#listeners.set(token, listener)
    // An awaited promise alone does not keep Node alive.
    this.#alive ??= setInterval(() => {}, longest)
    return token
  }

  /** No event of this run is awaited any more. */
  forget(token: number): void {
    this.#listeners.delete(token)
    if (this.#listeners.size === 0) {
      clearInterval(this.#alive)
      this.#alive = undefined
    }
  }

  /** Ends the shim and all it holds. */
  close(): void {
    this.#shim?.close()
    this.#shim = undefined
  }

  #dispatch(shim: NativeShim, listeners: Map<number, Listener>, event: ShimEvent): void {
    if (event.token !== 0) {
      listeners.get(event.token)?.(event)
      return
    }
    // About the shim itself: it could not begin, or it is gone. Whatever waits has failed.
    if (this.#shim === shim) {
      this.#shim = undefined
      this.#listeners = new Map()
    }
    for (const listener of listeners.values()) listener({ ...event, kind: 'failed' })
  }
}

/** A failure as an error; a failure that says nothing is a bug. */
export function failureOf(event: ShimEvent): CaissonError {
  if (event.failure === undefined) return new CaissonError('ERR_INTERNAL', 'the shim failed without a reason')
  return toError(event.failure)
}
