/** Archives of images that are damaged or lie: refused with the code for it, the host untouched, nothing left. Names that
 * lead out of an archive: __test__/security/archives.host.test.ts. */
import { mkdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { gzipSync } from 'node:zlib'
import * as archives from './archives.ts'
import { archive, config, docker, hex, nothing, refusedLoad, remains } from './archives.ts'
import * as layouts from './layouts.ts'
import type { Entry } from './layouts.ts'
import { engine, scratch } from './store.ts'

const base = layouts.tar([{ name: 'file', content: 'content\n' }])
const big = layouts.tar([{ name: 'file', content: Buffer.alloc(300_000, 'x') }])

function of(Layers: readonly string[], ...more: Entry[]): () => Entry[] {
  return () => docker([{ layers: [base], Layers }], ...more)
}

function tags(RepoTags: readonly string[]): () => Entry[] {
  return () => docker([{ layers: [base], RepoTags }])
}

/** A layout, changed, as entries. */
function layout(change: (directory: string, written: layouts.WrittenImage) => void) {
  return (directory: string): Entry[] => {
    const made = join(directory, 'layout')
    const written = layouts.layout(made, { layers: [base] }, 'example.com/a:1')
    change(made, written)
    return archives.directory(made)
  }
}

/** What is written in the index in place of the right descriptor. */
function indexed(change: (right: layouts.Written) => object) {
  return layout((directory, { manifest }) => layouts.index(directory, { 'a/b:1': change(manifest) }))
}

/** Each makes the entries of a wrong archive. */
const cases: [string, string, (directory: string, bait: string) => Entry[]][] = [
  [
    'links in a ring',
    'ERR_INVALID_IMAGE',
    of(['a'], { name: 'a', kind: '2', link: 'b' }, { name: 'b', kind: '2', link: 'a' }),
  ],
  ['a link to itself', 'ERR_INVALID_IMAGE', of(['a'], { name: 'a', kind: '1', link: 'a' })],
  ['a layer that is a directory', 'ERR_INVALID_IMAGE', of(['d/'], { name: 'd/', kind: '5' })],
  ['a layer that is missing', 'ERR_INVALID_IMAGE', of(['nowhere/layer.tar'])],
  [
    'a config that is missing',
    'ERR_INVALID_IMAGE',
    () =>
      docker([{ layers: [base] }]).filter(({ name }) => !name.endsWith('.json') || name === 'manifest.json'),
  ],
  ['another layer than the config says', 'ERR_DIGEST', of(['a'], { name: 'a', content: big })],
  [
    'a packed layer with another content than the config says',
    'ERR_DIGEST',
    of(['a'], { name: 'a', content: gzipSync(big) }),
  ],
  [
    'a layer under the name of another digest',
    'ERR_DIGEST',
    of([`blobs/sha256/${hex('x')}`], { name: `blobs/sha256/${hex('x')}`, content: base }),
  ],
  ['fewer layers than the config says', 'ERR_INVALID_IMAGE', of([])],
  ['a layer that is no archive', 'ERR_ARCHIVE', () => docker([{ layers: [Buffer.alloc(2048, 'x')] }])],
  ['10⁵ files', 'ERR_IMAGE_LIMIT', () => Array.from({ length: 1e5 }, (_, at) => ({ name: `f${at}` }))],
  [
    'a manifest.json of 100 MB',
    'ERR_IMAGE_LIMIT',
    () => [{ name: 'manifest.json', content: Buffer.alloc(100e6, ' ') }],
  ],
  [
    'a manifest.json without end',
    'ERR_IMAGE_LIMIT',
    () => [{ name: 'manifest.json', content: '['.repeat(100_000) }],
  ],
  [
    'a config of 100 MB',
    'ERR_IMAGE_LIMIT',
    () => docker([{ layers: [base], config: config([base]) + ' '.repeat(100e6) }]),
  ],
  ['a manifest.json that is none', 'ERR_INVALID_IMAGE', () => [{ name: 'manifest.json', content: 'x' }]],
  [
    'a manifest.json that is an object',
    'ERR_INVALID_IMAGE',
    () => [{ name: 'manifest.json', content: '{}' }],
  ],
  ['an empty manifest.json', 'ERR_INVALID_IMAGE', () => [{ name: 'manifest.json', content: '[]' }]],
  ['no image at all', 'ERR_INVALID_IMAGE', () => [{ name: 'file', content: 'x' }]],
  ['an empty archive', 'ERR_INVALID_IMAGE', () => []],
  ['a name that is none', 'ERR_INVALID_IMAGE', tags(['UPPER/Case:1'])],
  ['a name of another shape', 'ERR_INVALID_IMAGE', tags(['fine:1', '../../etc/passwd'])],
  ['a name with an escape', 'ERR_INVALID_IMAGE', tags(['a\u001B]0;x\u0007:1'])],
  [
    'names that are no strings',
    'ERR_INVALID_IMAGE',
    () => docker([{ layers: [base], RepoTags: [1] as never }]),
  ],
  [
    'another platform’s',
    'ERR_UNSUPPORTED',
    () => docker([{ layers: [base], config: config([base], {}, { architecture: 's390x' }) }]),
  ],
  [
    'a wrong digest in the index',
    'ERR_INVALID_IMAGE',
    indexed((right) => ({ ...right, digest: layouts.sha256('x') })),
  ],
  [
    'no digest in the index',
    'ERR_DIGEST',
    indexed((right) => ({ ...right, digest: 'sha256:../../../bait/f' })),
  ],
  ['a wrong size in the index', 'ERR_DIGEST', indexed((right) => ({ ...right, size: right.size + 1 }))],
  [
    'a blob that is another',
    'ERR_DIGEST',
    layout((directory, { config: right }) => {
      const path = layouts.path(directory, right.digest)
      writeFileSync(path, readFileSync(path, 'utf8').replace('linux', 'linuy'))
    }),
  ],
  [
    'a layer’s blob that is another',
    'ERR_DIGEST',
    layout((directory, { layers }) => {
      const path = layouts.path(directory, layers[0]?.digest ?? '')
      writeFileSync(path, readFileSync(path, 'latin1').replace('content', 'CONTENT'))
    }),
  ],
  [
    'a blob that is a link to another',
    'ERR_DIGEST',
    (directory) => {
      const path = (digest: string): string => `blobs/${digest.replace(':', '/')}`
      const made = layout(() => {})(directory)
      const { layers, config: right } = layouts.image(join(directory, 'same'), { layers: [base] })
      const layer = path(layers[0]?.digest ?? '')
      return made.map((entry) =>
        entry.name === layer ? { name: layer, kind: '1', link: path(right.digest) } : entry,
      )
    },
  ],
  [
    'two images under one name in the index',
    'ERR_INVALID_IMAGE',
    layout((directory, { manifest }) => {
      const other = layouts.image(directory, { layers: [big] }).manifest
      const platform = { os: 'linux', architecture: process.arch === 'x64' ? 'amd64' : process.arch }
      const annotations = { 'org.opencontainers.image.ref.name': 'a/b:1' }
      const manifests = [manifest, other].map((one) => ({ ...one, platform, annotations }))
      writeFileSync(join(directory, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests }))
    }),
  ],
]

