/** Nothing outlives the program: workers, exits, many at once. */
import { spawn, spawnSync } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'
import test from 'ava'
import { hasGroups } from '../host/ground.ts'
import { rootfs, scale, scene } from './scene.ts'

const api = new URL('../../src/index.ts', import.meta.url).href

/** A program of its own: `engine` and `rootfs` are there. */
function program(root: string, body: string): string {
  return `
    import { Engine } from '${api}'
    const engine = new Engine({ root: ${JSON.stringify(root)} })
    const rootfs = ${JSON.stringify(rootfs)}
    const run = (words, options) => engine.run({ rootfs }, words, options)
    ${body}
  `
}

function node(text: string): ChildProcess {
  return spawn(process.execPath, ['--input-type=module-typescript', '-e', text], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
}

test('a program that only awaits a run stays alive for it, and ends after it', async (t) => {
  const { root } = await scene(t)
  const { stdout, status } = spawnSync(
    process.execPath,
    [
      '--input-type=module-typescript',
      '-e',
      program(root, "console.log((await run(['sh', '-c', 'sleep .3; echo late'])).stdout)"),
    ],
    { encoding: 'utf8', timeout: 20_000 },
  )
  t.is(stdout, 'late\n\n')
  t.is(status, 0)
})

test('process.exit with ten running', async (t) => {
  const { root } = await scene(t)
  const body = `
    const runs = Array.from({ length: 10 }, () => run(['sleep', '60']))
    for (const one of runs) one.catch(() => {})
    await Promise.all(runs.map((one) => one.started))
    process.exit(3)
  `
  const [status] = (await once(node(program(root, body)), 'exit')) as [number]
  t.is(status, 3)
})

test('process.exit in the tick of the calls', async (t) => {
  const { root } = await scene(t)
  const body = "for (let n = 0; n < 10; n += 1) run(['sleep', '60']).catch(() => {}); process.exit(4)"
  const [status] = (await once(node(program(root, body)), 'exit')) as [number]
  t.is(status, 4)
})

test('an uncaught exception', async (t) => {
  const { root } = await scene(t)
  const body = "const p = run(['sleep', '60']); await p.started; throw new Error('oops')"
  const child = spawn(process.execPath, ['--input-type=module-typescript', '-e', program(root, body)], {
    stdio: 'ignore',
  })
  const [status] = (await once(child, 'exit')) as [number]
  t.is(status, 1)
})

test('SIGTERM of the program', async (t) => {
  const { root } = await scene(t)
  const child = node(
    program(root, "const p = run(['sleep', '60']); await p.started; console.log('up'); await p"),
  )
  if (child.stdout !== null) await once(child.stdout, 'data')
  child.kill('SIGTERM')
  const [, signal] = (await once(child, 'exit')) as [number, string]
  t.is(signal, 'SIGTERM')
})

test('a hundred at once', async (t) => {
  const { sh } = await scene(t)
  const results = await Promise.all(Array.from({ length: 100 }, async (_, n) => sh(`echo ${n}; exit ${n}`)))
  t.deepEqual(
    results.map(({ exitCode, stdout }) => [exitCode, stdout]),
    results.map((_, n) => [n, `${n}\n`]),
  )
  if (hasGroups) t.is(new Set(results.map(({ isolation }) => isolation.cgroup)).size, 100)
})

test('a thousand, twenty at a time', async (t) => {
  const { run } = await scene(t)
  let left = 1000 / scale
  const lane = async (): Promise<void> => {
    while (left > 0) {
      left -= 1
      t.is((await run(['true'])).exitCode, 0)
    }
  }
  await Promise.all(Array.from({ length: 20 }, lane))
})

test('two workers and the main thread at once, each with its own shim', async (t) => {
  const { root, run } = await scene(t)
  const body = `
    import { parentPort } from 'node:worker_threads'
    const codes = await Promise.all(Array.from({ length: 10 }, (_, n) => run(['sh', '-c', 'exit ' + n])))
    parentPort.postMessage(codes.map(({ exitCode }) => exitCode))
    await engine.close()
  `
  const worker = (): Worker =>
    new Worker(new URL(`data:text/javascript,${encodeURIComponent(program(root, body))}`))
  const workers = [worker(), worker()]
  const codes = await Promise.all(workers.map(async (one) => (await once(one, 'message')) as [number[]]))
  for (const [list] of codes) t.deepEqual(list, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
  t.is((await run(['sh', '-c', 'exit 11'])).exitCode, 11)
  await Promise.all(workers.map((one) => one.terminate()))
})

test('a worker that is terminated in the middle of its launches', async (t) => {
  const { root, run } = await scene(t)
  const body = `
    import { parentPort } from 'node:worker_threads'
    parentPort.postMessage('up')
    for (;;) {
      const p = run(['sleep', '60'])
      p.catch(() => {})
      await Promise.race([p.started, new Promise((resolve) => setTimeout(resolve, 3))])
      parentPort.postMessage('one')
    }
  `
  const url = new URL(`data:text/javascript,${encodeURIComponent(program(root, body))}`)
  for (let round = 0; round < 50 / scale; round += 1) {
    const worker = new Worker(url)
    await once(worker, 'message')
    await sleep((round % 10) * 2)
    await worker.terminate()
  }
  t.is((await run(['true'])).exitCode, 0)
})

test('a worker may end by itself with a container running', async (t) => {
  const { root, run } = await scene(t)
  const body = "const p = run(['sleep', '60']); p.catch(() => {}); await p.started; process.exit(0)"
  const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(program(root, body))}`))
  await once(worker, 'exit')
  t.is((await run(['true'])).exitCode, 0)
})

test('a burst is a queue, and what is asked behind it comes through', async (t) => {
  const { engine, run } = await scene(t)
  const long = engine.run({ rootfs }, ['sleep', '600'])
  const aborted = new AbortController()
  const other = engine.run({ rootfs }, ['sleep', '600'], { signal: aborted.signal })
  await Promise.all([long.started, other.started])
  const burst = Array.from({ length: 600 / scale }, () => run(['true']))
  t.true(long.kill('SIGKILL'))
  aborted.abort()
  const results = await Promise.all(burst)
  t.true(results.every(({ exitCode }) => exitCode === 0))
  t.deepEqual([(await long).cause, (await other).cause], ['killed', 'aborted'])
})
