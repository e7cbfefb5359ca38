/** Commands timed by spawn.c: posix_spawn from a small program to the end of the process, no Node in between. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import { programs } from './programs.ts'

/** A command, and what each of its runs finds. */
export interface Spawned {
  /** `%` stands for the number of the lane, so that runs at the same time do not meet. */
  command: readonly string[]
  /** A fresh overlay of `rootfs` at `target`, outside the timed part; `scratch` holds its upper and work directories. */
  overlay?: { rootfs: string; scratch: string; target: string }
  /** A file that each run finds open for reading, as descriptor 10. */
  open?: string
  /** Who runs it. */
  as?: { uid: number; gid: number; env: NodeJS.ProcessEnv }
}

/** How often. */
export interface Times {
  runs: number
  warmup: number
  parallel?: number
}

/**
 * Milliseconds of each run, in the order of the ends.
 * @throws Error with the command's last line of stderr, if one run of it fails.
 */
export async function timed({ command, overlay, open, as }: Spawned, times: Times): Promise<number[]> {
  const words = ['--runs', String(times.runs), '--warmup', String(times.warmup)]
  if (times.parallel !== undefined) words.push('--parallel', String(times.parallel))
  if (overlay !== undefined) words.push('--overlay', overlay.rootfs, overlay.scratch, overlay.target)
  if (open !== undefined) words.push('--open', open)
  const child = spawn(programs().spawn, [...words, '--', ...command], {
    stdio: ['ignore', 'pipe', 'pipe'],
    ...as,
  })
  const [out, err, [status]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, 'exit'),
  ])
  if (status !== 0) throw new Error(err.trim().split('\n').slice(-2).join(': '))
  return JSON.parse(out) as number[]
}
