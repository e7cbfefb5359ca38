/** The documents of an image: JSON that somebody else wrote. Bounded before it is parsed, typed before it is used. */
import { isUtf8 } from 'node:buffer'
import { CaissonError } from '../errors.ts'

/** How deep objects and arrays may lie in each other (security.md 1.1). */
const mostDepth = 64

/** A parsed object. Read it by {@link field} only, so that what somebody put on Object.prototype is no field. */
export type Fields = Readonly<Record<string, unknown>>

/** A document that says something wrong; `what` names it and `message` the field. */
export function invalid(what: string, message: string): CaissonError {
  return new CaissonError('ERR_INVALID_IMAGE', `${what}: ${message}`, { stage: 'resolve', subject: what })
}

/** A document that asks for more than its limit. */
export function tooLarge(what: string, message: string): CaissonError {
  return new CaissonError('ERR_IMAGE_LIMIT', `${what}: ${message}`, { stage: 'resolve', subject: what })
}

/** What is well-formed, and not built yet. */
export function unsupported(what: string, message: string): CaissonError {
  return new CaissonError('ERR_UNSUPPORTED', `${what}: ${message}`, { stage: 'resolve', subject: what })
}

const quote = 0x22
const backslash = 0x5c
/** `[` and `{`, `]` and `}`: each pair differs in one bit. */
const opening = 0x5b
const closing = 0x5d

function isDeep(bytes: Uint8Array): boolean {
  let depth = 0
  let quoted = false
  for (let at = 0; at < bytes.length; at += 1) {
    const byte = bytes[at] ?? 0
    if (quoted) {
      if (byte === backslash) at += 1
      else if (byte === quote) quoted = false
    } else if (byte === quote) quoted = true
    else if ((byte & ~0x20) === opening) {
      depth += 1
      if (depth > mostDepth) return true
    } else if ((byte & ~0x20) === closing) depth -= 1
  }
  return false
}

/** Whether a value is a JSON object. */
export function isObject(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function json(bytes: Uint8Array, what: string): unknown {
  if (isDeep(bytes)) throw tooLarge(what, `is nested more than ${mostDepth} deep`)
  try {
    // The parser's own words would quote the document, whatever file that is.
    return isUtf8(bytes)
      ? JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString())
      : null
  } catch {
    throw invalid(what, 'is not JSON')
  }
}

/**
 * Parses a document whose size was bounded by who read it.
 * @throws CaissonError ERR_INVALID_IMAGE for what is no JSON object, ERR_IMAGE_LIMIT for one that is too deep.
 */
export function parse(bytes: Uint8Array, what: string): Fields {
  const value = json(bytes, what)
  if (!isObject(value)) throw invalid(what, 'is no JSON object')
  return value
}

/** As {@link parse}, for a document that is an array of at most `most` objects. */
export function parseList(bytes: Uint8Array, what: string, most: number): readonly Fields[] {
  const value = json(bytes, what)
  if (!Array.isArray(value) || !value.every(isObject)) throw invalid(what, 'is no JSON array of objects')
  if (value.length > most) throw tooLarge(what, `has more than ${most} entries`)
  return value
}

/** A field's value; undefined for an absent one. */
export function field(fields: Fields, name: string): unknown {
  return Object.hasOwn(fields, name) ? fields[name] : undefined
}

/** A field that is a string of at most `most` UTF-16 units without NUL; undefined where it is absent or null. */
export function text(fields: Fields, name: string, most: number, what: string): string | undefined {
  const value = field(fields, name) ?? undefined
  if (value === undefined) return undefined
  if (typeof value !== 'string') throw invalid(what, `${name} is no string`)
  if (value.length > most) throw tooLarge(what, `${name} is longer than ${most}`)
  if (value.includes('\0')) throw invalid(what, `${name} holds a NUL`)
  return value
}

/** As {@link text}, for a field that must be there. */
export function requiredText(fields: Fields, name: string, most: number, what: string): string {
  const value = text(fields, name, most, what)
  if (value === undefined) throw invalid(what, `${name} is missing`)
  return value
}

/** A field that is an object; undefined where it is absent or null. */
export function object(fields: Fields, name: string, what: string): Fields | undefined {
  const value = field(fields, name) ?? undefined
  if (value === undefined) return undefined
  if (!isObject(value)) throw invalid(what, `${name} is no object`)
  return value
}

/** A field that is an array of objects, at most `most`. */
export function objects(fields: Fields, name: string, most: number, what: string): readonly Fields[] {
  const value = field(fields, name)
  if (!Array.isArray(value)) throw invalid(what, `${name} is no array`)
  if (value.length > most) throw tooLarge(what, `${name} has more than ${most} entries`)
  if (!value.every(isObject)) throw invalid(what, `${name} holds something else than objects`)
  return value
}

/** A field that is an array of strings; undefined where it is absent or null. Bounded in number and in all. */
export function words(
  fields: Fields,
  name: string,
  most: { count: number; length: number },
  what: string,
): readonly string[] | undefined {
  const value = field(fields, name) ?? undefined
  if (value === undefined) return undefined
  if (!Array.isArray(value) || !value.every((word) => typeof word === 'string')) {
    throw invalid(what, `${name} is no array of strings`)
  }
  if (value.length > most.count) throw tooLarge(what, `${name} has more than ${most.count} entries`)
  let length = 0
  for (const word of value) {
    length += word.length
    if (word.includes('\0')) throw invalid(what, `${name} holds a NUL`)
  }
  if (length > most.length) throw tooLarge(what, `${name} is longer than ${most.length} in all`)
  return value
}