for (const [title, code, make] of cases) test(`refused: ${title}`, (t) => refusedLoad(t, code, make))

test('a good image before a bad one has no name either', async (t) => {
  const directory = scratch(t)
  const entries = docker([
    { layers: [base], RepoTags: ['good:1'] },
    { layers: [big], RepoTags: ['bad:1'], Layers: ['nowhere'] },
  ])
  const one = engine(t, directory)
  await t.throwsAsync(one.images.load(archive(join(directory, 'a.tar'), entries)), {
    code: 'ERR_INVALID_IMAGE',
  })
  t.deepEqual(remains(directory), nothing)
})

test('a layer that another image has unpacked is compared all the same', async (t) => {
  const directory = scratch(t)
  const one = engine(t, directory)
  await one.images.load(archive(join(directory, 'a.tar'), docker([{ layers: [base] }])))
  const before = remains(directory)
  const lie = { layers: [base], config: config([base], { Cmd: ['x'] }), Layers: ['a'], RepoTags: ['lie:1'] }
  const entries = docker([lie], { name: 'a', content: big })
  await t.throwsAsync(one.images.load(archive(join(directory, 'b.tar'), entries)), { code: 'ERR_DIGEST' })
  t.deepEqual(remains(directory), before)
})

test('truncated anywhere', async (t) => {
  const directory = scratch(t)
  const one = engine(t, directory)
  const entries = docker([{ layers: [big] }])
  const whole = layouts.tar(entries).length - 10_240
  const packed = gzipSync(layouts.tar(entries))
  const file = join(directory, 'a.tar')
  for (const length of [1, 511, 512, 700, 100_000, whole - 600, whole, whole + 100, whole + 512]) {
    archive(file, entries)
    truncateSync(file, length)
    await t.throwsAsync(one.images.load(file), { code: 'ERR_ARCHIVE' }, String(length))
  }
  writeFileSync(file, packed.subarray(0, packed.length - 10))
  await t.throwsAsync(one.images.load(file), { code: 'ERR_ARCHIVE' })
  writeFileSync(file, '')
  await t.throwsAsync(one.images.load(file), { code: 'ERR_ARCHIVE' })
  t.deepEqual(remains(directory), nothing)
})

test('what is no file', async (t) => {
  const directory = scratch(t)
  const one = engine(t, directory)
  const code = 'ERR_INVALID_OPTION'
  mkdirSync(directory)
  await t.throwsAsync(one.images.load(directory), { code, message: /is a directory/ })
  await t.throwsAsync(one.images.load(join(directory, 'none')), { code, message: /ENOENT/ })
  t.deepEqual(remains(directory), nothing)
})
