/** Pulls whose processes are killed at any moment: the store stays whole, and what came is used. */
import { once } from 'node:events'
import { existsSync, rmSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import test from 'ava'
import type { FakeRegistry } from '../registry/server.ts'
import * as layouts from './layouts.ts'
import {
  arrived,
  begin,
  hold,
  layerOf,
  named,
  noise,
  offsetOf,
  parentOf,
  program,
  publish,
  registryOf,
  stored,
  unpackers,
  until,
  wants,
  whole,
} from './published.ts'
import { engine, scratch, shimsAreGone } from './store.ts'

const base = layouts.busybox()
const half = 1 << 20
const options: layouts.ImageOptions = {
  layers: [base, layouts.tar([{ name: 'noise', content: noise(2 * half) }])],
}

async function ended(pid: number): Promise<void> {
  await until(() => !existsSync(`/proc/${pid}`), `the end of ${pid}`)
}

for (const victim of ['Node', 'the shim', 'the unpacker', 'Node and its shim'] as const) {
  test(`${victim} is killed in the middle of a pull: the next one goes on`, async (t) => {
    const directory = scratch(t)
    const registry = await registryOf(t, directory)
    const written = publish(registry, directory, options)
    const [image, digest] = [`${registry.host}/app`, layerOf(written, 1)]
    const { release } = hold(registry, digest, half)
    const child = program(directory, `await engine.pull('${image}')`)
    await until(
      () => arrived(directory, digest) === half && stored(directory).layers.length === 1,
      'half of it',
    )
    // That of the other layer ends a moment after its layer is in place.
    await until(() => unpackers().length === 1, 'the end of the other unpacker')
    const [unpacker = 0] = unpackers()
    const shim = parentOf(unpacker)
    if (victim === 'the unpacker') process.kill(unpacker, 'SIGKILL')
    if (victim.includes('Node')) child.kill('SIGKILL')
    if (victim.includes('shim')) process.kill(shim, 'SIGKILL')
    const [status] = (await once(child, 'exit')) as [number | null]
    t.is(status, victim.includes('Node') ? null : 1)
    await ended(unpacker)
    t.notThrows(() => whole(directory))
    t.deepEqual(named(directory), [])
    t.is(arrived(directory, digest), half)
    release()
    const one = engine(t, directory)
    t.is((await one.run(image, ['ls', '/noise'])).stdout, '/noise\n')
    const asked = registry.seen.filter((seen) => wants(seen, digest)).map(offsetOf)
    t.is(asked.at(-1), half)
    await until(() => stored(directory).unpacking.length === 0, 'what was being unpacked')
    t.deepEqual(stored(directory).ingest, [])
    t.notThrows(() => whole(directory))
  })
}

/** Numbers that look random, the same each time (mulberry32). */
function random(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** Sends blobs in small pieces, so that a pull takes a while. */
function slowly(registry: FakeRegistry): void {
  registry.fault = async (seen, response) => {
    const digest = /\/blobs\/(sha256:.*)$/.exec(seen.url)?.[1]
    if (seen.method !== 'GET' || digest === undefined || !registry.blobs.has(digest)) return false
    const rest = begin(registry, seen, response, digest)
    for (let at = 0; at < rest.length && !response.destroyed; at += 65_536) {
      response.write(rest.subarray(at, at + 65_536))
      await sleep(4)
    }
    response.end()
    return true
  }
}

const kills = Number(process.env.CAISSON_KILLS ?? 30)
const seed = Number(process.env.CAISSON_SEED ?? 1)

test(`${kills} kills at any moment of pulls of three images that share layers`, async (t) => {
  t.timeout(60_000 + kills * 2000)
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const part = (name: string, at: number): Buffer =>
    layouts.tar([
      { name: `d/${name}`, content: name },
      { name: `d/${name}-noise`, content: noise(700_000, at) },
    ])
  const [a, b, c] = [part('a', 1), part('b', 2), part('c', 3)]
  const images = {
    ab: [base, a, b],
    bca: [base, b, c, a],
    cab: [c, a, base, b],
  }
  for (const [tag, layers] of Object.entries(images))
    publish(registry, directory, { layers, compress: tag === 'ab' }, tag)
  slowly(registry)
  const next = random(seed)
  const tags = Object.keys(images)
  const body = tags.map((tag) => `engine.pull('${registry.host}/app:${tag}')`).join(', ')
  let finished = 0
  for (let kill = 0; kill < kills; kill += 1) {
    const child = program(directory, `console.log('begun')\nawait Promise.all([${body}])`)
    const exit = once(child, 'exit')
    if (child.stdout !== null) await Promise.race([once(child.stdout, 'data'), exit])
    await sleep(next() * 400)
    const [unpacker] = unpackers()
    const both = next() < 0.3
    const one = next() < 0.2
    try {
      if (one && unpacker !== undefined) process.kill(unpacker, 'SIGKILL')
      else {
        const shim = unpacker === undefined ? undefined : parentOf(unpacker)
        child.kill('SIGKILL')
        if (both && shim !== undefined && shim > 1) process.kill(shim, 'SIGKILL')
      }
    } catch {
      // It ended by itself.
    }
    const [status] = (await exit) as [number | null]
    if (status === 0) finished += 1
    t.notThrows(() => whole(directory), `after kill ${kill} of seed ${seed}`)
    // Begin anew now and then, so that there is something to pull.
    if (named(directory).length === tags.length) {
      await shimsAreGone(directory)
      rmSync(`${directory}/data`, { recursive: true, force: true })
    }
  }
  t.log(`${finished} of ${kills} pulls were over before`)
  const last = engine(t, directory)
  for (const tag of tags) {
    const { stdout } = await last.run(`${registry.host}/app:${tag}`, ['sh', '-c', 'cd d; cat a b; ls | cat'])
    t.is(stdout.startsWith('ab'), true, stdout)
  }
  t.notThrows(() => whole(directory))
  await until(() => stored(directory).unpacking.length === 0, 'what was being unpacked')
  t.deepEqual(stored(directory).ingest, [])
})
