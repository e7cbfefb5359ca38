/**
 * What a start costs, against the kernel floor and against the peers, all in one run: contestants take turns, so that
 * what disturbs the machine disturbs each of them alike. docs/bench.md says what each row is.
 */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism, loadavg, release, tmpdir } from 'node:os'
import { join } from 'node:path'
import { ApiProcess } from './api-process.ts'
import type { Delays, Sample, Setup } from './api.ts'
import { bars } from './bars.ts'
import { command, makeRootfs, present, rounds, warmup } from './contest.ts'
import type { Contestant, Turn } from './contest.ts'
import { killed } from './endings.ts'
import type { Ending } from './endings.ts'
import { median, percentile, short, summary, table } from './figures.ts'
import { floor, floorsAtATime } from './floor.ts'
import type { FloorFigures } from './floor.ts'
import { peers } from './peers.ts'
import { programs, rawFigures, root } from './programs.ts'
import { timed } from './spawned.ts'
import type { Spawned } from './spawned.ts'
import { stageTable } from './stages.ts'
import type { Moments } from './stages.ts'

/** Everything that was measured, raw. Milliseconds, but microseconds in `receipt`. */
export interface Figures {
  machine: Record<string, string | number>
  /** One after another, by contestant; the layers are on a tmpfs. */
  starts: Record<string, number[]>
  /** Why a contestant is not among them. */
  absent: Record<string, string>
  floorStages: FloorFigures['stages']
  moments: Moments[]
  /** The same on the disk's file system. */
  disk: Record<string, number[]>
  diskMoments: Moments[]
  diskFloorStages: FloorFigures['stages']
  /** By the size of the heap in MB. */
  heap: Record<string, number[]>
  /** Each start while eight are under way. */
  parallel: Record<string, number[]>
  first: Record<'import' | 'first' | 'second', number[]>
  /** Each from a process of its own. */
  calls: { first: Record<string, number>; later: Record<string, number> }[]
  delays: Record<'api' | 'spawn', Delays[]>
  soak: { left: string; samples: Sample[] }
  endings: Ending[]
  receipt: Record<'isolation' | 'limits' | 'usage', number[]>
}

const atATime = 8
const heldContainers = 50
const killTrials = 100
const soakRuns = 1000

/** The floor and the API, with what their stages took. */
function pair(
  api: ApiProcess,
  rootfs: string,
  scratch: string,
  stages: FloorFigures['stages'],
  moments: Moments[],
) {
  const floorTurn: Turn = async (count) => {
    const figures = await floor({ rootfs, scratch, rounds: count, warmup })
    for (const [name, ms] of Object.entries(figures.stages)) stages[name as keyof typeof stages].push(...ms)
    return figures.ms
  }
  const apiTurn: Turn = async (count) => {
    const answer = await api.order('starts', { count, warmup, parallel: 1, stdio: 'pipe' })
    moments.push(...answer.moments)
    return answer.ms
  }
  return { floorTurn, apiTurn }
}

const noStages = (): FloorFigures['stages'] => ({
  prepare: [],
  clone: [],
  mounts: [],
  root: [],
  restrict_exec_exit: [],
  undo: [],
})

/** One after another, on the host's /run, a tmpfs. */
async function oneByOne(dir: string, setup: Setup, count: number, figures: Figures): Promise<void> {
  const { rootfs } = setup
  const api = await ApiProcess.start(setup)
  const { floorTurn, apiTurn } = pair(api, rootfs, join(dir, 'floor'), figures.floorStages, figures.moments)
  const { crun, runc, podman } = peers(join(dir, 'peers'), rootfs, 1)
  const node = (...words: string[]): Spawned => ({ command: [process.execPath, ...words] })
  const cli = join(root, 'bin/caisson.cjs')
  process.env.CAISSON_ROOT = join(dir, 'cli')
  const quiet: Turn = async (runs) =>
    (await api.order('starts', { count: runs, warmup, parallel: 1, stdio: 'ignore' })).ms
  const contestants: Record<string, Contestant> = {
    floor: { turn: floorTurn, count: 50 },
    api: { turn: apiTurn, count: 50 },
    'api, stdio ignored': { turn: quiet, count: 25 },
    crun: command(crun, 15),
    runc: command(runc, 8),
    podman: command(podman, 2),
    'caisson run': command(node(cli, 'run', '--rm', '--rootfs', rootfs, '/bin/true'), 6),
    'caisson version': command(node(cli, 'version'), 6),
    'node -e 0': command(node('-e', '0'), 6),
    posix_spawn: command({ command: [join(rootfs, 'bin/true')] }, 25),
  }
  const found = await present(contestants, async ({ turn }) => turn(1), figures.absent)
  figures.floorStages = Object.assign(figures.floorStages, noStages())
  figures.moments.length = 0
  figures.starts = await rounds(found, count)
  await api.end()
}

