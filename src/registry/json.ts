/** JSON that a registry, its token service or a configuration file wrote. Bounded by who read it; typed here. */
import { isUtf8 } from 'node:buffer'

/** How deep objects and arrays may lie in each other (security.md 1.1). */
const mostDepth = 64

/** A parsed object. Read it by {@link field} only, so that what somebody put on Object.prototype is no field. */
export type Fields = Readonly<Record<string, unknown>>

/** Whether a value is a JSON object. */
export function isObject(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** A field's own value; undefined for an absent one, and for null. */
export function field(fields: Fields, name: string): unknown {
  return Object.hasOwn(fields, name) ? (fields[name] ?? undefined) : undefined
}

/** A field that is a string; undefined for anything else. */
export function word(fields: Fields, name: string): string | undefined {
  const value = field(fields, name)
  return typeof value === 'string' ? value : undefined
}

const quote = 0x22
const backslash = 0x5c

function isDeep(bytes: Uint8Array): boolean {
  let depth = 0
  let quoted = false
  for (let at = 0; at < bytes.length; at += 1) {
    const byte = bytes[at] ?? 0
    if (quoted) {
      if (byte === backslash) at += 1
      else if (byte === quote) quoted = false
    } else if (byte === quote) quoted = true
    // `[` and `{`, `]` and `}`: each pair differs in one bit.
    else if ((byte & ~0x20) === 0x5b) {
      depth += 1
      if (depth > mostDepth) return true
    } else if ((byte & ~0x20) === 0x5d) depth -= 1
  }
  return false
}

/** The object in these bytes; undefined where they are none, or nested more than 64 deep. */
export function parseObject(bytes: Uint8Array): Fields | undefined {
  if (!isUtf8(bytes) || isDeep(bytes)) return undefined
  try {
    const value: unknown = JSON.parse(
      Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString(),
    )
    return isObject(value) ? value : undefined
  } catch {
    // The parser's own words would quote the document, which may hold a token.
    return undefined
  }
}
