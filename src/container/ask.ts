/** Questions to a shim that have one answer. */
import { toError } from '../native.ts'
import type { Failure } from '../native.ts'
import { failureOf } from './shim.ts'
import type { Connection, NativeShim } from './shim.ts'

/** Asks, and waits for the answer. An abort ends it; then the answer is its failure. */
export function ask(
  connection: Connection,
  token: number,
  question: (shim: NativeShim) => Failure | null,
  signal?: AbortSignal,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const listening = connection.get(token, (event) => {
      listening.forget()
      signal?.removeEventListener('abort', cancel)
      if (event instanceof Error) reject(event)
      else if (event.kind === 'failed') reject(failureOf(event))
      else resolve()
    })
    const cancel = (): void => {
      listening.shim.cancel(token)
    }
    const failure = question(listening.shim)
    if (failure !== null) {
      listening.forget()
      reject(toError(failure))
      return
    }
    signal?.addEventListener('abort', cancel, { once: true })
    if (signal?.aborted === true) cancel()
  })
}