/** Floor and API with layers on the disk. */
async function onDisk(dir: string, count: number, figures: Figures): Promise<void> {
  const rootfs = makeRootfs(join(dir, 'rootfs'))
  const api = await ApiProcess.start({ rootfs, root: join(dir, 'data'), runRoot: '/run/bench-disk', heap: 0 })
  const scratch = join(dir, 'floor')
  const { floorTurn, apiTurn } = pair(api, rootfs, scratch, figures.diskFloorStages, figures.diskMoments)
  const contestants: [string, Contestant][] = [
    ['floor', { turn: floorTurn, count: 25 }],
    ['api', { turn: apiTurn, count: 25 }],
  ]
  figures.disk = await rounds(contestants, count)
  await api.end()
}

async function heaps(setup: Setup, count: number): Promise<Record<string, number[]>> {
  const sizes = [50, 500]
  const processes = await Promise.all(
    sizes.map(async (heap) => ApiProcess.start({ ...setup, heap, runRoot: `${setup.runRoot}-${heap}` })),
  )
  const contestants = processes.map((api, index): [string, Contestant] => [
    String(sizes[index]),
    {
      count: 25,
      turn: async (runs) =>
        (await api.order('starts', { count: runs, warmup, parallel: 1, stdio: 'pipe' })).ms,
    },
  ])
  const all = await rounds(contestants, count)
  for (const api of processes) await api.end()
  return all
}

async function eightAtATime(dir: string, setup: Setup, count: number, figures: Figures): Promise<void> {
  const { rootfs } = setup
  const api = await ApiProcess.start(setup)
  const { crun, runc } = peers(join(dir, 'peers-8'), rootfs, atATime)
  const spawned = (one: Spawned, turns: number): Contestant => ({
    turn: async (runs) => timed(one, { runs, warmup: atATime, parallel: atATime }),
    count: turns,
  })
  const scratch = join(dir, 'floor-8')
  const contestants: Record<string, Contestant> = {
    floor: {
      turn: async (runs) => floorsAtATime({ rootfs, scratch, rounds: runs / atATime, warmup }, atATime),
      count: 10 * atATime,
    },
    api: {
      turn: async (runs) =>
        (await api.order('starts', { count: runs, warmup: atATime, parallel: atATime, stdio: 'pipe' })).ms,
      count: 10 * atATime,
    },
    crun: spawned(crun, 4 * atATime),
    runc: spawned(runc, 2 * atATime),
  }
  const absent: Record<string, string> = {}
  figures.parallel = await rounds(
    await present(contestants, async ({ turn }) => turn(atATime), absent),
    count,
  )
  for (const [name, why] of Object.entries(absent)) figures.absent[`${name}, ${atATime} at a time`] = why
  await api.end()
}

function firstStarts(dir: string, rootfs: string, count: number): Figures['first'] {
  const all: Figures['first'] = { import: [], first: [], second: [] }
  for (let round = 0; round < count; round += 1) {
    const words = [join(root, 'bench/first.js'), rootfs, join(dir, 'first'), join(dir, 'first-run')]
    const { stdout, stderr, status } = spawnSync(process.execPath, words, { encoding: 'utf8' })
    if (status !== 0) throw new Error(`first.js: ${stderr}`)
    const figures = JSON.parse(stdout) as Record<keyof typeof all, number>
    for (const name of ['import', 'first', 'second'] as const) all[name].push(figures[name])
  }
  return all
}

