/** Several that want the same at once: each blob is asked for once, and nobody waits for who waits for him. */
import { once } from 'node:events'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import test from 'ava'
import { tryLockDirectory } from '../../src/state/lock.ts'
import { refuse } from '../registry/server.ts'
import * as layouts from './layouts.ts'
import {
  arrived,
  hold,
  layerOf,
  noise,
  program,
  publish,
  registryOf,
  requests,
  stored,
  unpackers,
  until,
  wants,
  whole,
} from './published.ts'
import { empty, engine, held, scratch } from './store.ts'

const large = layouts.tar([{ name: 'noise', content: noise(1 << 20) }])
const options: layouts.ImageOptions = {
  layers: [layouts.busybox(), large, layouts.tar([{ name: 'last', content: 'x' }])],
}

test('a blob that is two layers, the upper of which is begun with first', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  // Without an entry for its directory it needs the layer below.
  const twice = layouts.tar([
    { name: 'bin/first', content: 'x' },
    { name: 'bin/noise', content: noise(3 << 20) },
  ])
  const written = publish(registry, directory, { layers: [twice, twice, layouts.busybox()] })
  const place = join(directory, 'data/unpacking', layerOf(written, 0).slice('sha256:'.length))
  mkdirSync(place, { recursive: true, mode: 0o700 })
  // As another program has it that makes the lower one.
  const lower = tryLockDirectory(place)
  t.truthy(lower)
  const run = engine(t, directory).run(`${registry.host}/app`, ['ls', '/bin/noise'], {
    signal: AbortSignal.timeout(20_000),
  })
  run.catch(() => {})
  await until(() => requests(registry, layerOf(written, 0)) > 0, 'the upper layer')
  await until(
    () => arrived(directory, layerOf(written, 0)) > 512 || stored(directory).blobs.length > 0,
    'its bytes',
  )
  await sleep(50)
  lower?.release()
  t.is((await run).stdout, '/bin/noise\n')
  t.is(requests(registry, layerOf(written, 0)), 1)
  t.notThrows(() => whole(directory))
})

test('two engines and another program pull an image: each blob comes once', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const written = publish(registry, directory, options)
  const image = `${registry.host}/app`
  const { reached, release } = hold(registry, layerOf(written, 1), 1000)
  const [first, second] = [engine(t, directory), engine(t, directory)]
  const pulls = [first.pull(image), first.pull(image), second.pull(image), second.run(image, ['true'])]
  const child = program(directory, `await engine.pull('${image}')`)
  await reached
  // All of them wait for the one who has it.
  await until(() => registry.asked(/GET .*\/manifests\//).length === 3, 'the three programs')
  await sleep(100)
  release()
  const [status] = (await once(child, 'close')) as [number]
  t.is(status, 0)
  await Promise.all(pulls)
  for (const at of [0, 1, 2]) t.is(requests(registry, layerOf(written, at)), 1, `${at}`)
  t.like(held(directory), { layers: 3, unpacking: 0 })
  t.deepEqual(stored(directory).ingest, [])
  t.notThrows(() => whole(directory))
})

test('a signal ends a pull, with its reason; what came is kept', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const written = publish(registry, directory, options)
  const image = `${registry.host}/app`
  const { reached, release } = hold(registry, layerOf(written, 1), 500_000)
  const one = engine(t, directory)
  const abort = new AbortController()
  const pull = one.pull(image, { signal: abort.signal })
  await reached
  await until(() => arrived(directory, layerOf(written, 1)) === 500_000, 'half of the layer')
  abort.abort(new Error('enough'))
  t.is((await t.throwsAsync(pull)).message, 'enough')
  t.deepEqual(unpackers(), [])
  t.deepEqual(stored(directory).unpacking, [])
  t.is(arrived(directory, layerOf(written, 1)), 500_000)
  release()
  t.is((await one.run(image, ['ls', '/last'])).stdout, '/last\n')
  const [, again] = registry.seen.filter((seen) => wants(seen, layerOf(written, 1)))
  t.is(again?.headers.range, 'bytes=500000-')
})

