/** Writes tar archives that are the same for the same content: ustar, with a PAX header only for what that cannot say. */

/** An entry of an archive. */
export interface TarEntry {
  /** At most 100 bytes of ASCII; a directory's ends in a slash. */
  name: string
  /** Bytes of its content; 0 of a directory. */
  size: number
  /** Exactly `size` bytes. */
  content: () => AsyncIterable<Uint8Array> | Iterable<Uint8Array>
}

const block = 512
/** The largest size that eleven octal digits say: 8 GiB less a byte. */
const mostOctal = 0o77777777777

function header(name: string, size: number, type: '0' | '5' | 'x'): Buffer {
  const bytes = Buffer.alloc(block)
  if (Buffer.byteLength(name) > 100) throw new RangeError(`${name} is too long for a ustar header`)
  const put = (text: string, at: number): number => bytes.write(text, at, 'latin1')
  const octal = (value: number, length: number): string => `${value.toString(8).padStart(length - 1, '0')}\0`
  put(name, 0)
  put(octal(type === '5' ? 0o755 : 0o644, 8), 100)
  // Owner, group and time say nothing: an archive depends on its images alone.
  put(octal(0, 8), 108)
  put(octal(0, 8), 116)
  put(octal(Math.min(size, mostOctal), 12), 124)
  put(octal(0, 12), 136)
  put(' '.repeat(8), 148)
  put(type, 156)
  put('ustar\u000000', 257)
  put(octal(0, 8), 329)
  put(octal(0, 8), 337)
  const sum = bytes.reduce((all, byte) => all + byte, 0)
  put(`${octal(sum, 7)} `, 148)
  return bytes
}

function padding(size: number): Buffer {
  return Buffer.alloc((block - (size % block)) % block)
}

/** A record of a PAX header says its own length (pax(1)). */
function record(key: string, value: string): string {
  const rest = ` ${key}=${value}\n`
  let length = rest.length + 1
  while (String(length).length + rest.length !== length) length = String(length).length + rest.length
  return `${length}${rest}`
}

function headers(name: string, size: number): Buffer {
  if (size <= mostOctal) return header(name, size, '0')
  const pax = Buffer.from(record('size', String(size)))
  return Buffer.concat([
    header('PaxHeaders.0/size', pax.length, 'x'),
    pax,
    padding(pax.length),
    header(name, size, '0'),
  ])
}

/** The bytes of an archive of these entries, in their order. */
export async function* tar(entries: Iterable<TarEntry>): AsyncGenerator<Uint8Array> {
  for (const { name, size, content } of entries) {
    if (name.endsWith('/')) {
      yield header(name, 0, '5')
      continue
    }
    yield headers(name, size)
    let written = 0
    for await (const piece of content()) {
      written += piece.length
      if (written > size) break
      yield piece
    }
    if (written !== size) throw new RangeError(`${name} has not the ${size} bytes that its header says`)
    yield padding(size)
  }
  yield Buffer.alloc(2 * block)
}
