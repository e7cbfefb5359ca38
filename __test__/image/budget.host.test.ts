/** A store that is to take no more than so much: what goes after a pull, and what stays. */
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import test from 'ava'
import type { ExecutionContext } from 'ava'
import { Engine } from '../../src/container/engine.ts'
import * as layouts from './layouts.ts'
import { hold, layerOf, noise, publish, registryOf, stored, whole } from './published.ts'
import { engine, held, scratch } from './store.ts'

const base = layouts.busybox()
/** A little more than what one image takes of its own: its layer, and that as a blob. */
const one = 2.1 * 300_000
/** What all share, and three images. */
const shared = 2 * base.length

interface Scene {
  directory: string
  host: string
  /** An engine of the same store with this limit. */
  limited: (storeLimit?: number | string) => Engine
  names: (from: Engine) => Promise<string[]>
  registry: Awaited<ReturnType<typeof registryOf>>
}

async function scene(t: ExecutionContext, tags: readonly string[]): Promise<Scene> {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  for (const [at, tag] of tags.entries())
    publish(
      registry,
      directory,
      { layers: [base, layouts.tar([{ name: 'n', content: noise(300_000, at) }])] },
      tag,
    )
  return {
    directory,
    host: `${registry.host}/app`,
    registry,
    limited: (storeLimit) => {
      const made = new Engine({
        root: join(directory, 'data'),
        runRoot: join(directory, 'run'),
        ...(storeLimit !== undefined && { storeLimit }),
      })
      t.teardown(() => made.close())
      return made
    },
    names: async (from) =>
      (await from.images.list())
        .flatMap(({ names }) => names)
        .map((name) => name.split(':').at(-1) ?? '')
        .toSorted(),
  }
}

/** Times of use are told apart. */
async function pullAll(from: Engine, host: string, ...tags: string[]): Promise<void> {
  for (const tag of tags) {
    await from.pull(`${host}:${tag}`)
    await sleep(20)
  }
}

test('without a limit nothing goes; with one what was not used for longest goes after a pull', async (t) => {
  const { directory, host, limited, names } = await scene(t, ['a', 'b', 'c', 'd', 'e'])
  const free = engine(t, directory)
  await pullAll(free, host, 'a', 'b', 'c')
  t.deepEqual(await names(free), ['a', 'b', 'c'])
  const tight = limited(shared + 3 * one)
  // Used by a run, the second time by what is remembered; then by a name, by a pull of what is here.
  await sleep(150)
  for (const tag of ['a', 'b', 'c', 'a']) {
    await free.run(`${host}:${tag}`, ['true'])
    await sleep(20)
  }
  await pullAll(tight, host, 'd')
  t.deepEqual(await names(tight), ['a', 'c', 'd'])
  await tight.images.tag(`${host}:c`, 'mine:c2')
  await sleep(20)
  await pullAll(tight, host, 'a', 'e')
  t.deepEqual(await names(tight), ['a', 'c', 'c2', 'e'])
  t.notThrows(() => whole(directory))
  t.like(held(directory), { layers: 4, facts: 3 })
  const { layers, blobs } = await tight.images.usage()
  t.true(layers.bytes + blobs.bytes <= shared + 3 * one)
  t.is((await tight.run(`${host}:a`, ['echo', 'x'], { pull: 'never' })).stdout, 'x\n')
  // A run that pulls is a pull.
  t.is((await tight.run(`${host}:b`, ['echo', 'x'])).stdout, 'x\n')
  t.deepEqual(await names(tight), ['a', 'b', 'e'])
})

test('what is run by its id is used; a commit is brought within the limit, too', async (t) => {
  const { directory, host, limited, names } = await scene(t, ['a', 'b', 'c'])
  const free = engine(t, directory)
  await pullAll(free, host, 'a', 'b')
  const { id } = await free.images.get(`${host}:a`)
  await free.run(id, ['true'])
  await sleep(20)
  const tight = limited(shared + 2 * one)
  await pullAll(tight, host, 'c')
  t.deepEqual(await names(tight), ['a', 'c'])
  const container = await tight.start(`${host}:c`, [
    'sh',
    '-c',
    'head -c 300000 /dev/urandom >/new; echo; sleep 1000',
  ])
  for await (const _ of container.main.stdout?.lines() ?? []) break
  // What it is made of stays, and what was made, though nobody has run it.
  await container.commit({ reference: 'made:1' })
  t.deepEqual(await names(tight), ['1', 'c'])
  await container.stop({ timeout: 0 })
  const none = limited(0)
  const next = await none.start('made:1', ['sleep', '1000'])
  await next.commit({ reference: 'made:2' })
  t.deepEqual(await names(none), ['1', '2'])
  await next.stop({ timeout: 0 })
  t.is((await tight.run('made:1', ['stat', '-c', '%s', '/new'], { pull: 'never' })).stdout, '300000\n')
})