async function endings(setup: Setup, count: number): Promise<Ending[]> {
  const all: Ending[] = []
  for (let trial = 0; trial < count; trial += 1) all.push(await killed(setup, heldContainers))
  return all
}

function receipt(): Figures['receipt'] {
  const { stdout, stderr, status } = spawnSync(programs().receiptCost, ['500'], { encoding: 'utf8' })
  if (status !== 0) throw new Error(`receipt-cost: ${stderr}`)
  return JSON.parse(stdout) as Figures['receipt']
}

/** One with an addon that is not yet loaded, so that its exports can be watched. */
async function inFresh<T>(setup: Setup, work: (api: ApiProcess) => Promise<T>): Promise<T> {
  const api = await ApiProcess.start(setup)
  const answer = await work(api)
  await api.end()
  return answer
}

function print(figures: Figures): void {
  const { starts, parallel } = figures
  const floorMs = median(starts.floor ?? [])
  const rows = (all: Record<string, number[]>, base: number): string[][] =>
    Object.entries(all).map(([name, ms]) => {
      const { n, p50, p95, p99, iqr } = summary(ms)
      return [name, String(n), ...[p50, p95, p99, iqr, p50 / base].map(short)]
    })
  const header = (title: string): string[] => [title, 'n', 'p50', 'p95', 'p99', 'iqr', 'x floor']
  const say = (...blocks: string[]): void => console.log(`${blocks.join('\n')}\n`)
  say(
    Object.entries(figures.machine)
      .map(([name, value]) => `${name}: ${value}`)
      .join(', '),
  )
  say(table(header('/bin/true, ms, layers on tmpfs'), rows(starts, floorMs)))
  for (const [name, why] of Object.entries(figures.absent)) say(`not measured: ${name}: ${why}`)
  say(table(header('layers on the disk'), rows(figures.disk, median(figures.disk.floor ?? []))))
  const lanes = rows(parallel, median(parallel.floor ?? []))
  const rate = (name: string): string => {
    const ms = parallel[name] ?? []
    return short((1000 * atATime * ms.length) / ms.reduce((sum, one) => sum + one, 0))
  }
  say(
    table(
      [...header(`${atATime} at a time, each start`), 'a second'],
      lanes.map((row) => [...row, rate(row[0] ?? '')]),
    ),
  )
  const heapRows = Object.entries(figures.heap).map(([name, ms]): [string, number[]] => [`${name} MB`, ms])
  say(table(header('API by heap of Node'), rows(Object.fromEntries(heapRows), floorMs)))
  say(table(header('the first start of a process'), rows(figures.first, floorMs)))
  say('where a start goes, medians in ms, layers on tmpfs', stageTable(figures.moments, figures.floorStages))
  say('the same with layers on the disk', stageTable(figures.diskMoments, figures.diskFloorStages))
  const micros = Object.entries(figures.receipt).map(([name, us]) => [
    name,
    short(median(us)),
    short(percentile(us, 0.99)),
  ])
  say(table(['receipt, us', 'p50', 'p99'], micros))
  const names = [...new Set(figures.calls.flatMap(({ first, later }) => Object.keys({ ...first, ...later })))]
  const calls = names.map((name) => {
    const later = figures.calls.map((one) => one.later[name] ?? 0)
    const first = figures.calls.map((one) => one.first[name] ?? 0)
    return [name, ...[median(first), median(later), Math.max(...later)].map(short)]
  })
  const longest = [`longest call into the addon, ms; ${figures.calls.length} processes`, 'first start, p50']
  say(table([...longest, `100 starts ${atATime} at a time, p50`, 'max'], calls))
  const delayRows = Object.entries(figures.delays).map(([name, all]) => [
    name,
    ...(['p50', 'p99', 'max'] as const).map((part) => short(median(all.map((one) => one[part])))),
  ])
  say(table([`event loop delay, ms, 100 starts ${atATime} at a time`, 'p50', 'p99', 'max'], delayRows))
  const samples = figures.soak.samples.map((one) => [
    `after ${one.runs} runs`,
    ...[one.nodeRss, one.nodeHeap, one.shimRss].map((bytes) => (bytes / 1048576).toFixed(2)),
    ...[one.nodeThreads, one.nodeDescriptors, one.shimDescriptors].map(String),
  ])
  const columns = ['one process', 'Node MB', 'its heap', 'shim MB', 'threads', 'fds', "shim's fds"]
  say(
    table(columns, samples),
    `left behind: ${figures.soak.left === '' ? 'nothing' : `\n${figures.soak.left}`}`,
  )
  const ends = (['clean', 'namespaces'] as const).map((part) => {
    const { n, p50, p95, p99 } = summary(figures.endings.map((one) => one[part]))
    return [part, String(n), ...[p50, p95, p99].map(short)]
  })
  say(table([`SIGKILL of Node with ${heldContainers} containers, ms`, 'n', 'p50', 'p95', 'p99'], ends))
  const held = bars(figures).map(({ what, wanted, measured, holds }) => [what, wanted, measured, holds])
  say(table(['bar', 'wanted', 'measured', ''], held))
}

