/** Documents of images, damaged: byte by byte, and field by field, so that they are still JSON. */
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

/** A number from 0 up to `most`, without it. */
type Below = (most: number) => number

/** What fields become. As text, for what JSON.stringify would not write. */
const values = [
  'null',
  'true',
  '0',
  '-1',
  '1e400',
  '0.5',
  '9007199254740993',
  '2147483648',
  '""',
  '"x"',
  '"\\u0000"',
  '"\\ud800"',
  '"../../x"',
  '"sha256:"',
  `"sha256:${'0'.repeat(64)}"`,
  `"sha512:${'0'.repeat(128)}"`,
  `"SHA256:${'A'.repeat(64)}"`,
  '"linux"',
  '"__proto__"',
  '"application/vnd.oci.image.index.v1+json"',
  '"application/vnd.oci.image.manifest.v1+json"',
  '"application/vnd.docker.distribution.manifest.v1+prettyjws"',
  '[]',
  '[null]',
  '[[]]',
  '{}',
  '{"__proto__":{"digest":"x"}}',
  '{"length":1}',
  `${'['.repeat(70)}${']'.repeat(70)}`,
  `"${'x'.repeat(70_000)}"`,
]
const names = [
  '__proto__',
  'constructor',
  'toString',
  'layers',
  'manifests',
  'config',
  'digest',
  'size',
  'mediaType',
  '',
]
const bytes = [0, 0x22, 0x2c, 0x3a, 0x5b, 0x5c, 0x5d, 0x7b, 0x7d, 0x80, 0xff]

/** Stands for a value of the list above until the document is text. */
const mark = (at: number): string => `\u0001${at}\u0001`

type Holder = Record<string, unknown>

/** All objects and arrays with something in them, with the names or places in them. */
function fields(value: unknown): { holder: Holder; name: string }[] {
  if (typeof value !== 'object' || value === null) return []
  const holder = value as Holder
  return Object.keys(holder).flatMap((name) => [{ holder, name }, ...fields(holder[name])])
}

function changeField(document: unknown, below: Below): void {
  const all = fields(document)
  const one = all[below(all.length)]
  const other = all[below(all.length)]
  if (one === undefined || other === undefined) return
  const { holder, name } = one
  const kind = below(6)
  if (kind <= 1) holder[name] = mark(below(values.length))
  else if (kind === 2) delete holder[name]
  // A copy: a ring could not be written.
  else if (kind === 3) holder[name] = structuredClone(other.holder[other.name])
  else if (kind === 4 && Array.isArray(holder)) holder.push(structuredClone(holder[Number(name)]))
  else {
    const renamed = names[below(names.length)] ?? ''
    Object.defineProperty(holder, renamed, {
      value: structuredClone(holder[name]),
      enumerable: true,
      configurable: true,
      writable: true,
    })
    if (kind === 5) delete holder[name]
  }
}

function changeBytes(document: Buffer, below: Below): Buffer {
  const at = below(document.length + 1)
  const [before, after] = [document.subarray(0, at), document.subarray(at)]
  const byte = Buffer.of(bytes[below(bytes.length)] ?? 0)
  switch (below(6)) {
    case 0:
      return before
    case 1:
      return Buffer.concat([before, byte, after])
    case 2:
      return Buffer.concat([before, after.subarray(1 + below(8))])
    case 3:
      return Buffer.concat([before, byte, after.subarray(1)])
    case 4:
      // A field that stands twice, as often as not.
      return Buffer.concat([before, document.subarray(at, at + below(80)), after])
    default: {
      const copy = Buffer.from(document)
      if (copy.length > 0) copy[at % copy.length] = (copy[at % copy.length] ?? 0) ^ (1 << below(8))
      return copy
    }
  }
}

/** The same with one digit of one digest changed: well-formed, and nobody's. */
function withOtherDigest(document: Buffer, below: Below): Buffer {
  const text = document.toString()
  const digests = [...text.matchAll(/sha256:[a-f0-9]{64}/g)]
  const at = (digests[below(digests.length)]?.index ?? 0) + 'sha256:'.length + below(64)
  return Buffer.from(`${text.slice(0, at)}${text[at] === '0' ? '1' : '0'}${text.slice(at + 1)}`)
}

/** A damaged copy of a document. `next` gives numbers from 0 up to 1. */
export function mutated(document: Buffer, next: () => number): Buffer {
  const below: Below = (most) => Math.floor(next() * most)
  if (below(5) === 0 && document.includes('sha256:')) return withOtherDigest(document, below)
  let copy = document
  if (below(4) > 0) {
    const parsed: unknown = JSON.parse(document.toString())
    for (let times = below(3); times >= 0; times -= 1) changeField(parsed, below)
    const text = JSON.stringify(parsed).replaceAll(
      /"\\u0001(\d+)\\u0001"/g,
      (_, at) => values[Number(at)] ?? '',
    )
    copy = Buffer.from(text)
  }
  if (copy === document || below(8) === 0)
    for (let times = below(3); times >= 0; times -= 1) copy = changeBytes(copy, below)
  return copy
}

/** All codes that an error may have. */
export const codes: ReadonlySet<string> = new Set(
  [
    ...readFileSync(fileURLToPath(new URL('../../src/errors.ts', import.meta.url)), 'utf8').matchAll(
      /^ {2}\| '(\w+)'$/gm,
    ),
  ].map(([, code]) => code ?? ''),
)
