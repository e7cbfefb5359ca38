/** The user's terminal while a container has one of its own: raw, its bytes passed on, and always given back. */
import type { ProcessPromise } from '../index.ts'
import { loadedAddon } from '../native.ts'

/** The size of the user's terminal, where there is one. */
export function windowSize(): { columns: number; rows: number } | undefined {
  const { columns, rows } = process.stdout
  return process.stdout.isTTY ? { columns, rows } : undefined
}

/** Joins the terminals. Answers what gives the user's back. */
export function join(child: ProcessPromise, interactive: boolean): () => void {
  const { stdin, stdout } = process
  child.stdout?.pipe(stdout, { end: false })
  // Nobody takes what it writes any more: a program of this machine's would be killed by SIGPIPE.
  stdout.on('error', () => {
    child.stdout?.resume()
    child.kill('SIGKILL')
  })
  const resize = (): void => {
    const size = windowSize()
    if (size !== undefined) child.resize(size)
  }
  stdout.on('resize', resize)
  if (interactive) {
    if (stdin.isTTY) {
      stdin.setRawMode(true)
      loadedAddon()?.rawOutput()
    }
    if (child.stdin !== null) stdin.pipe(child.stdin)
  }
  return () => {
    stdout.off('resize', resize)
    if (!interactive) return
    stdin.unpipe()
    if (stdin.isTTY) stdin.setRawMode(false)
  }
}
