/** Names that others change meanwhile: what they did is not undone. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import test from 'ava'
import type { ExecutionContext } from 'ava'
import type { Engine } from '../../src/container/engine.ts'
import { Content } from '../../src/image/content.ts'
import { tryLock } from '../../src/state/lock.ts'
import type { FakeRegistry } from '../registry/server.ts'
import * as layouts from './layouts.ts'
import { publish, registryOf, stored } from './published.ts'
import { engine, scratch } from './store.ts'

interface Scene {
  directory: string
  registry: FakeRegistry
  one: Engine
  name: (tag: string) => string
}

async function scene(t: ExecutionContext, ...tags: string[]): Promise<Scene> {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const name = (tag: string): string => `${registry.host}/app:${tag}`
  const one = engine(t, directory)
  for (const tag of tags) {
    publish(registry, directory, { layers: [layouts.tar([{ name: tag, content: tag }])] }, tag)
    await one.pull(name(tag))
  }
  return { directory, registry, one, name }
}

interface Index {
  manifests: { digest: string; annotations?: Record<string, string> }[]
}

/** Changes the index as another program does, while `work` waits for its turn. */
async function meanwhile<Value>(
  directory: string,
  work: () => Promise<Value>,
  change: (index: Index) => Index['manifests'],
): Promise<Value> {
  const data = join(directory, 'data')
  const lock = tryLock(join(data, 'lock'), 'exclusive')
  const working = work()
  working.catch(() => {})
  await sleep(500)
  const path = join(data, 'images/index.json')
  const index = JSON.parse(readFileSync(path, 'utf8')) as Index
  writeFileSync(path, JSON.stringify({ ...index, manifests: change(index) }))
  lock?.release()
  return working
}

async function namesOf(one: Engine): Promise<string[]> {
  return (await one.images.list()).flatMap(({ names }) => names).toSorted()
}

test('a tag of what goes meanwhile is refused, and nothing is collected below it', async (t) => {
  const { directory, one, name } = await scene(t, 'a')
  let collects = true
  const tagged = meanwhile(
    directory,
    async () => one.images.tag(name('a'), name('b')),
    () => {
      const lock = new Content(join(directory, 'data')).collect()
      collects = lock !== undefined
      lock?.release()
      return []
    },
  )
  t.like(await t.throwsAsync(tagged), { code: 'ERR_IMAGE_NOT_FOUND', subject: name('a') })
  t.false(collects)
  t.deepEqual(await namesOf(one), [])
})

test('what was removed while a tag kept it is collected after that', async (t) => {
  const { directory, one, name } = await scene(t, 'a', 'c')
  await meanwhile(
    directory,
    async () => one.images.tag(name('a'), name('b')),
    ({ manifests }) => {
      const content = new Content(join(directory, 'data'))
      content.note('collect-wanted')
      return manifests.slice(0, 1)
    },
  )
  t.deepEqual(await namesOf(one), [name('a'), name('b')])
  t.is(stored(directory).layers.length, 1)
})

for (const [what, options] of [
  ['a prune', {}],
  ['a prune of all', { all: true }],
  ['a prune to a limit', { all: true, keepStorage: 0 }],
] as const)
  test(`${what} spares what got a name meanwhile`, async (t) => {
    const { directory, one, name } = await scene(t, 'a', 'b')
    await one.images.tag(name('b'), name('a'))
    const other = 'io.containerd.image.name'
    await meanwhile(
      directory,
      async () => one.images.prune(options),
      ({ manifests }) =>
        manifests.map((entry) =>
          entry.annotations?.[other] === undefined
            ? {
                ...entry,
                annotations: { 'org.opencontainers.image.ref.name': name('new'), [other]: name('new') },
              }
            : entry,
        ),
    )
    const names = await namesOf(one)
    t.true(names.includes(name('new')), names.join(' '))
    t.true((await one.images.verify(name('new'))).every(({ isWhole }) => isWhole))
  })

test('a push does not undo what became of its name meanwhile', async (t) => {
  const { registry, one, name } = await scene(t, 'a', 'b')
  const other = await one.images.get(name('b'))
  let act = async (): Promise<unknown> => one.images.tag(name('b'), name('a'))
  registry.fault = async ({ method, url }) => {
    if (method === 'PUT' && url.includes('/manifests/')) await act()
    return false
  }
  await one.images.push(name('a'))
  t.is((await one.images.get(name('a'))).id, other.id)
  act = async () => one.images.remove(name('a'))
  await one.images.push(name('a'))
  t.deepEqual(await namesOf(one), [name('b')])
  act = async () => undefined
  await one.images.tag(name('b'), name('c'))
  await one.images.push(name('c'))
  t.true((await one.images.get(name('c'))).repoDigests.length > 0)
})
