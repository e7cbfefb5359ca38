/**
 * The end of the program. Node's own way out waits for threads that compile, which may wait for a collection of garbage
 * that will never come (nodejs/node#54918): one pull in a thousand hung behind its last word. Ours leaves at once.
 */
import { readFileSync } from 'node:fs'
import { loadedAddon } from '../native.ts'

/** `O_NONBLOCK` in a line of proc_pid_fdinfo(5), which is octal. */
const nonblock = 0o4000

/** Those of stdin, stdout and stderr whose writes wait: Node changes that, and others may share them. */
function waiting(): number[] {
  return [0, 1, 2].filter((number) => {
    try {
      const [, flags = '0'] =
        /^flags:\s*(\d+)/m.exec(readFileSync(`/proc/self/fdinfo/${number}`, 'latin1')) ?? []
      return (Number.parseInt(flags, 8) & nonblock) === 0
    } catch {
      return false
    }
  })
}

const before = waiting()

/** Ends the program; what was written is out, since Node's stdout and stderr are synchronous on Linux. */
export function quit(code: number): void {
  // A profiler or a coverage tool writes at Node's own end.
  const watched = process.execArgv.length > 0 || process.env.NODE_V8_COVERAGE !== undefined
  if (!watched && process.env.NODE_OPTIONS === undefined) loadedAddon()?.exit(code, before)
  process.exit(code)
}
