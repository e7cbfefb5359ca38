/** Who wants the same image at the same time gets it together. */
import type { PullProgress } from './pull.ts'
import type { Facts } from './store.ts'

/** One unpacking that several callers wait for. It goes on for as long as one of them does. */
interface Flight {
  facts: Promise<Facts>
  cancel: AbortController
  waiting: number
  listeners: Set<(progress: PullProgress) => void>
}

/** What is under way, by name or digest. */
export class Flights {
  readonly #known = new Map<string, Flight>()

  /** Gets an image together with whoever wants the same one now. */
  join(
    key: string,
    start: (signal: AbortSignal, tell: (progress: PullProgress) => void) => Promise<Facts>,
    signal: AbortSignal,
    report?: (progress: PullProgress) => void,
  ): Promise<Facts> {
    // One that has been aborted says so never again.
    signal.throwIfAborted()
    let flight = this.#known.get(key)
    if (flight === undefined || flight.cancel.signal.aborted) {
      const cancel = new AbortController()
      const listeners: Flight['listeners'] = new Set()
      const facts = start(cancel.signal, (progress) => {
        for (const listener of listeners) listener(progress)
      })
      const started: Flight = { facts, cancel, waiting: 0, listeners }
      const over = (): void => {
        if (this.#known.get(key) === started) this.#known.delete(key)
      }
      facts.then(over, over)
      this.#known.set(key, started)
      flight = started
    }
    return wait(flight, signal, report)
  }
}

/** Waits with the others. Who leaves last ends the unpacking, and waits until nothing of it is left. */
async function wait(
  flight: Flight,
  signal: AbortSignal,
  report: ((progress: PullProgress) => void) | undefined,
): Promise<Facts> {
  if (report !== undefined) flight.listeners.add(report)
  let leave: (() => void) | undefined
  const left = new Promise<never>((_, reject) => {
    leave = () => {
      flight.waiting -= 1
      if (flight.waiting === 0) flight.cancel.abort(signal.reason)
      else reject(signal.reason)
    }
    signal.addEventListener('abort', leave, { once: true })
  })
  flight.waiting += 1
  try {
    return await Promise.race([flight.facts, left])
  } catch (error) {
    signal.throwIfAborted()
    throw error
  } finally {
    if (report !== undefined) flight.listeners.delete(report)
    if (leave !== undefined) signal.removeEventListener('abort', leave)
  }
}
