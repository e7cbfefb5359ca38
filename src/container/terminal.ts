/** The one stream of a run with a terminal: bytes of both directions, kept until the pty is there. */
import type { PassThrough } from 'node:stream'
import { native } from '../native.ts'
import type { RunOptions } from './options.ts'
import { opened, withLines } from './stdio.ts'
import type { Stdio, Streams } from './stdio.ts'
import { streams } from './streams.ts'

/** What the payload is given instead of three descriptors: the socket by which its terminal's master comes back. */
export function openTerminal(): { stdio: Stdio; ours: number } {
  const [theirs = -1, ours = -1] = opened(() => native().addon.wayBack())
  return { stdio: { payload: [theirs], own: 0, ends: [] }, ours }
}

/** stdin and stdout of a terminal; there is no stderr of its own. */
export function terminalStreams(options: RunOptions): Streams {
  const { PassThrough } = streams()
  const [stdin, stdout] = [new PassThrough(), new PassThrough()]
  if (options.input !== undefined) stdin.end(options.input)
  return { stdin, stdout: withLines(stdout), stderr: null, relays: { stdin: null, outputs: [] } }
}

/** Connects both streams to the pty, once there is one. */
export function joinTerminal(master: number, { stdin, stdout }: Streams): void {
  const { ReadStream } = streams()
  const stream = new ReadStream(master)
  native().addon.releaseDescriptor(master)
  const to = stdout as PassThrough | null
  // The last process of the terminal is gone: Linux says EIO where others say end.
  stream.on('error', () => stream.destroy())
  stream.once('close', () => to?.end())
  if (to !== null) stream.pipe(to, { end: false })
  // The end of stdin is no end of the terminal: a person types ^D.
  stdin?.pipe(stream, { end: false })
}
