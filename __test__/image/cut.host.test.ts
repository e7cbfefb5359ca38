/** Lines that are cut, registries that know no ranges, beginnings of blobs that went bad: no byte comes twice for nothing. */
import { openSync, writeSync, closeSync } from 'node:fs'
import type { ServerResponse } from 'node:http'
import { join } from 'node:path'
import test from 'ava'
import type { FakeRegistry, Seen } from '../registry/server.ts'
import * as layouts from './layouts.ts'
import {
  arrived,
  begin,
  hold,
  layerOf,
  noise,
  offsetOf,
  publish,
  registryOf,
  requests,
  stored,
  until,
  wants,
  whole,
} from './published.ts'
import { engine, scratch } from './store.ts'

const size = 2 << 20
const options: layouts.ImageOptions = {
  layers: [layouts.busybox(), layouts.tar([{ name: 'noise', content: noise(size) }])],
}
const sum = ['sh', '-c', 'ls -l /noise']

/** Sends at most `most` bytes of a blob at a time, then ends the connection; counts what was sent. */
function cutting(registry: FakeRegistry, digest: string, most: number, times: number): { sent: number } {
  const count = { sent: 0 }
  let left = times
  registry.fault = async (seen: Seen, response: ServerResponse) => {
    if (!wants(seen, digest)) return false
    const rest = begin(registry, seen, response, digest)
    left -= 1
    const part = left >= 0 ? rest.subarray(0, most) : rest
    count.sent += part.length
    if (part.length === rest.length) response.end(part)
    else {
      await new Promise((resolve) => {
        response.write(part, resolve)
      })
      response.socket?.destroySoon()
    }
    return true
  }
  return count
}

test('a line that is cut again and again: what came is not asked for again', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const written = publish(registry, directory, options)
  const blob = written.layers[1]?.size ?? 0
  const count = cutting(registry, layerOf(written, 1), 300_000, 6)
  t.true((await engine(t, directory).run(`${registry.host}/app`, sum)).stdout.includes(`${size}`))
  t.is(requests(registry, layerOf(written, 1)), 7)
  t.true(count.sent <= blob * 1.1, `${count.sent} of ${blob}`)
  t.notThrows(() => whole(directory))
})

test('a registry that knows no ranges sends all of it again, and it is right', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  registry.ranges = false
  const written = publish(registry, directory, options)
  cutting(registry, layerOf(written, 1), 900_000, 1)
  t.true((await engine(t, directory).run(`${registry.host}/app`, sum)).stdout.includes(`${size}`))
  const asked = registry.seen.filter((seen) => wants(seen, layerOf(written, 1)))
  t.is(asked.length, 2)
  t.true(asked[1] !== undefined && offsetOf(asked[1]) > 0)
  t.notThrows(() => whole(directory))
})

test('a line that is cut at once each time is given up; the next pull goes on from what came', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const written = publish(registry, directory, options)
  const blob = written.layers[1]?.size ?? 0
  const digest = layerOf(written, 1)
  registry.fault = async (seen, response) => {
    if (!wants(seen, digest)) return false
    const rest = begin(registry, seen, response, digest)
    const part = rest.subarray(0, offsetOf(seen) === 0 ? 1 << 20 : 0)
    await new Promise((resolve) => {
      if (part.length > 0) response.write(part, resolve)
      else {
        response.flushHeaders()
        setTimeout(resolve, 5)
      }
    })
    response.socket?.destroySoon()
    return true
  }
  const one = engine(t, directory)
  const error = await t.throwsAsync(one.pull(`${registry.host}/app`))
  t.like(error, { code: 'ERR_REGISTRY' })
  t.regex(error.message, /the next pull goes on from there/)
  t.is(arrived(directory, digest), 1 << 20)
  t.deepEqual(stored(directory).unpacking, [])
  const count = cutting(registry, digest, blob, 0)
  t.true((await one.run(`${registry.host}/app`, sum)).stdout.includes(`${size}`))
  t.is(count.sent, blob - (1 << 20))
})

test('a beginning that was damaged on the disk is found, removed, and comes anew in the same pull', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const written = publish(registry, directory, options)
  const digest = layerOf(written, 1)
  const one = engine(t, directory)
  const abort = new AbortController()
  const { reached, release } = hold(registry, digest, 1 << 20)
  const pull = one.pull(`${registry.host}/app`, { signal: abort.signal })
  await reached
  await until(() => arrived(directory, digest) === 1 << 20, 'half of the layer')
  abort.abort(new Error('enough'))
  await t.throwsAsync(pull, { message: 'enough' })
  const file = openSync(join(directory, 'data/ingest', digest.slice('sha256:'.length)), 'r+')
  writeSync(file, 'damaged', 500_000)
  closeSync(file)
  release()
  const before = registry.seen.length
  await one.pull(`${registry.host}/app`)
  const asked = registry.seen.slice(before).filter((seen) => wants(seen, digest))
  t.deepEqual(asked.map(offsetOf), [1 << 20, 0])
  t.deepEqual(stored(directory).ingest, [])
  t.true((await one.run(`${registry.host}/app`, sum)).stdout.includes(`${size}`))
  t.notThrows(() => whole(directory))
})

test('a blob that was damaged in the store comes anew in the pull that meets it', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const written = publish(registry, directory, options)
  const digest = layerOf(written, 1)
  const one = engine(t, directory)
  await one.pull(`${registry.host}/app`)
  const file = openSync(layouts.path(join(directory, 'data/images'), digest), 'r+')
  writeSync(file, 'damaged', 500_000)
  closeSync(file)
  // Another image with the same blob on another layer.
  publish(
    registry,
    directory,
    { layers: [layouts.busybox({ name: 'x' }), options.layers[1] ?? Buffer.of()] },
    'other',
  )
  t.true((await one.run(`${registry.host}/app:other`, sum)).stdout.includes(`${size}`))
  t.is(requests(registry, digest), 2)
  t.notThrows(() => whole(directory))
})
