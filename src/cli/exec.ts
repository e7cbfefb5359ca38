/** `caisson exec`: another command in a container that runs, whichever program started it. */
import { exitCode, lacksTerminal, proxySignals, stdioOptions } from './attached.ts'
import { engineAt } from './engine.ts'
import { execDraft, execFlags, notYet } from './flags/exec.ts'
import type { ExecDraft } from './flags/exec.ts'
import { parseWords, WordError } from './flags/words.ts'
import { helpText } from './help.ts'
import { join } from './terminal.ts'

function parse(words: readonly string[], draft: ExecDraft): string[] {
  try {
    return parseWords(execFlags, words, draft)
  } catch (error) {
    const unknown = /^unknown (?:flag: --(.*)|shorthand flag: '(.)')/.exec((error as Error).message)
    const name = notYet.get(unknown?.[1] ?? unknown?.[2] ?? '')
    throw name === undefined ? error : new WordError(`--${name} is not supported yet`)
  }
}

/** Runs the words behind `exec`, and answers the exit code. */
export async function exec(words: readonly string[], root: string | undefined): Promise<number> {
  const draft = execDraft()
  const [ref, ...command] = parse(words, draft)
  if (draft.help) {
    const usage = 'caisson exec [OPTIONS] CONTAINER COMMAND [ARG...]'
    process.stdout.write(helpText(usage, 'Execute a command in a running container.', execFlags))
    return 0
  }
  if (ref === undefined || command.length === 0)
    throw new WordError("'caisson exec' requires at least 2 arguments")
  const tty = draft.options.tty === true
  if (lacksTerminal(tty, draft.interactive)) return 1
  const at = draft.root ?? root
  const engine = engineAt(at)
  const container = await engine.containers.get(ref)
  const env = Object.fromEntries([...draft.files, ...draft.env])
  const child = container.exec(command, {
    ...draft.options,
    ...(Object.keys(env).length > 0 && { env }),
    ...stdioOptions(tty, draft.interactive),
  })
  proxySignals(child)
  const leave = tty ? join(child, draft.interactive) : undefined
  try {
    return exitCode(await child, draft.options, 'command')
  } finally {
    leave?.()
    container.close()
    if (draft.interactive) process.stdin.destroy()
  }
}
