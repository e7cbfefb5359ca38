/** `caisson doctor`: whether containers run here, and what would mend what they lack. */
import { engineAt } from './engine.ts'
import { parseAnywhere, WordError } from './flags/words.ts'
import { helpText } from './help.ts'
import { format, formatFlag } from './output.ts'
import type { FormatDraft } from './output.ts'

/** Prints what was found, and answers 1 where no container runs. */
export async function doctor(words: readonly string[], root: string | undefined): Promise<number> {
  const draft: FormatDraft = { help: false }
  const [more] = parseAnywhere(formatFlag, words, draft)
  if (draft.help) {
    process.stdout.write(
      helpText('caisson doctor [OPTIONS]', 'Show whether containers run here.', formatFlag),
    )
    return 0
  }
  if (more !== undefined) throw new WordError(`'${more}' is one word too many`)
  const at = draft.root ?? root
  const engine = engineAt(at)
  const findings = await engine.doctor()
  const runs = findings.every(({ state }) => state !== 'missing')
  const lines = findings.map(({ name, state, detail, mend }) => {
    const line = `${state.padEnd(8)}${name}: ${detail}`
    return mend === undefined ? line : `${line}\n${' '.repeat(8)}mend it: ${mend}`
  })
  process.stdout.write(
    draft.format === undefined ? `${lines.join('\n')}\n` : format({ runs, findings }, draft.format),
  )
  return runs ? 0 : 1
}
