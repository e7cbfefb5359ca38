/** Indexes and manifests: security.md D7, D8, D9. */
import test from 'ava'
import { choose, parseManifest } from '../../src/image/manifest.ts'
import type { IndexEntry } from '../../src/image/manifest.ts'
import { types } from './layouts.ts'

const digest = `sha256:${'0123456789abcdef'.repeat(4)}`
const config = { mediaType: types.config, digest, size: 7 }
const layer = { mediaType: types.gzip, digest, size: 9 }
const manifest = { schemaVersion: 2, mediaType: types.manifest, config, layers: [layer] }
const entry = { mediaType: types.manifest, digest, size: 7 }
const index = { schemaVersion: 2, mediaType: types.index, manifests: [entry] }

const parse = (value: unknown, described?: string): unknown =>
  parseManifest(Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)), 'doc', described)

test('a manifest and an index are what they say', (t) => {
  t.deepEqual(parse(manifest), { kind: 'manifest', mediaType: types.manifest, config, layers: [layer] })
  const read = { ...entry, platform: undefined, name: undefined, annotations: undefined }
  t.deepEqual(parse(index), { kind: 'index', mediaType: types.index, manifests: [read] })
  // Without their own word their descriptor's counts, and without both their shape.
  const { mediaType: _, ...bare } = manifest
  t.like(parse(bare, types.manifest), { kind: 'manifest' })
  t.like(parse(bare), { kind: 'manifest' })
  t.like(parse({ schemaVersion: 2, manifests: [] }), { kind: 'index' })
})

test('docker’s types are read too', (t) => {
  const docker = 'application/vnd.docker'
  const value = {
    schemaVersion: 2,
    mediaType: `${docker}.distribution.manifest.v2+json`,
    config: { ...config, mediaType: `${docker}.container.image.v1+json` },
    layers: [{ ...layer, mediaType: `${docker}.image.rootfs.diff.tar.gzip` }],
  }
  t.like(parse(value), { kind: 'manifest' })
  t.like(parse({ ...index, mediaType: `${docker}.distribution.manifest.list.v2+json` }), { kind: 'index' })
})

const deep = (depth: number): string => '['.repeat(depth) + ']'.repeat(depth)

const refused: [string, unknown, string, string?][] = [
  ['text', 'hello', 'ERR_INVALID_IMAGE'],
  ['nothing', '', 'ERR_INVALID_IMAGE'],
  ['null', null, 'ERR_INVALID_IMAGE'],
  ['an array', [], 'ERR_INVALID_IMAGE'],
  ['a string', '"x"', 'ERR_INVALID_IMAGE'],
  ['a depth of 100,000', `{"a":${deep(100_000)}}`, 'ERR_IMAGE_LIMIT'],
  ['a depth of 65', `{"a":${deep(64)}}`, 'ERR_IMAGE_LIMIT'],
  ['schema 1', { ...manifest, schemaVersion: 1 }, 'ERR_UNSUPPORTED'],
  ['no schema', { ...manifest, schemaVersion: undefined }, 'ERR_INVALID_IMAGE'],
  ['the schema as a string', { ...manifest, schemaVersion: '2' }, 'ERR_INVALID_IMAGE'],
  ['manifests and layers', { ...manifest, manifests: [entry] }, 'ERR_INVALID_IMAGE'],
  ['manifests and layers as an index', { ...index, layers: [layer] }, 'ERR_INVALID_IMAGE'],
  ['manifests and config', { ...index, config }, 'ERR_INVALID_IMAGE'],
  ['manifests and fsLayers', { ...index, fsLayers: [] }, 'ERR_INVALID_IMAGE'],
  ['another type than its descriptor’s', manifest, 'ERR_INVALID_IMAGE', types.index],
  ['an unknown type', { ...manifest, mediaType: 'text/plain' }, 'ERR_UNSUPPORTED'],
  ['a type that is no string', { ...manifest, mediaType: 2 }, 'ERR_INVALID_IMAGE'],
  ['no config', { ...manifest, config: undefined }, 'ERR_INVALID_IMAGE'],
  [
    'an artifact',
    { ...manifest, config: { ...config, mediaType: 'application/vnd.x+json' } },
    'ERR_UNSUPPORTED',
  ],
  ['layers that are none', { ...manifest, layers: {} }, 'ERR_INVALID_IMAGE'],
  ['layers of null', { ...manifest, layers: [null] }, 'ERR_INVALID_IMAGE'],
  ['128 layers', { ...manifest, layers: Array.from({ length: 128 }, () => layer) }, 'ERR_IMAGE_LIMIT'],
  [
    '10,001 manifests',
    { ...index, manifests: Array.from({ length: 10_001 }, () => entry) },
    'ERR_IMAGE_LIMIT',
  ],
  [
    'a layer of another type',
    { ...manifest, layers: [{ ...layer, mediaType: 'text/x' }] },
    'ERR_UNSUPPORTED',
  ],
  ['a negative size', { ...manifest, config: { ...config, size: -1 } }, 'ERR_INVALID_IMAGE'],
  ['a size that is too large', { ...manifest, config: { ...config, size: 2 ** 53 } }, 'ERR_INVALID_IMAGE'],
  ['a size as a string', { ...manifest, config: { ...config, size: '7' } }, 'ERR_INVALID_IMAGE'],
  ['half a byte', { ...manifest, config: { ...config, size: 0.5 } }, 'ERR_INVALID_IMAGE'],
  [
    'a platform that is a string',
    { ...index, manifests: [{ ...entry, platform: 'linux' }] },
    'ERR_INVALID_IMAGE',
  ],
  [
    'annotations that are none',
    { ...index, manifests: [{ ...entry, annotations: [] }] },
    'ERR_INVALID_IMAGE',
  ],
]
for (const [name, value, code, described] of refused) {
  test(`${name}: ${code}`, (t) => {
    t.like(
      t.throws(() => parse(value, described)),
      { code, stage: 'resolve' },
    )
  })
}

