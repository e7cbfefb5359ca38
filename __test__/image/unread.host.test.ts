/** What is remembered of an image cannot be read: nothing goes that a name or a container needs. */
import { spawnSync } from 'node:child_process'
import type { SpawnSyncReturns } from 'node:child_process'
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import type { ExecutionContext } from 'ava'
import { noise, publish, registryOf, stored } from './published.ts'
import * as layouts from './layouts.ts'
import { engine, scratch } from './store.ts'

const forever = ['sh', '-c', 'while :; do sleep .05; done']

/** Layers of its own, all of them. */
function image(seed: number): layouts.ImageOptions {
  const own = layouts.tar([{ name: `own${seed}`, content: noise(1000, seed) }])
  return { layers: [layouts.busybox({ name: `low${seed}`, content: 'low' }), own], compress: true }
}

function forget(directory: string, how: (text: string) => string): void {
  const facts = join(directory, 'data/facts')
  for (const name of readdirSync(facts)) {
    const path = join(facts, name)
    writeFileSync(path, how(readFileSync(path, 'utf8')))
  }
}

/** Two images, of which `app:a` was pulled. */
async function pulledFirst(t: ExecutionContext) {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  publish(registry, directory, image(1), 'a')
  publish(registry, directory, image(2), 'b')
  const one = engine(t, directory)
  await one.pull(`${registry.host}/app:a`)
  return { directory, registry, one, layers: stored(directory).layers }
}

for (const [what, how] of [
  ['of another version', (text: string) => text.replace('"version":2', '"version":1')],
  ['empty', () => ''],
] as const)
  test(`facts that are ${what} take no layer away from a name`, async (t) => {
    const { directory, registry, one, layers } = await pulledFirst(t)
    await one.pull(`${registry.host}/app:b`)
    await one.images.prune({ blobs: true })
    forget(directory, how)
    const { deleted } = await one.images.remove(`${registry.host}/app:b`)
    t.is(deleted.length, 1)
    t.deepEqual(stored(directory).layers, layers)
  })

test('of an image that nothing is remembered of a container keeps its layers', async (t) => {
  const { directory, registry, one, layers } = await pulledFirst(t)
  const running = await one.start(`${registry.host}/app:a`, forever)
  await one.pull(`${registry.host}/app:b`)
  forget(directory, () => '')
  await one.images.remove(`${registry.host}/app:a`, { force: true })
  await one.images.remove(`${registry.host}/app:b`)
  const kept = stored(directory).layers
  for (const layer of layers) t.true(kept.includes(layer), layer)
  running.kill('SIGKILL')
  await running.wait()
  await one.images.prune()
  t.deepEqual(stored(directory).layers, [])
})

test('a damaged image keeps all blobs, is counted, and goes with a prune of all', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const a = publish(registry, directory, image(1), 'a')
  publish(registry, directory, image(2), 'b')
  const one = engine(t, directory)
  await one.pull(`${registry.host}/app:a`)
  await one.pull(`${registry.host}/app:b`)
  const caisson = (...words: string[]): SpawnSyncReturns<string> =>
    spawnSync(process.execPath, ['src/cli/main.ts', '--root', join(directory, 'data'), ...words], {
      encoding: 'utf8',
    })
  t.is(caisson('system', 'df').stderr, '')
  rmSync(layouts.path(join(directory, 'data/images'), a.manifest.digest))
  const before = stored(directory).blobs
  await one.images.remove(`${registry.host}/app:b`)
  t.deepEqual(stored(directory).blobs, before)
  t.like(await one.images.usage(), { images: 1, damaged: 1, reclaimable: 0 })
  t.like(await one.images.prune(), { deleted: [], damaged: 1 })
  for (const words of [
    ['system', 'df'],
    ['image', 'prune', '-f'],
  ])
    t.regex(caisson(...words).stderr, /^caisson: 1 image is damaged: no blob is removed until .*\n$/)
  t.regex(caisson('system', 'df').stdout, /^Blobs +\d+ +[0-9.]+[kM]B +0B$/m)
  t.like(await one.images.prune({ all: true }), {
    untagged: [`${registry.host}/app:a`],
    deleted: [a.config.digest],
    damaged: 0,
  })
  t.like(stored(directory), { layers: [], blobs: [] })
  t.like(await one.images.usage(), { images: 0, damaged: 0 })
})

test('a prune of all leaves a damaged image of which a container runs', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const a = publish(registry, directory, image(1), 'a')
  const one = engine(t, directory)
  const running = await one.start(`${registry.host}/app:a`, forever)
  rmSync(layouts.path(join(directory, 'data/images'), a.manifest.digest))
  t.like(await one.images.prune({ all: true }), { untagged: [], deleted: [], damaged: 1 })
  running.kill('SIGKILL')
  await running.wait()
  t.like(await one.images.prune({ all: true }), { deleted: [a.config.digest], damaged: 0 })
})
