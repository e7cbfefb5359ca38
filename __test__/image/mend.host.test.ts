/** A store that lacks something, or was lied to: the next pull sees it, and gets that alone. */
import { readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { hostArchitecture } from '../../src/image/manifest.ts'
import { chainIds } from '../../src/image/store.ts'
import { archive, directory as entriesOf } from './archives.ts'
import * as layouts from './layouts.ts'
import { layerOf, publish, registryOf, stored, whole } from './published.ts'
import { engine, scratch } from './store.ts'

const base = layouts.busybox()
const which = layouts.tar([{ name: 'which', content: 'one' }])
const options: layouts.ImageOptions = { layers: [base, which], compress: true }
const chains = chainIds([base, which].map((layer) => layouts.sha256(layer)))

test('what of an image is missing is seen without being read, and fetched alone', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const { manifest, config, layers } = publish(registry, directory, options, 'inner')
  const platform = { os: 'linux', architecture: hostArchitecture() }
  const index = JSON.stringify({
    schemaVersion: 2,
    mediaType: layouts.types.index,
    manifests: [{ ...manifest, platform }],
  })
  registry.manifest('app', 'latest', index, layouts.types.index)
  const image = `${registry.host}/app`
  const one = engine(t, directory)
  await one.pull(image)
  const blob = (digest: string): string => layouts.path(join(directory, 'data/images'), digest)
  const layer = (at: number, name: string): string => join(directory, 'data/layers', chains[at] ?? '', name)
  const [low = '', top = ''] = layers.map(({ digest }) => digest)
  // What is done to it, and what is asked for then, besides the index.
  const cases: [string, () => void, string[]][] = [
    ['index', () => rmSync(blob(layouts.sha256(index))), []],
    ['manifest', () => rmSync(blob(manifest.digest)), [manifest.digest]],
    [
      'damaged manifest',
      () => writeFileSync(blob(manifest.digest), ' '.repeat(manifest.size)),
      [manifest.digest],
    ],
    ['config', () => rmSync(blob(config.digest)), [config.digest]],
    ['short config', () => truncateSync(blob(config.digest), 10), [config.digest]],
    ['blob', () => rmSync(blob(top)), [top]],
    ['blob of a lower layer', () => rmSync(blob(low)), [low]],
    ['mark', () => truncateSync(layer(0, 'layer.json'), 9), []],
    ['mark of the topmost', () => rmSync(layer(1, 'layer.json')), []],
    ['mark and blob', () => [layer(1, 'layer.json'), blob(top)].forEach((path) => rmSync(path)), [top]],
  ]
  for (const [what, damage, wanted] of cases) {
    damage()
    const before = registry.seen.length
    await one.pull(image)
    const asked = registry.seen.slice(before).map(({ method, url }) => `${method} ${url.split('/').at(-1)}`)
    t.true(asked.includes('GET latest'), what)
    const others = asked.filter((request) => !request.endsWith(' latest'))
    t.deepEqual(
      others,
      wanted.map((digest) => `GET ${digest}`),
      what,
    )
    t.notThrows(() => whole(directory), what)
    t.is((await one.run(image, ['cat', '/which'], { pull: 'never' })).stdout, 'one', what)
    const after = registry.seen.length
    await one.pull(image)
    t.is(registry.seen.length, after + 1, what)
  }
})

test('a damaged layer that a running container uses stays until it has ended', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  publish(registry, directory, options)
  const image = `${registry.host}/app`
  const one = engine(t, directory)
  const container = await one.start(image, ['sleep', '1000'])
  // Not the one that the container's lock is on.
  truncateSync(join(directory, 'data/layers', chains[0] ?? '', 'layer.json'), 9)
  t.like(await t.throwsAsync(one.pull(image)), { code: 'ERR_IMAGE_IN_USE' })
  t.is((await container.exec(['cat', '/which'])).stdout, 'one')
  await container.stop({ timeout: 0 })
  await one.pull(image)
  t.notThrows(() => whole(directory))
  t.is((await one.run(image, ['cat', '/which'])).stdout, 'one')
})

test('a blob is that of its layer, also where both are here already', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const one = engine(t, directory)
  const honest = publish(registry, directory, options, 'honest')
  const other = publish(
    registry,
    directory,
    { layers: [base, layouts.tar([{ name: 'which', content: 'two' }])], compress: true },
    'other',
  )
  for (const tag of ['honest', 'other']) await one.pull(`${registry.host}/app:${tag}`)
  // The layers that the config of one image names, and the blob of the other.
  const origin = join(directory, 'origin-app-honest')
  const text = readFileSync(layouts.path(origin, honest.manifest.digest), 'utf8')
  const theirs = other.layers[1] ?? honest.manifest
  const lie = JSON.parse(text) as { layers: object[] }
  lie.layers[1] = theirs
  registry.manifest('app', 'lie', JSON.stringify(lie))
  const before = stored(directory)
  const error = await t.throwsAsync(one.pull(`${registry.host}/app:lie`))
  t.like(error, { code: 'ERR_DIGEST' })
  t.regex(error.message, /inflated/)
  t.deepEqual(stored(directory), before)
  t.is((await one.run(`${registry.host}/app:other`, ['cat', '/which'])).stdout, 'two')

  // The same from an archive, in an image of its own.
  const layout = join(directory, 'lie')
  const written = layouts.image(layout, { ...options, config: { Cmd: ['sh'] } })
  layouts.blob(layout, registry.blobs.get(theirs.digest) ?? '', layouts.types.gzip)
  layouts.index(layout, {
    lie: layouts.blob(layout, JSON.stringify({ ...lie, config: written.config }), layouts.types.manifest),
  })

  const file = archive(join(directory, 'lie.tar'), entriesOf(layout))
  t.like(await t.throwsAsync(one.images.load(file)), { code: 'ERR_DIGEST' })
  t.deepEqual(stored(directory), before)
})

test('a pair that was seen once is not inflated again: what inflates is not even started', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const written = publish(registry, directory, options, 'a')
  const one = engine(t, directory)
  await one.pull(`${registry.host}/app:a`)
  publish(registry, directory, { ...options, config: { Cmd: ['cat', '/which'] } }, 'b')
  const pairs = join(directory, 'data/pairs')
  const record = join(pairs, `${layerOf(written, 1).slice('sha256:'.length)}.json`)
  t.is((JSON.parse(readFileSync(record, 'utf8')) as { diffId: string }).diffId, layouts.sha256(which))
  const states: string[] = []
  await one.pull(`${registry.host}/app:b`, {
    onProgress: (step) => void (step.kind === 'layer' && states.push(step.state)),
  })
  t.deepEqual(states, ['present', 'present'])
  // With the blobs they go.
  for (const tag of ['a', 'b']) await one.images.remove(`${registry.host}/app:${tag}`)
  t.throws(() => readFileSync(record), { code: 'ENOENT' })
})
