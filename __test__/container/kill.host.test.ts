/** SIGKILL of Node, of the shim, of both, at random moments: the next command finds nothing, or takes it down. */
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import test from 'ava'
import type { ExecutionContext } from 'ava'
import { Engine } from '../../src/index.ts'
import { ground, rootfs, scale, scene } from './scene.ts'
import { settled, take } from '../host/ledger.ts'
import type { Ledger } from '../host/ledger.ts'

const api = new URL('../../src/index.ts', import.meta.url).href
/** Starts that each kind of kill meets. */
const kills = Number(process.env.CAISSON_KILLS ?? 100 / scale)

/** A program that starts containers without end: short ones, long ones, ones with files to remove, with mounts. */
const program = (root: string): string => `
  import { Engine } from '${api}'
  const engine = new Engine({ root: ${JSON.stringify(root)} })
  const image = { rootfs: ${JSON.stringify(rootfs)} }
  process.on('unhandledRejection', () => {})
  const kinds = [
    () => engine.run(image, ['true']),
    () => engine.run(image, ['sh', '-c', 'sleep 60 & sleep 60'], { init: true }),
    () => engine.run(image, ['sh', '-c', 'i=0; while [ $i -lt 200 ]; do : >/tmp/$i; i=$((i+1)); done; sleep .02']),
    () => engine.run(image, ['sleep', '60'], { tty: true, tmpfs: { '/x': '' } }),
  ]
  const commands = (held) => {
    for (let n = 0; n < 3; n += 1) held?.exec(['sh', '-c', 'sleep 60 & sleep 60']).catch(() => {})
  }
  console.log('up')
  for (let n = 0; ; n += 1) {
    const p = kinds[n % kinds.length]()
    p.catch(() => {})
    await p.started.catch(() => {})
    console.log('start')
    if (n % 5 === 4) commands(await engine.start(image, ['sleep', '60']).catch(() => {}))
    if (n % 8 === 7) await Promise.race([p.catch(() => {}), new Promise((resolve) => setTimeout(resolve, 2))])
  }
`

/** The shims of a program: its only children, whatever they are called by now. */
function shimsOf(parent: number): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
        const [state, ppid] = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
        return state !== 'Z' && Number(ppid) === parent
      } catch {
        return false
      }
    })
    .map(Number)
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // It was quicker.
  }
}

interface Victim {
  child: ChildProcess
  pid: number
  /** How many starts it came to. */
  starts: () => number
  ended: Promise<unknown>
}

/** A program in the middle of its starts. */
async function victim(root: string): Promise<Victim> {
  const child = spawn(process.execPath, ['--input-type=module-typescript', '-e', program(root)], {
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  let seen = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    seen += text
  })
  const ended = once(child, 'exit')
  while (!seen.includes('up') && child.exitCode === null && child.signalCode === null) await sleep(1)
  return { child, pid: child.pid ?? 0, starts: () => seen.split('start').length - 1, ended }
}

/** The next command of the same engine, and then the ledger. */
async function next(t: ExecutionContext, root: string, before: Ledger, what: string): Promise<void> {
  const engine = new Engine({ root })
  t.is((await engine.run({ rootfs }, ['echo', 'next'])).stdout, 'next\n')
  await engine.close()
  t.is(await settled(before, [ground], 5000), '', what)
}

for (const how of ['Node', 'Node and its shim'] as const) {
  test(`SIGKILL of ${how}`, async (t) => {
    t.timeout(180_000)
    const { root } = await scene(t)
    const before = take([ground])
    let done = 0
    let rounds = 0
    for (; done < kills || rounds < kills / 2; rounds += 1) {
      const { pid, starts, ended } = await victim(root)
      await sleep(Math.random() * 15)
      const shims = shimsOf(pid)
      kill(pid)
      if (how !== 'Node') for (const shim of shims) kill(shim)
      await ended
      // The one that was under way counts too.
      done += 1 + starts()
      if (rounds % 10 === 9) await next(t, root, before, `${done} starts`)
    }
    await next(t, root, before, `${done} starts`)
    t.log(`${done} starts, ${rounds} kills`)
  })
}

test('SIGKILL of the shim, over and over', async (t) => {
  t.timeout(180_000)
  const { root } = await scene(t)
  const before = take([ground])
  const { pid, starts, ended } = await victim(root)
  let done = 0
  for (const end = Date.now() + 60_000; done < kills && Date.now() < end;) {
    await sleep(Math.random() * 12)
    for (const shim of shimsOf(pid)) {
      kill(shim)
      done += 1
    }
  }
  t.true(done >= kills, `${done} kills`)
  t.true(starts() > kills / 4, `${starts()} starts`)
  kill(pid)
  await ended
  await next(t, root, before, `${done} kills`)
  t.log(`${starts()} starts, ${done} kills`)
})

test('SIGKILL of the shim of this program: its runs fail, the next one has a new shim', async (t) => {
  const { run, sh } = await scene(t)
  for (let round = 0; round < 20; round += 1) {
    const runs = [
      sh('sleep 60 & sleep 60'),
      run(['sleep', '60'], { tty: true }),
      run(['sleep', '60'], { init: true }),
    ]
    const ends = runs.map(async (one) => t.throwsAsync(one, { code: 'ERR_SHIM_LOST' }))
    if (round % 2 === 0) await Promise.allSettled(runs.map(async (one) => one.started))
    else {
      // It is started on a thread: on a slow machine not at once.
      for (let n = 0; n < 1000 && shimsOf(process.pid).length === 0; n += 1) await sleep(1)
      await sleep(round)
    }
    const shims = shimsOf(process.pid)
    t.is(shims.length, 1)
    for (const shim of shims) kill(shim)
    await Promise.all(ends)
  }
  t.is((await sh('echo again')).stdout, 'again\n')
})

test('a shim that is stopped, and killed then', async (t) => {
  const { run } = await scene(t)
  const p = run(['sleep', '60'])
  await p.started
  const [shim = 0] = shimsOf(process.pid)
  process.kill(shim, 'SIGSTOP')
  p.kill('SIGKILL')
  await sleep(50)
  process.kill(shim, 'SIGKILL')
  await t.throwsAsync(p, { code: 'ERR_SHIM_LOST' })
})
