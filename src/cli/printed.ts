/** Standard output that takes no more: a full disk, a reader that has gone. */
import { quit } from './quit.ts'

let isTold = false

function lost(error: Error): number {
  if (isTold) return 1
  isTold = true
  process.stderr.write(`caisson: standard output: ${error.message.replaceAll(/\p{Cc}/gu, ' ')}\n`)
  return 1
}

/** Ends the program when a write fails that nobody else waits for. Not for what hands its stdout on: that is not opened here. */
export function watchOutput(): void {
  const { stdout } = process
  stdout.on('error', (error: Error) => {
    if (stdout.listenerCount('error') === 1) void quit(lost(error))
  })
}

/** The exit code of a command that ended with `code`: Node tells of a failed write later than that. */
export function afterOutput(code: number): number {
  const { errored } = process.stdout
  if (errored === null) return code
  return code === 0 ? lost(errored) : 1
}