test('bytes that are no UTF-8 are no JSON', (t) => {
  const text = JSON.stringify({ ...manifest, annotations: { a: 'é' } })
  t.like(parseManifest(Buffer.from(text), 'doc'), { kind: 'manifest' })
  t.like(
    t.throws(() => parseManifest(Buffer.from(text, 'latin1'), 'doc')),
    { code: 'ERR_INVALID_IMAGE' },
  )
})

test('a digest has one form', (t) => {
  const hex = digest.slice(7)
  for (const wrong of [
    hex,
    `sha256:${hex.toUpperCase()}`,
    `sha256:${hex.slice(1)}`,
    `sha256:${hex}0`,
    `sha256:../../x`,
    `sha256:${hex}\n`,
    `md5:${hex}`,
    'sha256:',
  ]) {
    const value = { ...manifest, layers: [{ ...layer, digest: wrong }] }
    t.is(t.throws<Error & { code: string }>(() => parse(value)).code, 'ERR_DIGEST', wrong)
  }
  const sha512 = { ...layer, digest: `sha512:${hex}${hex}` }
  t.like(
    t.throws(() => parse({ ...manifest, layers: [sha512] })),
    { code: 'ERR_UNSUPPORTED' },
  )
})

test('what is on Object.prototype is no field', (t) => {
  const prototype = Object.prototype as Record<string, unknown>
  prototype.layers = [layer]
  try {
    t.throws(() => parse({ schemaVersion: 2, mediaType: types.manifest, config }), {
      code: 'ERR_INVALID_IMAGE',
    })
  } finally {
    delete prototype.layers
  }
})

const here = process.arch === 'x64' ? 'amd64' : process.arch
const on = (os: string, architecture: string, variant?: string, name = digest): IndexEntry => ({
  ...entry,
  digest: name,
  platform: { os, architecture, variant },
  name: undefined,
})

test('the image for this machine is chosen', (t) => {
  const mine = on('linux', here, undefined, `sha256:${'a'.repeat(64)}`)
  const others = [
    on('linux', 's390x'),
    on('windows', here),
    on('unknown', 'unknown'),
    on('linux', here, 'v99'),
  ]
  t.is(choose([...others, mine], 'x'), mine)
  // buildkit lists the same one twice.
  t.is(choose([mine, { ...mine }], 'x'), mine)
  const error = t.throws<Error & { code: string }>(() => choose(others, 'x'))
  t.is(error.code, 'ERR_IMAGE_NOT_FOUND')
  t.true(error.message.includes('it has linux/s390x, windows/'))
  t.like(
    t.throws(() => choose([], 'x')),
    { code: 'ERR_IMAGE_NOT_FOUND' },
  )
  t.like(
    t.throws(() => choose([mine, on('linux', here)], 'x')),
    { code: 'ERR_INVALID_IMAGE' },
  )
  const unnamed = { ...entry, platform: undefined, name: undefined }
  t.is(choose([unnamed], 'x'), unnamed)
})