test('an abort while the registry says nothing', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  publish(registry, directory, options)
  const one = engine(t, directory)
  for (const kind of ['manifests', 'blobs']) {
    const abort = new AbortController()
    registry.fault = ({ url }) => {
      if (!url.includes(`/${kind}/`)) return false
      setTimeout(() => abort.abort(new Error(kind)), 20)
      return true
    }
    const pull = one.pull(`${registry.host}/app`, { signal: abort.signal })
    t.is((await t.throwsAsync(pull)).message, kind)
    t.deepEqual(held(directory), empty)
  }
})

test('of two that wait for one pull, one may leave', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const written = publish(registry, directory, options)
  const image = `${registry.host}/app`
  const { reached, release } = hold(registry, layerOf(written, 1), 1000)
  const one = engine(t, directory)
  const abort = new AbortController()
  const leaving = one.pull(image, { signal: abort.signal })
  const staying = one.pull(image)
  await reached
  abort.abort(new Error('enough'))
  t.is((await t.throwsAsync(leaving)).message, 'enough')
  release()
  await t.notThrowsAsync(staying)
  t.is(requests(registry, layerOf(written, 1)), 1)
})

test('who asks for an image that is just being given up gets it', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const written = publish(registry, directory, options)
  const image = `${registry.host}/app`
  const { reached, release } = hold(registry, layerOf(written, 1), 1000)
  const one = engine(t, directory)
  const abort = new AbortController()
  const leaving = one.pull(image, { signal: abort.signal })
  await reached
  abort.abort(new Error('enough'))
  const next = one.pull(image)
  t.is((await t.throwsAsync(leaving)).message, 'enough')
  release()
  await t.notThrowsAsync(next)
  t.notThrows(() => whole(directory))
})

test('a layer that fails ends the others, and says why', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const written = publish(registry, directory, options)
  const { release } = hold(registry, layerOf(written, 1), 1000)
  const { fault } = registry
  registry.fault = async (seen, response) => {
    if (!wants(seen, layerOf(written, 2))) return (await fault?.(seen, response)) ?? false
    await until(() => arrived(directory, layerOf(written, 1)) > 0, 'another layer')
    return refuse(response, 403, 'DENIED', 'not this one')
  }
  const one = engine(t, directory)
  const error = await t.throwsAsync(one.pull(`${registry.host}/app`))
  t.like(error, { code: 'ERR_REGISTRY_AUTH' })
  t.true(error.message.includes(layerOf(written, 2)), error.message)
  t.deepEqual(unpackers(), [])
  t.deepEqual(stored(directory).unpacking, [])
  release()
  registry.fault = undefined
  await one.pull(`${registry.host}/app`)
  t.notThrows(() => whole(directory))
})

test('two images whose layers stand on each other', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  // Each takes its directory from the other.
  const [a, b] = ['a', 'b'].map((name, at) =>
    layouts.tar([
      { name: `d/${name}`, content: 'x' },
      { name: `d/${name}-noise`, content: noise(1 << 20, at) },
    ]),
  ) as [Buffer, Buffer]
  publish(registry, directory, { layers: [a, b, layouts.busybox()] }, 'ab')
  publish(registry, directory, { layers: [b, a, layouts.busybox()] }, 'ba')
  for (let round = 0; round < 5; round += 1) {
    const below = join(directory, `${round}`)
    const runs = ['ab', 'ba', 'ab', 'ba'].map((tag) =>
      engine(t, below).run(`${registry.host}/app:${tag}`, ['ls', '/d'], {
        signal: AbortSignal.timeout(20_000),
      }),
    )
    for (const { stdout } of await Promise.all(runs)) t.is(stdout, 'a\na-noise\nb\nb-noise\n')
    t.notThrows(() => whole(below))
  }
})
