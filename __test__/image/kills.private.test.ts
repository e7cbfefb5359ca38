/** Pulls whose processes are killed at any moment: the store is whole after each, and what came is used. */
import { once } from 'node:events'
import { readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import test from 'ava'
import type { FakeRegistry, Seen } from '../registry/server.ts'
import { had, judge, rightOf } from './judged.ts'
import * as layouts from './layouts.ts'
import {
  begin,
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
} from './published.ts'
import { random } from './random.ts'
import { engine, scratch } from './store.ts'

const base = layouts.busybox()

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

/** Waits until no process of Caisson's is left: a shim outlives its program for as long as it takes to clean up. */
async function quiet(): Promise<void> {
  const running = (): boolean =>
    readdirSync('/proc').some((pid) => {
      try {
        return /^\d+$/.test(pid) && readFileSync(`/proc/${pid}/comm`, 'utf8').startsWith('caisson-')
      } catch {
        // It ended while we looked.
        return false
      }
    })
  await until(() => !running(), 'the end of the shim')
}

/** What of these requests was for bytes that were there already. */
function needless(
  seen: readonly Seen[],
  layers: ReadonlyMap<string, number>,
  there: ReturnType<typeof had>,
): string[] {
  return [...layers].flatMap(([digest, size]) => {
    const [first] = seen.filter((one) => wants(one, digest))
    const has = there.get(digest) ?? 0
    if (first === undefined) return []
    if (has === 'whole' || has >= size) return [`${digest} was there, and was asked for`]
    return offsetOf(first) === has ? [] : [`${digest} was asked for from ${offsetOf(first)} on, not ${has}`]
  })
}

const kills = Number(process.env.CAISSON_KILLS ?? 30)
const seed = Number(process.env.CAISSON_SEED ?? 1)

test(`${kills} kills at any moment of pulls of three images that share layers`, async (t) => {
  t.timeout(60_000 + kills * 4000)
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
  const layers = new Map<string, number>()
  for (const [tag, of] of Object.entries(images)) {
    const written = publish(registry, directory, { layers: of, compress: tag === 'ab' }, tag)
    for (const { digest, size } of written.layers) layers.set(digest, size)
  }
  const tags = Object.keys(images)
  const undisturbed = join(directory, 'undisturbed')
  const calm = engine(t, undisturbed)
  for (const tag of tags) await calm.pull(`${registry.host}/app:${tag}`)
  await calm.close()
  const right = rightOf(undisturbed)
  slowly(registry)
  const next = random(seed)
  const body = tags.map((tag) => `engine.pull('${registry.host}/app:${tag}')`).join(', ')
  const count = { over: 0, empty: 0, named: 0, partial: 0 }
  for (let kill = 0; kill < kills; kill += 1) {
    const at = `kill ${kill} of seed ${seed}`
    const there = had(directory)
    const before = registry.seen.length
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
    await quiet()
    t.deepEqual(needless(registry.seen.slice(before), layers, there), [], at)
    t.notThrows(() => judge(directory, right), at)
    const { blobs, ingest } = stored(directory)
    if (status === 0) count.over += 1
    if (blobs.length === 0 && ingest.length === 0) count.empty += 1
    if (named(directory).length > 0) count.named += 1
    if (ingest.length > 0) count.partial += 1
    // Begin anew now and then, so that there is something to pull.
    if (named(directory).length === tags.length) rmSync(`${directory}/data`, { recursive: true, force: true })
  }
  t.log(
    `of ${kills} pulls ${count.over} were over before; ${count.empty} left nothing, ${count.partial} a part of a blob, ${count.named} a name`,
  )
  // It happens, or the moments are no random ones. How often a name is there depends on the machine.
  t.true(count.partial > 0)
  const last = engine(t, directory)
  for (const tag of tags) {
    const { stdout } = await last.run(`${registry.host}/app:${tag}`, ['sh', '-c', 'cd d; cat a b; ls | cat'])
    t.is(stdout.startsWith('ab'), true, stdout)
  }
  t.notThrows(() => judge(directory, right))
  await until(() => stored(directory).unpacking.length === 0, 'what was being unpacked')
  t.deepEqual(stored(directory).ingest, [])
})
