/** `caisson version`: loads nothing but this. */
import manifest from '../../package.json' with { type: 'json' }
import { format, formatFlag } from './output.ts'
import type { FormatDraft } from './output.ts'
import { parseAnywhere } from './flags/words.ts'
import { helpText } from './help.ts'

/** Prints the version, and answers the exit code. */
export function version(words: readonly string[]): number {
  const draft: FormatDraft = { help: false }
  parseAnywhere(formatFlag, words, draft)
  if (draft.help) {
    process.stdout.write(helpText('caisson version [OPTIONS]', 'Show the version.', formatFlag))
    return 0
  }
  const facts = {
    version: manifest.version,
    node: process.version,
    platform: process.platform,
    arch: process.arch,
  }
  process.stdout.write(
    draft.format === undefined ? `caisson version ${facts.version}\n` : format(facts, draft.format),
  )
  return 0
}