/** Measures everything and prints it; the raw figures go to a file for the process that made the host. */
export async function startup(count: number): Promise<void> {
  const share = (part: number): number => Math.max(1, Math.ceil(count * part))
  const dir = '/run/bench'
  const rootfs = makeRootfs(join(dir, 'rootfs'))
  const setup = { rootfs, root: join(dir, 'data'), runRoot: join(dir, 'run'), heap: 0 }
  const figures: Figures = {
    machine: {
      kernel: release(),
      node: process.versions.node,
      processors: availableParallelism(),
      floor: programs().floorSource,
      rounds: count,
      'load before': short(loadavg()[0] ?? 0),
    },
    starts: {},
    absent: {},
    floorStages: noStages(),
    moments: [],
    disk: {},
    diskMoments: [],
    diskFloorStages: noStages(),
    heap: {},
    parallel: {},
    first: { import: [], first: [], second: [] },
    calls: [],
    delays: { api: [], spawn: [] },
    soak: { left: '', samples: [] },
    endings: [],
    receipt: { isolation: [], limits: [], usage: [] },
  }
  const step = async (what: string, work: () => Promise<void> | void): Promise<void> => {
    const begun = performance.now()
    await work()
    console.error(`bench: ${what}: ${((performance.now() - begun) / 1000).toFixed(1)} s`)
  }
  await step('starts one by one', async () => oneByOne(dir, setup, count, figures))
  await step('the disk', async () => {
    const disk = mkdtempSync(join(tmpdir(), 'caisson-bench-'))
    await onDisk(disk, share(0.5), figures).finally(() => {
      rmSync(disk, { recursive: true, force: true })
    })
  })
  await step('heaps', async () => void (figures.heap = await heaps(setup, count)))
  await step(`${atATime} at a time`, async () => eightAtATime(dir, setup, share(0.5), figures))
  await step('first starts', () => void (figures.first = firstStarts(dir, rootfs, count)))
  await step('calls and delays', async () => {
    const order = { count: 100, parallel: atATime }
    for (let trial = 0; trial < share(0.5); trial += 1) {
      figures.calls.push(await inFresh(setup, async (api) => api.order('calls', order)))
    }
    figures.delays = await inFresh(setup, async (api) =>
      api.order('delays', { ...order, rounds: share(0.5) }),
    )
  })
  await step(`${soakRuns} runs in one process`, async () => {
    figures.soak = await inFresh(setup, async (api) => api.order('soak', { count: soakRuns }))
  })
  await step('the receipt', () => void (figures.receipt = receipt()))
  await step('SIGKILL', async () => {
    figures.endings = await endings(setup, count >= 20 ? killTrials : count)
  })
  writeFileSync(rawFigures, JSON.stringify({ ...figures, bars: bars(figures) }))
  print(figures)
}
