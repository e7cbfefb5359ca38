/** One piece of work for several who wait: it ends early once nobody waits any more. */

export class Shared<Value> {
  readonly #cancel = new AbortController()
  readonly #work: Promise<Value>
  #waiting = 0
  #settled: Value | undefined
  #failed = false

  constructor(work: (ended: AbortSignal) => Promise<Value>) {
    this.#work = work(this.#cancel.signal)
    this.#work.then(
      (value) => (this.#settled = value),
      () => (this.#failed = true),
    )
  }

  /** What came of it; undefined while it is under way, and if it failed. */
  get settled(): Value | undefined {
    return this.#settled
  }

  /** Whether it failed, or was given up: who comes now begins anew. */
  get failed(): boolean {
    return this.#failed || this.#cancel.signal.aborted
  }

  /** Waits with the others. @throws what the work threw; the reason of this one's signal. */
  async wait(signal?: AbortSignal): Promise<Value> {
    signal?.throwIfAborted()
    this.#waiting += 1
    const { promise, reject } = Promise.withResolvers<never>()
    const abort = (): void => reject(signal?.reason as Error)
    signal?.addEventListener('abort', abort, { once: true })
    try {
      return await Promise.race([this.#work, promise])
    } finally {
      signal?.removeEventListener('abort', abort)
      this.#waiting -= 1
      if (this.#waiting === 0 && this.#settled === undefined) this.#cancel.abort()
    }
  }
}
