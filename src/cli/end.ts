/** `caisson kill` and `caisson stop`: containers that run end, whichever program started them. */
import type { RunningContainer } from '../index.ts'
import { engineAt } from './engine.ts'
import { fail } from './fail.ts'
import { killFlags, stopFlags } from './flags/containers.ts'
import type { EndDraft } from './flags/containers.ts'
import { parseAnywhere, WordError } from './flags/words.ts'
import type { Flag } from './flags/words.ts'
import { helpText } from './help.ts'

/** Does one thing with each of the containers named, at once; prints those with which it went well. */
async function each(
  name: string,
  flags: readonly Flag<EndDraft>[],
  summary: string,
  words: readonly string[],
  root: string | undefined,
  act: (container: RunningContainer, draft: EndDraft) => Promise<void> | void,
): Promise<number> {
  const draft: EndDraft = { help: false }
  const refs = parseAnywhere(flags, words, draft)
  if (draft.help) {
    process.stdout.write(helpText(`caisson ${name} [OPTIONS] CONTAINER [CONTAINER...]`, summary, flags))
    return 0
  }
  if (refs.length === 0) throw new WordError(`'caisson ${name}' requires at least 1 argument`)
  const at = draft.root ?? root
  const engine = engineAt(at)
  const codes = await Promise.all(
    refs.map(async (ref) => {
      try {
        const container = await engine.containers.get(ref)
        await act(container, draft)
        container.close()
        process.stdout.write(`${ref}\n`)
        return 0
      } catch (error) {
        return Math.min(fail(error, `${name} `), 1)
      }
    }),
  )
  return Math.max(...codes)
}

/** Sends a signal; answers the exit code. */
export async function kill(words: readonly string[], root: string | undefined): Promise<number> {
  const summary = 'Kill one or more running containers.'
  return each('kill', killFlags, summary, words, root, (container, { signal }) =>
    container.kill(signal as NodeJS.Signals | undefined),
  )
}

/** Asks, waits, and kills; answers the exit code. */
export async function stop(words: readonly string[], root: string | undefined): Promise<number> {
  const summary = 'Stop one or more running containers.'
  return each('stop', stopFlags, summary, words, root, async (container, { signal, timeout }) =>
    container.stop({
      ...(signal !== undefined && { signal: signal as NodeJS.Signals }),
      ...(timeout !== undefined && { timeout }),
    }),
  )
}
