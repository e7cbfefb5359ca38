/** Unpackings that are ended, or meet each other: the next run works, and nothing of them stays. */
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import test from 'ava'
import * as layouts from './layouts.ts'
import { empty, engine, held, scratch } from './store.ts'

const files = 20_000
/** Takes long enough to be met in the middle: tens of thousands of files. */
const large = layouts.tar(
  Array.from({ length: files }, (_, at) => ({ name: `many/${at % 100}/${at}`, content: 'x' })),
)
const options: layouts.ImageOptions = { layers: [layouts.busybox(), large] }
const count = ['sh', '-c', 'ls -1 /many/* | grep -c "^[0-9]"']

/** The process that unpacks the large layer, once it has begun and the other layer is there. */
async function unpacker(directory: string): Promise<number> {
  const unpacking = join(directory, 'data/unpacking')
  for (let look = 0; look < 2000; look += 1) {
    const [chain] = existsSync(unpacking) ? readdirSync(unpacking) : []
    const begun = chain !== undefined && existsSync(join(unpacking, chain, 'root/many/3'))
    if (begun && held(directory).layers === 1) {
      const unpackers = readdirSync('/proc').filter((name) => {
        try {
          return readFileSync(`/proc/${name}/comm`, 'utf8') === 'caisson-unpack\n'
        } catch {
          // No process, or one that ended while we looked.
          return false
        }
      })
      // The other layer's may not have ended yet: it was started before.
      if (unpackers.length > 0) return Math.max(...unpackers.map(Number))
    }
    await sleep(2)
  }
  throw new Error('no unpacking was seen')
}

function parentOf(pid: number): number {
  return Number(/^PPid:\s+(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1])
}

/** Waits for the end of a process. */
async function ended(pid: number): Promise<void> {
  for (let look = 0; look < 2000 && existsSync(`/proc/${pid}`); look += 1) await sleep(2)
}

/** Another Node that runs the image. */
function program(directory: string): ChildProcess {
  const script = join(directory, 'program.mjs')
  const source = new URL('../../src/container/engine.ts', import.meta.url).href
  const roots = JSON.stringify({ root: join(directory, 'data'), runRoot: join(directory, 'run') })
  const call = `run('oci:${directory}', ${JSON.stringify(count)})`
  writeFileSync(
    script,
    `import { Engine } from '${source}'\nconst result = await new Engine(${roots}).${call}\nprocess.stdout.write(result.stdout)\n`,
  )
  return spawn(process.execPath, [script], { stdio: ['ignore', 'pipe', 'inherit'] })
}

test('Node is killed in the middle', async (t) => {
  const directory = scratch(t)
  layouts.layout(directory, options)
  const child = program(directory)
  await unpacker(directory)
  child.kill('SIGKILL')
  await once(child, 'exit')
  // The shim outlives it for as long as it takes to clean up.
  for (let look = 0; look < 500 && held(directory).unpacking !== 0; look += 1) await sleep(10)
  t.deepEqual(held(directory), { ...empty, layers: 1 })
  t.is((await engine(t, directory).run(`oci:${directory}`, count)).stdout, `${files}\n`)
})

for (const victim of ['the unpacker', 'the shim', 'Node and its shim'] as const) {
  test(`${victim} is killed in the middle`, async (t) => {
    const directory = scratch(t)
    layouts.layout(directory, options)
    if (victim === 'Node and its shim') {
      const child = program(directory)
      const pid = await unpacker(directory)
      const shim = parentOf(pid)
      child.kill('SIGKILL')
      process.kill(shim, 'SIGKILL')
      await once(child, 'exit')
      // An unpacker does not outlive its shim: it could not have finished.
      await ended(pid)
      t.deepEqual(held(directory), { ...empty, layers: 1, unpacking: 1 })
    } else {
      const one = engine(t, directory)
      const run = one.run(`oci:${directory}`, count)
      const pid = await unpacker(directory)
      process.kill(victim === 'the shim' ? parentOf(pid) : pid, 'SIGKILL')
      t.like(await t.throwsAsync(run), { code: victim === 'the shim' ? 'ERR_SHIM_LOST' : 'ERR_ARCHIVE' })
      // Its lock goes with it; who cleans before that leaves it to the next.
      await ended(pid)
      t.is(held(directory).unpacking, victim === 'the shim' ? 1 : 0)
    }
    // Whatever is run next cleans: another image, here.
    const other = join(directory, 'other')
    layouts.layout(other, { layers: [layouts.busybox()] })
    const next = engine(t, directory)
    t.is((await next.run(`oci:${other}`, ['echo', 'ran'])).stdout, 'ran\n')
    for (let look = 0; look < 500 && held(directory).unpacking !== 0; look += 1) await sleep(10)
    t.is(held(directory).unpacking, 0)
    t.is((await next.run(`oci:${directory}`, count)).stdout, `${files}\n`)
  })
}

test('the run that unpacks a layer again begins with what a crash left of it', async (t) => {
  const directory = scratch(t)
  layouts.layout(directory, options)
  const child = program(directory)
  const shim = parentOf(await unpacker(directory))
  child.kill('SIGKILL')
  process.kill(shim, 'SIGKILL')
  await once(child, 'exit')
  t.is((await engine(t, directory).run(`oci:${directory}`, count)).stdout, `${files}\n`)
  t.like(held(directory), { layers: 2, unpacking: 0 })
})

test('two programs and many runs at once unpack an image once', async (t) => {
  const directory = scratch(t)
  layouts.layout(directory, options)
  const child = program(directory)
  const [first, second] = [engine(t, directory), engine(t, directory)]
  const runs = [first, first, first, second, second].map((one) => one.run(`oci:${directory}`, count))
  let printed = ''
  child.stdout?.on('data', (chunk: Buffer) => (printed += chunk.toString()))
  const [status] = (await once(child, 'close')) as [number]
  t.is(status, 0)
  t.is(printed, `${files}\n`)
  for (const { stdout } of await Promise.all(runs)) t.is(stdout, `${files}\n`)
  t.like(held(directory), { layers: 2, unpacking: 0 })
})

test('an abort ends the unpacking, with the caller’s reason', async (t) => {
  const directory = scratch(t)
  layouts.layout(directory, options)
  const one = engine(t, directory)
  const abort = new AbortController()
  const run = one.run(`oci:${directory}`, count, { signal: abort.signal })
  await unpacker(directory)
  abort.abort(new Error('enough'))
  t.is((await t.throwsAsync(run)).message, 'enough')
  t.deepEqual(held(directory), { ...empty, layers: 1 })
  t.is((await one.run(`oci:${directory}`, count)).stdout, `${files}\n`)
})

test('a kill before the command runs ends the unpacking too', async (t) => {
  const directory = scratch(t)
  layouts.layout(directory, options)
  const run = engine(t, directory).run(`oci:${directory}`, count)
  await unpacker(directory)
  t.true(run.kill())
  t.like(await t.throwsAsync(run), { code: 'ERR_NOT_RUNNING' })
  t.deepEqual(held(directory), { ...empty, layers: 1 })
})

test('of two that wait for an image one may leave', async (t) => {
  const directory = scratch(t)
  layouts.layout(directory, options)
  const one = engine(t, directory)
  const abort = new AbortController()
  const leaving = one.run(`oci:${directory}`, count, { signal: abort.signal })
  const staying = one.run(`oci:${directory}`, count)
  await unpacker(directory)
  abort.abort(new Error('enough'))
  t.is((await t.throwsAsync(leaving)).message, 'enough')
  t.is((await staying).stdout, `${files}\n`)
})
