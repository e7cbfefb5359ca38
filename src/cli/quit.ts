/**
 * The end of the program. Node's own way out waits for threads that compile, which may wait for a collection of garbage
 * that will never come (nodejs/node#54918): one pull in a thousand hung behind its last word. Ours leaves at once, when
 * all that was written is out: a pipe takes 64 KiB, and the rest as its reader comes along.
 */
import { readFileSync } from 'node:fs'
import type { WriteStream } from 'node:tty'
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

/** Of stdout and stderr what somebody had: to make one only to find it empty takes milliseconds. */
const had = new Set<WriteStream>()
for (const name of ['stdout', 'stderr'] as const) {
  const own = Object.getOwnPropertyDescriptor(process, name)
  const get = (): WriteStream => {
    const stream = own?.get?.call(process) as WriteStream
    had.add(stream)
    return stream
  }
  Object.defineProperty(process, name, { ...own, get })
}

/** Waits until what was written to a stream is out, or nobody takes it any more. */
function flushed(stream: WriteStream): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => resolve()
    if (stream.destroyed || stream.writableLength === 0) return done()
    stream.once('error', done).once('close', done)
    stream.write('', done)
  })
}

/** Ends the program; `judge` has the last word on its exit code, once nothing is on its way out any more. */
export async function quit(ended: number, judge?: (code: number) => number): Promise<void> {
  await Promise.all([...had].map(flushed))
  const code = judge?.(ended) ?? ended
  // A profiler or a coverage tool writes at Node's own end.
  const watched = process.execArgv.length > 0 || process.env.NODE_V8_COVERAGE !== undefined
  if (!watched && process.env.NODE_OPTIONS === undefined) loadedAddon()?.exit(code, before)
  process.exit(code)
}
