/** The one stream of a run with a terminal: bytes of both directions until the pty is there. */
import { PassThrough } from 'node:stream'
import type { RunOptions } from './options.ts'
import { withLines } from './stdio.ts'
import type { Streams } from './stdio.ts'

/** stdin and stdout of a terminal; there is no stderr of its own. */
export function terminalStreams(options: RunOptions): Streams {
  const [stdin, stdout] = [new PassThrough(), new PassThrough()]
  if (options.input !== undefined) stdin.end(options.input)
  return { stdin, stdout: withLines(stdout), stderr: null }
}
