/** What a caller asks for: from JavaScript anything can come. */
import { refuse } from '../errors.ts'

const never = new AbortController().signal

/**
 * The signal of these options; one that is never aborted where there is none.
 * @throws CaissonError ERR_INVALID_OPTION for options that are no object, and for a signal that is no AbortSignal.
 */
export function signalOf(options: { signal?: AbortSignal | undefined }): AbortSignal {
  const given: unknown = options
  if (typeof given !== 'object' || given === null || Array.isArray(given))
    throw refuse('options', 'is no object')
  const signal: unknown = Object.hasOwn(given, 'signal') ? options.signal : undefined
  if (signal === undefined) return never
  if (!(signal instanceof AbortSignal)) throw refuse('signal', 'is no AbortSignal')
  return signal
}