test('the image that was pulled stays, however large, and what a container uses, and what somebody pulls', async (t) => {
  const { directory, host, limited, names, registry } = await scene(t, ['a', 'b', 'c'])
  const tight = limited(0)
  await pullAll(tight, host, 'a')
  t.deepEqual(await names(tight), ['a'])
  const container = await engine(t, directory).start(`${host}:a`, ['sleep', '1000'])
  await pullAll(tight, host, 'b')
  t.deepEqual(await names(tight), ['a', 'b'])
  await container.stop({ timeout: 0 })
  // Another program pulls, and may build on anything.
  const slow = publish(
    registry,
    directory,
    { layers: [layouts.tar([{ name: 's', content: noise(50_000, 9) }])] },
    's',
  )
  const { reached, release } = hold(registry, layerOf(slow, 0), 1000)
  const pulling = engine(t, directory).pull(`${host}:s`)
  await reached
  await pullAll(tight, host, 'c')
  t.deepEqual(await names(tight), ['a', 'b', 'c'])
  release()
  await pulling
  await pullAll(tight, host, 's')
  t.deepEqual(await names(tight), ['s'])
  t.is(stored(directory).layers.length, 1)
  t.notThrows(() => whole(directory))
})

test('prune with keepStorage: the dangling, with all also the named, no more than must', async (t) => {
  const { directory, host, limited, names, registry } = await scene(t, ['a', 'b', 'c'])
  const free = limited()
  await pullAll(free, host, 'a', 'b')
  // `a` moves: what it was dangles.
  publish(
    registry,
    directory,
    { layers: [base, layouts.tar([{ name: 'n', content: noise(300_000, 7) }])] },
    'a',
  )
  await pullAll(free, host, 'a', 'c')
  t.is((await free.images.list()).length, 4)
  t.like(await free.images.prune({ keepStorage: shared + 4 * one }), { deleted: [], reclaimed: 0 })
  t.is((await free.images.prune({ keepStorage: shared + one })).deleted.length, 1)
  t.deepEqual(await names(free), ['a', 'b', 'c'])
  t.deepEqual(
    (await free.images.prune({ all: true, keepStorage: `${Math.ceil(shared + 2 * one)}b` })).untagged,
    [`${host}:b`],
  )
  t.deepEqual(await names(free), ['a', 'c'])
  t.like(await t.throwsAsync(free.images.prune({ keepStorage: 'much' })), {
    code: 'ERR_INVALID_OPTION',
    subject: 'keepStorage',
  })
  t.like(await t.throwsAsync(free.images.prune({ keepStorage: 1, blobs: true })), { subject: 'keepStorage' })
})

test('bad limits are refused by name; the variable and the command line', async (t) => {
  const { directory, host, names } = await scene(t, ['a', 'b', 'c'])
  for (const storeLimit of ['much', -1, '-1', 1.5, true as unknown as number])
    t.like(
      t.throws(() => new Engine({ root: join(directory, 'data'), storeLimit })),
      { code: 'ERR_INVALID_OPTION', subject: 'storeLimit' },
      String(storeLimit),
    )
  const free = engine(t, directory)
  await pullAll(free, host, 'a', 'b')
  const caisson = (words: string[], env: NodeJS.ProcessEnv = {}) => {
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      ['src/cli/main.ts', ...words, '--root', join(directory, 'data')],
      {
        encoding: 'utf8',
        env: { ...process.env, ...env },
      },
    )
    return { status, stdout, stderr }
  }
  // The registry is in this process.
  t.is(caisson(['image', 'prune', '-af', '--keep-storage', String(Math.ceil(shared + one))]).status, 0)
  t.deepEqual(await names(free), ['b'])
  t.like(caisson(['image', 'prune', '-f', '--keep-storage', 'much']), { status: 125 })
  t.regex(caisson(['pull', 'x', '--store-limit', 'much']).stderr, /--store-limit: 'much' is not a size/)
  t.regex(
    caisson(['images'], { CAISSON_STORE_LIMIT: 'much' }).stderr,
    /CAISSON_STORE_LIMIT: 'much' is not a size/,
  )
  process.env.CAISSON_STORE_LIMIT = String(Math.ceil(shared + one))
  t.teardown(() => delete process.env.CAISSON_STORE_LIMIT)
  await pullAll(engine(t, directory), host, 'c')
  t.deepEqual(await names(free), ['c'])
})
