/** Docker's words for sizes. */
import { CaissonError } from '../errors.ts'

/** Bytes, or docker's `'512k'`, `'256m'`, `'1.5g'`. */
export type Size = number | string

const powers: Record<string, number> = { '': 0, b: 0, k: 1, m: 2, g: 3, t: 4, p: 5 }

function invalid(name: string, value: unknown, wanted: string): CaissonError {
  const shown = typeof value === 'string' ? `'${value}'` : String(value)
  return new CaissonError('ERR_INVALID_OPTION', `${name}: ${shown} is not ${wanted}`, { subject: name })
}

/** A size in bytes. `-1` stays: it means unlimited where docker says so. */
export function bytes(name: string, value: Size): number {
  if (typeof value !== 'number' && typeof value !== 'string')
    throw invalid(name, value, 'a size like 256m, 1.5g or a number of bytes')
  if (typeof value === 'number') {
    if (!Number.isSafeInteger(value)) throw invalid(name, value, 'a whole number of bytes')
    return value
  }
  if (value === '-1') return -1
  const match = /^(\d+(?:\.\d+)?) ?([bkmgtp]?)(?:i?b)?$/i.exec(value)
  const power = powers[match?.[2]?.toLowerCase() ?? '']
  const size = Math.floor(Number(match?.[1]) * 1024 ** (power ?? 0))
  if (match === null || power === undefined || !Number.isSafeInteger(size)) {
    throw invalid(name, value, 'a size like 256m, 1.5g or a number of bytes')
  }
  return size
}

/** A size that bounds something: not negative, and not docker's -1. */
export function limit(name: string, value: Size): number {
  const size = bytes(name, value)
  if (size < 0) throw invalid(name, value, 'a size like 256m, 1.5g or a number of bytes')
  return size
}
