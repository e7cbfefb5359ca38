/** `caisson run`: a container from here to its end. */
import { closeSync, openSync, rmSync, writeSync } from 'node:fs'
import { constants } from 'node:os'
import { Engine } from '../index.ts'
import type { ProcessPromise, Result, RunOptions } from '../index.ts'
import { notYet, runDraft, runFlags } from './flags/run.ts'
import type { RunDraft } from './flags/run.ts'
import { parseWords, WordError } from './flags/words.ts'
import { helpText } from './help.ts'
import { join, windowSize } from './terminal.ts'

const usage =
  'caisson run [OPTIONS] IMAGE [COMMAND] [ARG...]\n        caisson run [OPTIONS] --rootfs DIR COMMAND [ARG...]'
const summary = 'Create and run a new container. An image is oci:DIR[:TAG], an OCI layout on disk.'

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

function parse(words: readonly string[], draft: RunDraft): string[] {
  try {
    return parseWords(runFlags, words, draft)
  } catch (error) {
    const name = error instanceof WordError ? /^unknown flag: --(.*)$/.exec(error.message)?.[1] : undefined
    if (name !== undefined && notYet.has(name)) throw new WordError(`--${name} is not supported yet`)
    const letter =
      error instanceof WordError ? /^unknown shorthand flag: '(.)'/.exec(error.message)?.[1] : undefined
    const long = { a: 'attach', d: 'detach', p: 'publish', P: 'publish-all', q: 'quiet' }[letter ?? '']
    if (long !== undefined) throw new WordError(`-${letter}, --${long} is not supported yet`)
    throw error
  }
}

function options(draft: RunDraft): RunOptions {
  const env = Object.fromEntries([...draft.files, ...draft.env])
  const tty = draft.options.tty === true
  const size = tty ? windowSize() : undefined
  return {
    ...draft.options,
    ...(Object.keys(env).length > 0 && { env }),
    ...(size !== undefined && { size }),
    ...(!tty && {
      stdio: [draft.interactive ? ('inherit' as const) : ('ignore' as const), 'inherit', 'inherit'],
    }),
    // What is shown is not kept.
    maxBuffer: 0,
  }
}

/** Passes this program's signals on; one that comes after the container's end finds nobody, and this program ends anyway. */
function proxySignals(child: ProcessPromise): void {
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

function exitCode(result: Result, draft: RunDraft): number {
  if (result.cause === 'oom') {
    const limit = draft.options.memory === undefined ? '' : ` (memory limit ${draft.options.memory})`
    process.stderr.write(`caisson: the container was killed by the kernel's OOM killer${limit}\n`)
  }
  if (result.cause === 'timeout') {
    process.stderr.write(`caisson: the container was killed after its timeout of ${draft.options.timeout}\n`)
    return 124
  }
  if (result.exitCode !== null) return result.exitCode
  const numbers: Record<string, number> = constants.signals
  return 128 + (numbers[result.signal ?? ''] ?? 0)
}

/** A file for the id, which must not be there. */
function openIdFile(path: string): number {
  try {
    return openSync(path, 'wx', 0o644)
  } catch (error) {
    const exists = error instanceof Error && 'code' in error && error.code === 'EEXIST'
    throw new WordError(
      exists
        ? `container ID file found, make sure the other container isn't running or delete ${path}`
        : `failed to create the container ID file: ${error instanceof Error ? error.message : String(error)}`,
    )
  }
}

/** Runs the words behind `run`, and answers the exit code. */
export async function run(words: readonly string[], root: string | undefined): Promise<number> {
  const draft = runDraft()
  const rest = parse(words, draft)
  if (draft.help) {
    process.stdout.write(helpText(usage, summary, runFlags))
    return 0
  }
  const tty = draft.options.tty === true
  if (tty && draft.interactive && !process.stdin.isTTY) {
    process.stderr.write('cannot attach stdin to a TTY-enabled container because stdin is not a terminal\n')
    return 1
  }
  const image = draft.rootfs === undefined ? rest.shift() : { rootfs: draft.rootfs }
  if (image === undefined) throw new WordError("'caisson run' requires at least 1 argument")
  const at = draft.root ?? root
  const engine = new Engine(at === undefined ? {} : { root: at })
  const idFile = draft.cidfile === undefined ? undefined : openIdFile(draft.cidfile)
  const child = engine.run(image, rest.length > 0 ? rest : undefined, options(draft))
  proxySignals(child)
  // Nobody reads what it writes any more: a program that wrote itself would be killed by SIGPIPE.
  for (const output of tty ? [process.stdout] : []) output.on('error', () => child.kill('SIGKILL'))
  const leave = tty ? join(child, draft.interactive) : undefined
  try {
    if (idFile !== undefined) {
      writeSync(idFile, child.id)
      closeSync(idFile)
    }
    return exitCode(await child, draft)
  } catch (error) {
    if (draft.cidfile !== undefined) rmSync(draft.cidfile, { force: true })
    throw error
  } finally {
    leave?.()
    // What nobody reads any more would keep this program; touched only if it was, since its making takes 3 ms.
    if (draft.interactive) process.stdin.destroy()
  }
}
