/** A command that this program is attached to: its signals, its stdio, its exit code. */
import { constants } from 'node:os'
import type { ExecOptions, ProcessPromise, Result } from '../index.ts'
import { windowSize } from './terminal.ts'

/** Signals that are this program's own. */
const kept: ReadonlySet<string> = new Set([
  'SIGCHLD',
  'SIGPIPE',
  'SIGURG',
  'SIGKILL',
  'SIGSTOP',
  'SIGWINCH',
  'SIGPROF',
  'SIGSEGV',
  'SIGBUS',
  'SIGFPE',
  'SIGILL',
  'SIGTTIN',
  'SIGTTOU',
  'SIGTSTP',
  'SIGCONT',
])
/** So many of these, and the container is killed: pid 1 is deaf to what it does not handle. */
const insistent: ReadonlySet<NodeJS.Signals> = new Set(['SIGINT', 'SIGTERM'])
const patience = 3

/** Passes this program's signals on; one that comes after the container's end finds nobody, and this program ends anyway. */
export function proxySignals(child: ProcessPromise): void {
  let asked = 0
  for (const name of Object.keys(constants.signals)) {
    if (kept.has(name)) continue
    const signal = name as NodeJS.Signals
    process.on(signal, () => {
      if (insistent.has(signal)) asked += 1
      child.kill(asked >= patience ? 'SIGKILL' : signal)
    })
  }
}

export function exitCode(result: Result, { memory, timeout }: Limits, what: 'container' | 'command'): number {
  if (result.cause === 'oom') {
    const limit = memory === undefined ? '' : ` (memory limit ${memory})`
    process.stderr.write(`caisson: the ${what} was killed by the kernel's OOM killer${limit}\n`)
  }
  if (result.cause === 'timeout') {
    process.stderr.write(`caisson: the ${what} was killed after its timeout of ${timeout}\n`)
    return 124
  }
  if (result.exitCode !== null) return result.exitCode
  const numbers: Record<string, number> = constants.signals
  return 128 + (numbers[result.signal ?? ''] ?? 0)
}

/** What is told of why it ended. */
interface Limits {
  memory?: number | string | undefined
  timeout?: number | string | undefined
}

/** The options of its stdio: this program's own, or a terminal. What is shown is not kept. */
export function stdioOptions(
  tty: boolean,
  interactive: boolean,
): Pick<ExecOptions, 'stdio' | 'size' | 'maxBuffer'> {
  const size = tty ? windowSize() : undefined
  if (tty) return { maxBuffer: 0, ...(size !== undefined && { size }) }
  return { maxBuffer: 0, stdio: [interactive ? 'inherit' : 'ignore', 'inherit', 'inherit'] }
}

/** Docker's refusal, before anything is asked for. */
export function lacksTerminal(tty: boolean, interactive: boolean): boolean {
  if (!tty || !interactive || process.stdin.isTTY) return false
  process.stderr.write('cannot attach stdin to a TTY-enabled container because stdin is not a terminal\n')
  return true
}
