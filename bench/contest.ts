/** Contestants that take turns within one run, so that what disturbs the machine disturbs each of them alike. */
import { chmodSync, copyFileSync, linkSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { timed } from './spawned.ts'
import type { Spawned } from './spawned.ts'

/** Starts before the counted ones of each turn: floor.c's own are as many. */
export const warmup = 3

/** A root file system that any of them starts from: busybox, and the places that mounts need. */
export function makeRootfs(dir: string): string {
  for (const name of ['bin', 'dev', 'etc', 'proc', 'sys', 'tmp'])
    mkdirSync(join(dir, name), { recursive: true })
  copyFileSync('/bin/busybox', join(dir, 'bin/busybox'))
  chmodSync(join(dir, 'bin/busybox'), 0o755)
  for (const name of ['true', 'sleep', 'sh']) linkSync(join(dir, 'bin/busybox'), join(dir, 'bin', name))
  for (const name of ['hosts', 'hostname', 'resolv.conf']) writeFileSync(join(dir, 'etc', name), '')
  writeFileSync(join(dir, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\n')
  writeFileSync(join(dir, 'etc/group'), 'root:x:0:\n')
  return dir
}

/** A contestant's turn: so many starts, their milliseconds. */
export type Turn = (count: number) => Promise<number[]>
/** Who takes part. */
export interface Contestant {
  turn: Turn
  /** How many starts a turn has. */
  count: number
}

/** One that is a command. */
export const command = (spawned: Spawned, count: number): Contestant => ({
  turn: async (runs) => timed(spawned, { runs, warmup: 1 }),
  count,
})

/** Leaves out who cannot start here, with the reason. */
export async function present<T>(
  all: Record<string, T>,
  once: (one: T) => Promise<unknown>,
  absent: Record<string, string>,
): Promise<[string, T][]> {
  const found: [string, T][] = []
  for (const [name, one] of Object.entries(all)) {
    try {
      await once(one)
      found.push([name, one])
    } catch (error) {
      absent[name] = error instanceof Error ? error.message : String(error)
    }
  }
  return found
}

/** Turns of everyone, the one who begins changing. */
export async function rounds(
  contestants: [string, Contestant][],
  count: number,
): Promise<Record<string, number[]>> {
  const all: Record<string, number[]> = Object.fromEntries(contestants.map(([name]) => [name, []]))
  for (let round = 0; round < count; round += 1) {
    for (let index = 0; index < contestants.length; index += 1) {
      const [name, one] = contestants[(index + round) % contestants.length] ?? []
      if (name !== undefined && one !== undefined) all[name]?.push(...(await one.turn(one.count)))
    }
  }
  return all
}
