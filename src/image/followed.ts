/** A promise whose progress can be followed: `for await (const step of pull(…))`. */

/** Awaited for what it comes to; iterated for what it does, until it is done or fails. */
export type Followed<Value, Progress> = Promise<Value> & AsyncIterable<Progress>

/** Steps that wait for who follows; without one they are not kept. */
class Steps<Progress> {
  readonly #waiting: Progress[] = []
  #wake: (() => void) | undefined
  #over = false

  add(step: Progress): void {
    this.#waiting.push(step)
    this.#wake?.()
  }

  end(): void {
    this.#over = true
    this.#wake?.()
  }

  /** `leave` is called when nobody follows any more. */
  async *follow(until: Promise<unknown>, leave: () => void): AsyncGenerator<Progress, void, undefined> {
    try {
      for (;;) {
        for (let step = this.#waiting.shift(); step !== undefined; step = this.#waiting.shift()) yield step
        if (this.#over) break
        await new Promise<void>((resolve) => {
          this.#wake = resolve
        })
      }
    } finally {
      leave()
    }
    // Its failure is the loop's.
    await until
  }
}

/**
 * Starts work that tells its steps. They are kept for who begins to follow in the same tick, or later from then on; leaving
 * the loop early leaves the work.
 */
export function followed<Value, Progress>(
  work: (tell: (step: Progress) => void) => Promise<Value>,
): Followed<Value, Progress> {
  const followers = new Set<Steps<Progress>>()
  let settled = false
  // Nothing hangs on this promise: a failure that nobody waits for is an unhandled rejection.
  const promise = (async () => {
    try {
      return await work((step) => {
        for (const steps of followers) steps.add(step)
      })
    } finally {
      settled = true
      for (const steps of followers) steps.end()
    }
  })()
  return Object.assign(promise, {
    [Symbol.asyncIterator](): AsyncGenerator<Progress, void, undefined> {
      const steps = new Steps<Progress>()
      // The loop throws it, at its end.
      promise.catch(() => undefined)
      if (settled) steps.end()
      followers.add(steps)
      return steps.follow(promise, () => followers.delete(steps))
    },
  })
}
