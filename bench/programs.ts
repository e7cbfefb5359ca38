/** The small programs that measure without Node: compiled here, outside the test host, into .cache/bench. */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** The checkout. */
export const root: string = fileURLToPath(new URL('..', import.meta.url))
const cache = join(root, '.cache/bench')

/** What was compiled, and from what. */
export interface Programs {
  floor: string
  /** Where the floor's source stands; the copy in bench/floor is used where the shared one is not there. */
  floorSource: string
  spawn: string
  /** The bytes of the filter that Caisson loads by default, as seccomp(2) takes them. */
  filter: string
  /** The profile they were compiled from, `linux.seccomp` of a config.json. */
  profile: string
  receiptCost: string
}

const floorSources = ['../shared/floor/floor.c', 'bench/floor/floor.c']

/** The programs' paths; {@link build} makes them. */
export function programs(): Programs {
  const example = (name: string): string => join(root, 'target/release/examples', name)
  return {
    floor: join(cache, 'floor'),
    floorSource: floorSources.find((source) => existsSync(join(root, source))) ?? '',
    spawn: join(cache, 'spawn'),
    filter: join(cache, 'filter.bpf'),
    profile: join(cache, 'profile.json'),
    receiptCost: example('receipt-cost'),
  }
}

function must(command: string, words: readonly string[]): void {
  const { status, error } = spawnSync(command, words, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] })
  if (error !== undefined) throw error
  if (status !== 0) throw new Error(`${command} ${words.join(' ')}: exit status ${status}`)
}

/** Compiles what is needed; the filter and the profile come from the core that is measured. */
export function build(): void {
  const { floor, floorSource, spawn, filter, profile } = programs()
  mkdirSync(cache, { recursive: true })
  const cc = ['-O2', '-static', '-o']
  must('cc', [...cc, floor, '-include', 'bench/floor/raw.h', floorSource])
  must('cc', [...cc, spawn, 'bench/floor/spawn.c'])
  must('cargo', ['build', '--quiet', '--release', '--locked', '-p', 'caisson-core', '--examples'])
  must(join(root, 'target/release/examples/seccomp-bpf'), ['--profile', profile, filter])
}

/** Where a run leaves its raw figures, for the process that started the host. */
export const rawFigures: string = join(cache, 'figures.json')
