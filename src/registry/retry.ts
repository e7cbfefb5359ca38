/** Trying again what may pass: with a wait that doubles, or as long as the server says. */
import { setTimeout as sleep } from 'node:timers/promises'
import { Passing } from './failure.ts'
import type { Limits } from './limits.ts'

/**
 * Runs `attempt` until it succeeds, fails for good, or has failed `attempts` times (default the limits').
 * @throws what the last attempt threw, {@link Passing} as the error that it stands for; the signal's reason.
 */
export async function retrying<Value>(
  limits: Limits,
  signal: AbortSignal | undefined,
  attempt: () => Promise<Value>,
  attempts: number = limits.attempts,
): Promise<Value> {
  for (let tried = 1; ; tried += 1) {
    signal?.throwIfAborted()
    try {
      return await attempt()
    } catch (error) {
      if (!(error instanceof Passing)) throw error
      const { after } = error
      if (tried >= attempts || (after ?? 0) > limits.mostRetryAfter) throw error.error
      const grown = Math.min(limits.firstWait * 2 ** (tried - 1), limits.mostWait)
      // Half of it by chance, so that many who failed together do not come back together.
      const wait = after ?? grown / 2 + (Math.random() * grown) / 2
      await sleep(wait, undefined, signal === undefined ? {} : { signal }).catch(() =>
        signal?.throwIfAborted(),
      )
    }
  }
}
