/** Work of a command that ^C and SIGTERM end: then nothing of it stays. */
import { constants } from 'node:os'

/** A command that a signal ended. */
export class Interrupted extends Error {
  /** A shell's: 128 and the signal's number. */
  readonly exitCode: number

  constructor(name: string, signal: 'SIGINT' | 'SIGTERM') {
    super(`${name} was ended by ${signal}`)
    this.exitCode = 128 + constants.signals[signal]
  }
}

/** Aborted by the first of these signals. */
export function interrupted(name: string): AbortSignal {
  const over = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.once(signal, () => over.abort(new Interrupted(name, signal)))
  return over.signal
}
