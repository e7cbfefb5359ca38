/** What cut lines cost: a pull that is cut twenty times gets at most a tenth more bytes than one that is not. */
import type { ServerResponse } from 'node:http'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import test from 'ava'
import { configure } from '../registry/scene.ts'
import type { FakeRegistry, Seen } from '../registry/server.ts'
import * as layouts from './layouts.ts'
import { begin, noise, publish, registryOf, stored, whole } from './published.ts'
import { random } from './random.ts'
import { engine, scratch } from './store.ts'

/** How a line ends: at once, what is on its way lost; in order; or it says nothing any more. */
const kinds = ['RST', 'FIN', 'stall'] as const

const mostCuts = 20
const piece = 64 << 10
const seed = Number(process.env.CAISSON_SEED ?? 1)

/** What a registry sent of blobs, and how often it cut a line. */
interface Cost {
  bytes: number
  cuts: number
}

async function cut(kind: (typeof kinds)[number], response: ServerResponse): Promise<void> {
  const { socket } = response
  if (kind === 'RST') socket?.resetAndDestroy()
  else if (kind === 'FIN') socket?.destroySoon()
  else if (socket !== null && !socket.destroyed) await new Promise((resolve) => socket.once('close', resolve))
}

/** Sends blobs as a line does that is slower than who reads, and cuts it `cuts` times, at moments that look random. */
function unreliable(registry: FakeRegistry, total: number, cuts: number, next: () => number): Cost {
  const cost: Cost = { bytes: 0, cuts: 0 }
  // After so many bytes in all: somewhere in each of as many parts.
  const moments = Array.from({ length: cuts }, (_, at) => ((at + next()) * total) / cuts)
  registry.fault = async (seen: Seen, response) => {
    const digest = /\/blobs\/(sha256:.*)$/.exec(seen.url)?.[1]
    if (seen.method !== 'GET' || digest === undefined || !registry.blobs.has(digest)) return false
    const rest = begin(registry, seen, response, digest)
    for (let at = 0; at < rest.length && !response.destroyed; at += piece) {
      const part = rest.subarray(at, at + piece)
      cost.bytes += part.length
      await new Promise((resolve) => {
        response.write(part, resolve)
      })
      if (cost.bytes > (moments[cost.cuts] ?? Infinity)) {
        const kind = kinds[Math.floor(next() * kinds.length)] ?? 'RST'
        cost.cuts += 1
        // What was just sent is on its way.
        await cut(kind, response)
        return true
      }
      await sleep(1)
    }
    response.end()
    return true
  }
  return cost
}

test(`a pull that is cut ${mostCuts} times: at most 1.1 times the bytes`, async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const registries = { [registry.host]: { idle: 0.3 } }
  process.env.CAISSON_REGISTRIES = configure(directory, 'idle.json', { registries })
  const layers = [1, 2, 3].map((at) => layouts.tar([{ name: `noise-${at}`, content: noise(8 << 20, at) }]))
  const written = publish(registry, directory, { layers: [layouts.busybox(), ...layers], compress: true })
  const total = written.layers.reduce((sum, { size }) => sum + size, 0)
  const pulled = async (below: string, cuts: number): Promise<Cost> => {
    const cost = unreliable(registry, total, cuts, random(seed))
    await engine(t, below).pull(`${registry.host}/app`)
    t.notThrows(() => whole(below))
    t.deepEqual(stored(below).ingest, [])
    return cost
  }
  const calm = await pulled(join(directory, 'calm'), 0)
  const torn = await pulled(join(directory, 'torn'), mostCuts)
  t.is(torn.cuts, mostCuts)
  t.is(calm.bytes, total + written.config.size)
  const ratio = torn.bytes / calm.bytes
  t.log(`${torn.bytes} bytes against ${calm.bytes}: ${ratio.toFixed(4)} times`)
  t.true(ratio <= 1.1, `${ratio} of seed ${seed}`)
})
