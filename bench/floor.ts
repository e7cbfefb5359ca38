/** The kernel floor: floor.c, one process or eight at a time, with its raw figures. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, rmdirSync } from 'node:fs'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import type { Readable } from 'node:stream'
import { programs } from './programs.ts'

/** The stages of floor.c, in its order. */
export const floorStages = ['prepare', 'clone', 'mounts', 'root', 'restrict_exec_exit', 'undo'] as const

/** Milliseconds of each round. */
export interface FloorFigures {
  ms: number[]
  stages: Record<(typeof floorStages)[number], number[]>
}

/** What one process of it is to do. */
export interface FloorRun {
  rootfs: string
  /** Its upper and work directories; made here. */
  scratch: string
  rounds: number
  warmup: number
}

const inGroup = `
g=$1; shift
echo 0 >"$g/cgroup.procs"
# A mount of the same file system on top of itself is EBUSY, whatever its root is.
exec unshare --cgroup --mount sh -c 'umount /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec "$@"' sh "$@"
`

async function measure(run: FloorRun, before: readonly string[]): Promise<FloorFigures> {
  mkdirSync(run.scratch, { recursive: true })
  const { floor: program, filter } = programs()
  const options = [
    '--rounds',
    String(run.rounds),
    '--warmup',
    String(run.warmup),
    '--seccomp',
    filter,
    '--json',
  ]
  const [command = '', ...words] = [...before, program, run.rootfs, run.scratch, ...options]
  const child = spawn(command, words, { stdio: ['ignore', 'ignore', 'inherit', 'pipe'] })
  const [raw, [status]] = await Promise.all([text(child.stdio[3] as Readable), once(child, 'exit')])
  if (status !== 0) throw new Error(`the floor ended with ${status}`)
  const [ms = [], ...parts] = raw
    .trim()
    .split('\n')
    .map((line) => line.split(' ').map(Number))
  if (ms.length !== run.rounds || parts.length !== floorStages.length)
    throw new Error(`the floor said: ${raw}`)
  const stages = Object.fromEntries(floorStages.map((name, index) => [name, parts[index] ?? []]))
  return { ms, stages: stages as FloorFigures['stages'] }
}

/** One after another. */
export async function floor(run: FloorRun): Promise<FloorFigures> {
  return measure(run, [])
}

/** Several processes of it at a time, each below a cgroup of its own, since its groups have fixed names. */
export async function floorsAtATime(run: FloorRun, count: number): Promise<number[]> {
  const lanes = Array.from({ length: count }, (_, lane) => ({
    group: `/sys/fs/cgroup/bench-floor-${lane}`,
    scratch: join(run.scratch, String(lane)),
  }))
  for (const { group } of lanes) mkdirSync(group)
  try {
    const shell = ['sh', '-c', inGroup, 'sh']
    const all = await Promise.all(
      lanes.map(({ group, scratch }) => measure({ ...run, scratch }, [...shell, group])),
    )
    return all.flatMap(({ ms }) => ms)
  } finally {
    for (const { group } of lanes) rmdirSync(group)
  }
}
