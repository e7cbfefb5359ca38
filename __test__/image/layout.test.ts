/** Layouts on disk: what is opened, and which image is meant. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import type { ExecutionContext } from 'ava'
import { identify, Layout } from '../../src/image/layout.ts'
import * as layouts from './layouts.ts'

function scratch(t: ExecutionContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'caisson-layout-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  return directory
}

const digestOf = (directory: string, tag?: string): string => {
  const found = new Layout(directory).manifest(tag, () => undefined)
  return 'digest' in found ? found.digest : ''
}

test('an image by its tag, or the only one', (t) => {
  const directory = scratch(t)
  const [one, two] = ['1', '2'].map((content) =>
    layouts.image(directory, { layers: [layouts.tar([{ name: 'f', content }])] }),
  )
  layouts.index(directory, { one: one?.manifest ?? {} })
  t.is(digestOf(directory, 'one'), one?.manifest.digest ?? '')
  t.is(digestOf(directory), one?.manifest.digest ?? '')
  layouts.index(directory, { one: one?.manifest ?? {}, two: two?.manifest ?? {} })
  t.is(digestOf(directory, 'two'), two?.manifest.digest ?? '')
  const which = t.throws<Error & { code: string }>(() => digestOf(directory))
  t.is(which.code, 'ERR_INVALID_OPTION')
  t.true(which.message.endsWith('with one, two'))
  const none = t.throws<Error & { code: string }>(() => digestOf(directory, 'three'))
  t.is(none.code, 'ERR_IMAGE_NOT_FOUND')
  t.true(none.message.endsWith('it has one, two'))
  layouts.index(directory, {})
  t.like(
    t.throws(() => digestOf(directory)),
    { code: 'ERR_IMAGE_NOT_FOUND' },
  )
})

test('an index in the index is for several platforms; one more is refused', (t) => {
  const directory = scratch(t)
  const { manifest } = layouts.image(directory, { layers: [] })
  const platform = { os: 'linux', architecture: process.arch === 'x64' ? 'amd64' : process.arch }
  const nest = (inner: object): layouts.Written => {
    const document = { schemaVersion: 2, mediaType: layouts.types.index, manifests: [{ ...inner, platform }] }
    return layouts.blob(directory, JSON.stringify(document), layouts.types.index)
  }
  layouts.index(directory, { x: nest(manifest) })
  t.is(digestOf(directory, 'x'), manifest.digest)
  layouts.index(directory, { x: nest(nest(manifest)) })
  t.like(
    t.throws(() => digestOf(directory, 'x')),
    { code: 'ERR_INVALID_IMAGE' },
  )
})

test('what is no layout', (t) => {
  const directory = scratch(t)
  for (const name of [directory, join(directory, 'absent'), '/etc/passwd']) {
    t.is(t.throws<Error & { code: string }>(() => digestOf(name)).code, 'ERR_IMAGE_NOT_FOUND', name)
  }
  writeFileSync(join(directory, 'index.json'), '{"schemaVersion":2,"manifests":[]}')
  t.like(
    t.throws(() => digestOf(directory)),
    { code: 'ERR_IMAGE_NOT_FOUND' },
  )
  writeFileSync(join(directory, 'oci-layout'), '{"imageLayoutVersion":"2.0.0"}')
  t.like(
    t.throws(() => digestOf(directory)),
    { code: 'ERR_INVALID_IMAGE' },
  )
})

test('links, pipes and directories are not read, and nothing of what they hold is said', (t) => {
  const directory = scratch(t)
  const { manifest } = layouts.layout(directory, { layers: [] })
  const secret = join(directory, 'secret')
  writeFileSync(secret, 'root:secret')
  for (const file of [join(directory, 'index.json'), layouts.path(directory, manifest.digest)]) {
    const aside = `${file}.aside`
    renameSync(file, aside)
    for (const make of [
      () => symlinkSync(secret, file),
      () => execFileSync('mkfifo', [file]),
      () => mkdirSync(file),
    ]) {
      make()
      const error = t.throws<Error & { code: string }>(() => digestOf(directory))
      t.is(error.code, 'ERR_INVALID_IMAGE')
      t.false(error.message.includes('secret'))
      rmSync(file, { recursive: true })
    }
    writeFileSync(file, 'root:secret')
    const error = t.throws<Error & { code: string }>(() => digestOf(directory))
    t.regex(error.code, /^ERR_(INVALID_IMAGE|DIGEST)$/)
    t.false(error.message.includes('root'))
    renameSync(aside, file)
  }
  t.is(digestOf(directory), manifest.digest)
})

test('documents are bounded before they are read', (t) => {
  const directory = scratch(t)
  const { manifest } = layouts.layout(directory, { layers: [] })
  truncateSync(layouts.path(directory, manifest.digest), 2 ** 40)
  t.like(
    t.throws(() => digestOf(directory)),
    { code: 'ERR_IMAGE_LIMIT' },
  )
  layouts.index(directory, { x: { ...manifest, size: 5 << 20 } })
  t.like(
    t.throws(() => digestOf(directory, 'x')),
    { code: 'ERR_IMAGE_LIMIT' },
  )
  truncateSync(join(directory, 'index.json'), 2 ** 40)
  t.like(
    t.throws(() => digestOf(directory)),
    { code: 'ERR_IMAGE_LIMIT' },
  )
})

test('a manifest and a config have the size and the digest that was asked for', (t) => {
  const directory = scratch(t)
  const { manifest, config } = layouts.layout(directory, { layers: [] })
  const file = layouts.path(directory, manifest.digest)
  const text = 'x'.repeat(manifest.size)
  for (const wrong of [text, `${text} `, '']) {
    writeFileSync(file, wrong)
    t.like(
      t.throws(() => digestOf(directory)),
      { code: 'ERR_DIGEST', stage: 'resolve' },
    )
  }
  writeFileSync(layouts.path(directory, config.digest), ' '.repeat(config.size))
  t.like(
    t.throws(() => new Layout(directory).config(config)),
    { code: 'ERR_DIGEST' },
  )
  rmSync(file)
  t.like(
    t.throws(() => digestOf(directory)),
    { code: 'ERR_INVALID_IMAGE' },
  )
})

test('an index that changed is another one', (t) => {
  const directory = scratch(t)
  t.is(identify(directory), undefined)
  layouts.index(directory, { a: {} })
  const first = identify(directory)
  layouts.index(directory, { bc: {} })
  t.not(identify(directory)?.identity, first?.identity)
})
