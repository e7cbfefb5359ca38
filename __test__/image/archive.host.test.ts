/** Archives of images that others wrote, loaded and run. */
import { execFileSync } from 'node:child_process'
import { createReadStream, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { gzipSync } from 'node:zlib'
import test from 'ava'
import { tryLockDirectory } from '../../src/state/lock.ts'
import { runtime } from '../host/ground.ts'
import * as archives from './archives.ts'
import { archive, docker, hello, hex, nothing, remains } from './archives.ts'
import * as layouts from './layouts.ts'
import { engine, scratch } from './store.ts'

const base = layouts.busybox()
const more = layouts.tar([{ name: 'more', content: 'more\n' }])
const both = ['cat', '/more']

function skopeo(...words: string[]): void {
  // Its own place for that, /var/tmp, is read-only on some hosts.
  execFileSync('skopeo', ['--tmpdir', runtime, 'copy', '--quiet', ...words], { stdio: 'pipe' })
}

test('docker-archive and oci-archive of skopeo, a layout in a tar, each plain and gzip', async (t) => {
  const directory = scratch(t)
  const layout = join(directory, 'layout')
  layouts.layout(layout, { layers: [base, more], config: { Cmd: both }, compress: true }, 'tag')
  const files = ['d.tar', 'o.tar', 't.tar'].map((name) => join(directory, name)) as [string, string, string]
  skopeo(`oci:${layout}:tag`, `docker-archive:${files[0]}:localhost:5000/a/docker:1`)
  skopeo(`oci:${layout}:tag`, `oci-archive:${files[1]}:example.com/oci:2`)
  // `./` before each name, as people's tar writes them.
  execFileSync('tar', ['-cf', files[2], '-C', layout, '.'])
  for (const file of files) writeFileSync(`${file}.gz`, gzipSync(readFileSync(file), { level: 1 }))
  const names = [['localhost:5000/a/docker:1'], ['example.com/oci:2'], []]
  for (const suffix of ['', '.gz']) {
    for (const [at, file] of files.entries()) {
      const root = join(directory, `${at}${suffix}`)
      const one = engine(t, root)
      const [image, ...others] = await one.images.load(file + suffix)
      t.is(others.length, 0)
      t.deepEqual(image?.names, names[at])
      t.is((await one.run(image?.names[0] ?? `oci:${join(root, 'data/images')}`)).stdout, 'more\n')
      t.like(remains(root), { layers: 2, facts: 1, spool: false, blobs: 4, names: 1 })
    }
  }
})

test('docker’s old form: layers that are links to each other, the manifest first or last', async (t) => {
  const directory = scratch(t)
  const document = archives.config([base, more, more, more], { Cmd: both })
  const names = ['a', 'b', 'c', 'd'].map((name) => `${hex(name)}/layer.tar`)
  const [one = '', two = '', three = '', four = ''] = names
  const manifest = [{ Config: `${hex(document)}.json`, RepoTags: ['hello:1', 'other:2'], Layers: names }]
  const entries: layouts.Entry[] = [
    { name: three, kind: '2', link: `../${two}` },
    { name: `${hex(document)}.json`, content: document },
    { name: one, content: base },
    { name: two, content: more },
    { name: four, kind: '1', link: two },
    { name: 'repositories', content: '{"hello":{"1":"x"}}' },
  ]
  const last: layouts.Entry = { name: 'manifest.json', content: JSON.stringify(manifest) }
  for (const [at, all] of [
    [...entries, last],
    [last, ...entries],
  ].entries()) {
    const root = join(directory, String(at))
    const made = engine(t, root)
    const images = await made.images.load(archive(join(directory, `${at}.tar`), all))
    t.deepEqual(
      images.map((image) => [image.id, image.names]),
      [[layouts.sha256(document), ['hello:1', 'other:2']]],
    )
    t.is((await made.run('other:2')).stdout, 'more\n')
    // The same blob three times is one.
    t.like(remains(root), { layers: 4, blobs: 4, names: 2 })
  }
})

test('docker’s form with packed layers', async (t) => {
  const directory = scratch(t)
  const one = engine(t, directory)
  const Layers = ['1.tar.gz', '2.tar.gz']
  const packed = [base, more].map((layer, at): layouts.Entry => ({
    name: Layers[at] ?? '',
    content: gzipSync(layer, { level: 1 }),
  }))
  const image = { layers: [base, more], Layers, config: archives.config([base, more], { Cmd: both }) }
  await one.images.load(archive(join(directory, 'a.tar'), docker([image], ...packed)))
  t.is((await one.run('hello:1')).stdout, 'more\n')
  const sizes = packed.map(({ content }) => Buffer.from(content ?? '').length)
  const { blobs } = await one.images.usage()
  t.true(blobs.bytes > sizes.reduce((sum, size) => sum + size) && blobs.bytes < base.length)
})

test('an archive that is both: the layout’s manifests stay what they are', async (t) => {
  const directory = scratch(t)
  const layout = join(directory, 'layout')
  const { manifest, config, layers } = layouts.layout(layout, {
    layers: [base],
    config: { Cmd: hello },
    compress: true,
    manifest: { annotations: { by: 'its maker' } },
  })
  const annotations = {
    'io.containerd.image.name': 'docker.io/library/hello:1',
    'org.opencontainers.image.ref.name': '1',
  }
  writeFileSync(
    join(layout, 'index.json'),
    JSON.stringify({ schemaVersion: 2, manifests: [{ ...manifest, annotations }] }),
  )
  const path = (digest = ''): string => `blobs/${digest.replace(':', '/')}`
  writeFileSync(
    join(layout, 'manifest.json'),
    JSON.stringify([
      { Config: path(config.digest), RepoTags: ['hello:1'], Layers: layers.map((one) => path(one.digest)) },
    ]),
  )
  const one = engine(t, directory)
  const [image] = await one.images.load(archive(join(directory, 'a.tar'), archives.directory(layout)))
  t.like(image, { id: config.digest, digest: manifest.digest, names: ['hello:1'] })
  t.is((await one.run('hello:1')).stdout, 'hello\n')
})

test('of several platforms the one that is wanted', async (t) => {
  const directory = scratch(t)
  const layout = join(directory, 'layout')
  const made = ['amd64', 'arm64'].map((architecture) => {
    const document = { architecture }
    const { manifest } = layouts.image(layout, { layers: [base], config: { Cmd: hello }, document })
    return { ...manifest, platform: { os: 'linux', architecture } }
  })
  const inner = layouts.blob(
    layout,
    JSON.stringify({ schemaVersion: 2, mediaType: layouts.types.index, manifests: made }),
    layouts.types.index,
  )
  layouts.index(layout, { 'example.com/many:1': inner })
  const file = archive(join(directory, 'a.tar'), archives.directory(layout))
  const one = engine(t, directory)
  const platforms: (string | undefined)[] = []
  for (const platform of ['linux/arm64', 'linux/amd64'])
    platforms.push((await one.images.load(file, { platform }))[0]?.platform)
  t.deepEqual(platforms, ['linux/arm64', 'linux/amd64'])
  await t.throwsAsync(one.images.load(file, { platform: 'linux/s390x' }), { code: 'ERR_IMAGE_NOT_FOUND' })
})

test('an image without a name is known by its id; one that is here keeps its manifest', async (t) => {
  const directory = scratch(t)
  const one = engine(t, directory)
  const layout = join(directory, 'layout')
  const document = { config: { Cmd: hello } }
  const { manifest, config } = layouts.layout(layout, { layers: [base], compress: true, document })
  const [packed] = await one.images.load(archive(join(directory, '1.tar'), archives.directory(layout)))
  t.like(packed, { id: config.digest, digest: manifest.digest, names: [] })
  const plain = readFileSync(layouts.path(layout, config.digest), 'utf8')
  const entries = docker([{ layers: [base], config: plain, RepoTags: ['hello:1'] }])
  const [named] = await one.images.load(archive(join(directory, '2.tar'), entries))
  t.like(named, { id: config.digest, digest: manifest.digest, names: ['hello:1'] })
  t.is((await one.images.list()).length, 1)
  t.like(remains(directory), { blobs: 3, names: 1 })
})

test('one image, packed in two ways, is one', async (t) => {
  const directory = scratch(t)
  const one = engine(t, directory)
  const layout = join(directory, 'layout')
  const { manifest, config } = layouts.layout(layout, { layers: [base], compress: true }, 'a/packed:1')
  const document = readFileSync(layouts.path(layout, config.digest), 'utf8')
  const plain = docker([{ layers: [base], config: document, RepoTags: ['plain:1'] }])
  await one.images.load(archive(join(directory, '1.tar'), plain))
  // What has no blobs any more gets those of the next archive.
  await one.images.prune({ blobs: true })
  await one.images.load(archive(join(directory, '2.tar'), archives.directory(layout)))
  t.like(remains(directory), { names: 2, facts: 2, layers: 1 })
  const [image, ...others] = await one.images.list()
  t.deepEqual([image?.names, others], [['plain:1', 'a/packed:1'], []])
  t.is((await one.images.get(config.digest)).id, config.digest)
  t.is((await one.images.get('a/packed:1')).digest, manifest.digest)
  t.deepEqual((await one.images.remove('plain:1')).deleted, [])
  t.deepEqual((await one.images.remove('a/packed:1')).deleted, [config.digest])
  t.deepEqual(remains(directory), nothing)
})

test('from a stream; one that breaks or is aborted leaves nothing', async (t) => {
  const directory = scratch(t)
  const file = archive(join(directory, 'a.tar'), docker([{ layers: [base] }]))
  const one = engine(t, directory)
  const bytes = readFileSync(file)
  async function* broken() {
    yield bytes.subarray(0, 100_000)
    await sleep(50)
    throw new Error('the line is cut')
  }
  await t.throwsAsync(one.images.load(Readable.from(broken())), { message: 'the line is cut' })
  t.deepEqual(remains(directory), nothing)

  async function* silent() {
    yield bytes.subarray(0, 100_000)
    await new Promise(() => {})
  }
  const over = new AbortController()
  const loading = one.images.load(Readable.from(silent()), { signal: over.signal })
  await sleep(200)
  t.true(readdirSync(join(directory, 'data/spool')).length === 1)
  over.abort(new Error('enough'))
  await t.throwsAsync(loading, { message: 'enough' })
  t.deepEqual(remains(directory), nothing)

  await t.throwsAsync(one.images.load(Readable.from([Buffer.alloc(1 << 20, 1), bytes])), {
    code: 'ERR_ARCHIVE',
  })
  t.deepEqual(remains(directory), nothing)
  t.is((await one.images.load(createReadStream(file)))[0]?.names[0], 'hello:1')
  t.is((await one.run('hello:1')).stdout, 'hello\n')
})

test('what a crash left is removed by the next shim; what somebody reads is not', async (t) => {
  const directory = scratch(t)
  const spool = join(directory, 'data/spool')
  for (const name of ['dead', 'live']) {
    mkdirSync(join(spool, name), { recursive: true, mode: 0o700 })
    writeFileSync(join(spool, name, '0'), 'x')
  }
  const lock = tryLockDirectory(join(spool, 'live'))
  t.teardown(() => lock?.release())
  const file = archive(join(directory, 'a.tar'), docker([{ layers: [base] }]))
  await engine(t, directory).images.load(file)
  for (let look = 0; look < 500 && existsSync(join(spool, 'dead')); look += 1) await sleep(10)
  t.deepEqual(readdirSync(spool), ['live'])
})
