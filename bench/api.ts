/**
 * A process that uses the built package as a program would, and is told by bench/api-process.ts what to do: the Node
 * whose starts are measured. Its times are from the call of run() to the settled promise.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import type * as Addon from '../index.js'
import { settled, take } from '../__test__/host/ledger.ts'
import type * as Package from '../src/index.ts'
import type { Moments } from './stages.ts'

/** What the process works with, its one argument, as JSON. */
export interface Setup {
  rootfs: string
  root: string
  runRoot: string
  /** Megabytes of live objects on its heap. */
  heap: number
}

/** The orders, and what each answers. */
export interface Orders {
  /** Starts of /bin/true. */
  starts: (order: { count: number; warmup: number; parallel: number; stdio: 'pipe' | 'ignore' }) => {
    ms: number[]
    moments: Moments[]
  }
  /** The longest synchronous call into the addon, by export, in `count` starts. Only once a process, before all others. */
  calls: (order: { count: number; parallel: number }) => {
    first: Record<string, number>
    later: Record<string, number>
  }
  /** Delays of the event loop during `count` starts of /bin/true by each way, in turn, `rounds` times. */
  delays: (order: { count: number; parallel: number; rounds: number }) => Record<'api' | 'spawn', Delays[]>
  /** `count` starts; samples after every hundred; what is left afterwards that was not there after the first ten. */
  soak: (order: { count: number }) => { left: string; samples: Sample[] }
  /** Commands /bin/true in one container that runs. */
  execs: (order: { count: number; warmup: number }) => { ms: number[] }
  /** Connections to a port of one container that runs, until they are there; each is closed after that. */
  dials: (order: { count: number; warmup: number }) => { ms: number[] }
  /** `count` containers that run until this process ends; answers once all of them do. */
  hold: (order: { count: number }) => { shim: number }
}

/** Milliseconds, as perf_hooks.monitorEventLoopDelay has them in one round. */
export interface Delays {
  p50: number
  p99: number
  max: number
}

/** What one process and its shim hold. */
export interface Sample {
  runs: number
  /** Resident bytes, with Node's garbage collected first. */
  nodeRss: number
  /** Of these, live objects. */
  nodeHeap: number
  shimRss: number
  nodeThreads: number
  nodeDescriptors: number
  shimDescriptors: number
}

type Answer<Name extends keyof Orders> = ReturnType<Orders[Name]>
type Handlers = { [Name in keyof Orders]: (...order: Parameters<Orders[Name]>) => Promise<Answer<Name>> }

const setup = JSON.parse(process.argv[2] ?? '') as Setup
const require = createRequire(import.meta.url)
// What is measured is what is shipped: the bundle, found as the package's own files find each other.
const { Engine } = (await import(new URL('../dist/index.js', import.meta.url).href)) as typeof Package
const engine = new Engine({ root: setup.root, runRoot: setup.runRoot })

const now = (): number => Number(process.hrtime.bigint()) / 1e6
const start = (stdio: 'pipe' | 'ignore' = 'pipe') =>
  engine.run({ rootfs: setup.rootfs }, ['/bin/true'], { stdio })

/** Calls `work` `count` times, `parallel` at a time. */
async function lanes(count: number, parallel: number, work: () => Promise<void>): Promise<void> {
  let left = count
  const lane = async (): Promise<void> => {
    while (left > 0) {
      left -= 1
      await work()
    }
  }
  await Promise.all(Array.from({ length: parallel }, lane))
}

async function checked(stdio?: 'pipe' | 'ignore'): Promise<Awaited<ReturnType<typeof start>>> {
  const result = await start(stdio)
  if (result.exitCode !== 0) throw new Error(`/bin/true ended with ${result.exitCode ?? result.signal}`)
  return result
}

/** The process of this thread's shim. */
function shim(): number {
  const children = readFileSync(`/proc/self/task/${process.pid}/children`, 'utf8').trim().split(' ')
  const found = children.find((pid) => readFileSync(`/proc/${pid}/comm`, 'utf8') === 'caisson-shim\n')
  if (found === undefined) throw new Error('this process has no shim')
  return Number(found)
}

function residentBytes(pid: number): number {
  const line = /^VmRSS:\s*(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))
  return Number(line?.[1]) * 1024
}

function sample(runs: number): Sample {
  global.gc?.()
  const pid = shim()
  return {
    runs,
    nodeRss: residentBytes(process.pid),
    nodeHeap: process.memoryUsage().heapUsed,
    shimRss: residentBytes(pid),
    nodeThreads: readdirSync('/proc/self/task').length,
    nodeDescriptors: readdirSync('/proc/self/fd').length,
    shimDescriptors: readdirSync(`/proc/${pid}/fd`).length,
  }
}

type Callable = (...words: unknown[]) => unknown

/** Times every function of the addon from now on; answers the longest call of each since the last answer. */
function watchCalls(): () => Record<string, number> {
  const addon = require(`../caisson.linux-${process.arch}-gnu.node`) as typeof Addon & Record<string, unknown>
  let longest: Record<string, number> = {}
  const note = (name: string, begun: number): void => {
    longest[name] = Math.max(longest[name] ?? 0, now() - begun)
  }
  const watched = (name: string, call: Callable): Callable =>
    function (this: unknown, ...words: unknown[]): unknown {
      const begun = now()
      try {
        return Reflect.apply(call, this, words)
      } finally {
        note(name, begun)
      }
    }
  for (const [name, exported] of Object.entries(addon)) {
    if (typeof exported !== 'function') continue
    const { prototype } = exported as { prototype?: Record<string, unknown> }
    const methods = Object.entries(Object.getOwnPropertyDescriptors(prototype ?? {}))
    for (const [method, { value }] of methods) {
      if (method === 'constructor' || typeof value !== 'function' || prototype === undefined) continue
      Object.defineProperty(prototype, method, { value: watched(`${name}.${method}`, value as Callable) })
    }
    const replaced = new Proxy(exported, {
      apply: (target, self, words) => watched(name, target as Callable).apply(self, words),
      construct: (target, words) => {
        const begun = now()
        try {
          return Reflect.construct(target, words) as object
        } finally {
          note(`new ${name}`, begun)
        }
      },
    })
    Object.defineProperty(addon, name, { value: replaced })
    if (addon[name] !== replaced) throw new Error(`the export ${name} cannot be watched`)
  }
  return () => {
    const answer = longest
    longest = {}
    return answer
  }
}

