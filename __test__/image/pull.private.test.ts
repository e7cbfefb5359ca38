/** Pulls whose processes are killed in the middle: what came is used. At any moment: kills.private.test.ts. */
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import test from 'ava'
import * as layouts from './layouts.ts'
import {
  arrived,
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
import { engine, scratch } from './store.ts'

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
