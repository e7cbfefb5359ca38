/** Docker's words for times, and Node's numbers. */
import { CaissonError } from '../errors.ts'

/** Milliseconds, or docker's `'10s'`, `'1m30s'`, `'500ms'`. */
export type Duration = number | string

function invalid(name: string, value: unknown, wanted: string): CaissonError {
  const shown = typeof value === 'string' ? `'${value}'` : String(value)
  return new CaissonError('ERR_INVALID_OPTION', `${name}: ${shown} is not ${wanted}`, { subject: name })
}

const units: Record<string, number> = { ns: 1e-6, us: 1e-3, µs: 1e-3, ms: 1, s: 1e3, m: 6e4, h: 36e5 }

/** A time in milliseconds, not negative. */
export function milliseconds(name: string, value: Duration): number {
  if (typeof value === 'number') {
    if (!Number.isFinite(value) || value < 0) throw invalid(name, value, 'a number of milliseconds')
    return value
  }
  let total = 0
  const rest = value.replaceAll(/(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)/g, (_, count: string, unit: string) => {
    total += Number(count) * (units[unit] ?? 0)
    return ''
  })
  if (value === '' || rest !== '') throw invalid(name, value, 'a time with units, like 500ms, 10s, 1m30s')
  return total
}

/** The longest that setTimeout waits; more is no wait at all. */
const longest = 2 ** 31 - 1

/** Acts after a time, however long. Answers what calls it off. */
export function later(ms: number, act: () => void): () => void {
  const wait = Math.min(ms, longest)
  let cancel: () => void
  const timer = setTimeout(() => {
    if (ms > wait) cancel = later(ms - wait, act)
    else act()
  }, wait)
  cancel = () => clearTimeout(timer)
  return () => cancel()
}