let entered: Package.Container | undefined
let served: Package.Container | undefined

const handlers: Handlers = {
  async starts({ count, warmup, parallel, stdio }) {
    await lanes(warmup, parallel, async () => void (await checked(stdio)))
    const answer: Answer<'starts'> = { ms: [], moments: [] }
    await lanes(count, parallel, async () => {
      const begun = now()
      const result = await start(stdio)
      answer.ms.push(now() - begun)
      const carried = (result.timing as unknown as Record<symbol, Moments | undefined>)[
        Symbol.for('caisson.stamps')
      ]
      if (carried !== undefined && parallel === 1) answer.moments.push(carried)
      if (result.exitCode !== 0) throw new Error(`/bin/true ended with ${result.exitCode ?? result.signal}`)
    })
    return answer
  },

  async calls({ count, parallel }) {
    const longest = watchCalls()
    await checked()
    const first = longest()
    await lanes(count, parallel, async () => void (await checked()))
    return { first, later: longest() }
  },

  async delays({ count, parallel, rounds }) {
    const ways = {
      api: async () => void (await checked()),
      spawn: async () => {
        const [code] = (await once(spawn(`${setup.rootfs}/bin/true`), 'close')) as [number | null]
        if (code !== 0) throw new Error(`/bin/true ended with ${code}`)
      },
    }
    const delays: Answer<'delays'> = { api: [], spawn: [] }
    for (let round = -1; round < rounds; round += 1) {
      for (const way of ['api', 'spawn'] as const) {
        // A new one each time: what is switched on again counts the pause as a delay.
        const monitor = monitorEventLoopDelay({ resolution: 1 })
        monitor.enable()
        await lanes(count, parallel, ways[way])
        monitor.disable()
        const [p50, p99, max] = [monitor.percentile(50), monitor.percentile(99), monitor.max]
        if (round >= 0) delays[way].push({ p50: p50 / 1e6, p99: p99 / 1e6, max: max / 1e6 })
        await sleep(20)
      }
    }
    return delays
  },

  async soak({ count }) {
    const roots = [setup.root, setup.runRoot]
    for (let run = 0; run < 10; run += 1) await checked()
    const before = take(roots)
    const samples: Sample[] = []
    for (let run = 1; run <= count; run += 1) {
      await checked()
      if (run % 100 === 0) samples.push(sample(run))
    }
    return { left: await settled(before, roots), samples }
  },

  async execs({ count, warmup }) {
    entered ??= await engine.start({ rootfs: setup.rootfs }, ['/bin/sleep', '100000'])
    const answer: Answer<'execs'> = { ms: [] }
    for (let index = -warmup; index < count; index += 1) {
      const begun = now()
      const result = await entered.exec(['/bin/true'])
      if (index >= 0) answer.ms.push(now() - begun)
      if (result.exitCode !== 0) throw new Error(`/bin/true ended with ${result.exitCode ?? result.signal}`)
    }
    return answer
  },

  async dials({ count, warmup }) {
    served ??= await engine.start({ rootfs: setup.rootfs }, ['/bin/busybox', 'httpd', '-f', '-p', '80'])
    for (let look = 0; look < 1000; look += 1) {
      const first = await served.dial(80).catch(() => undefined)
      first?.destroy()
      if (first !== undefined) break
      await sleep(1)
    }
    const answer: Answer<'dials'> = { ms: [] }
    for (let index = -warmup; index < count; index += 1) {
      const begun = now()
      const socket = await served.dial(80)
      if (index >= 0) answer.ms.push(now() - begun)
      socket.destroy()
    }
    return answer
  },

  async hold({ count }) {
    const held = Array.from({ length: count }, () =>
      engine.run({ rootfs: setup.rootfs }, ['/bin/sleep', '1000'], { stdio: 'ignore' }),
    )
    for (const run of held) run.catch(() => {})
    await Promise.all(held.map(async (run) => run.started))
    return { shim: shim() }
  },
}

/** Objects of an ordinary program's kind: small, with strings of their own, all alive. */
function ballast(megabytes: number): unknown[] {
  const kept: unknown[] = []
  const wanted = process.memoryUsage().heapUsed + megabytes * 1e6
  while (process.memoryUsage().heapUsed < wanted) {
    const from = kept.length
    for (let index = 0; index < 20_000; index += 1) {
      kept.push({ index, name: `object ${from + index}`, list: [index, index + 1] })
    }
  }
  return kept
}
const kept = ballast(setup.heap)

process.on('message', (message: { name: keyof Orders; order: never }) => {
  handlers[message.name](message.order).then(
    (answer) => process.send?.({ answer, kept: kept.length }),
    (error: unknown) => process.send?.({ failure: error instanceof Error ? error.stack : String(error) }),
  )
})
process.send?.({ answer: 'ready' })
