/** `caisson commit` and `caisson export`: what a container's files become. */
import { engineAt } from './engine.ts'
import { interrupted } from './interrupted.ts'
import { commitFlags, exportFlags } from './flags/containers.ts'
import type { CommitDraft, ExportDraft } from './flags/containers.ts'
import { parseAnywhere, WordError } from './flags/words.ts'
import { helpText } from './help.ts'

/** Makes an image of a container, and answers the exit code. */
export async function commit(words: readonly string[], root: string | undefined): Promise<number> {
  const draft: CommitDraft = { options: {}, changes: [], help: false }
  const [ref, reference, more] = parseAnywhere(commitFlags, words, draft)
  if (draft.help) {
    const usage = 'caisson commit [OPTIONS] CONTAINER [REPOSITORY[:TAG]]'
    const summary =
      "Create a new image from a container's changes.\nWhat is mounted in the container is left out."
    process.stdout.write(helpText(usage, summary, commitFlags))
    return 0
  }
  if (ref === undefined || more !== undefined)
    throw new WordError("'caisson commit' requires at least 1 and at most 2 arguments")
  const container = await engineAt(draft.root ?? root).containers.get(ref)
  try {
    const { id } = await container.commit({
      ...draft.options,
      changes: draft.changes,
      signal: interrupted('commit'),
      ...(reference !== undefined && { reference }),
    })
    process.stdout.write(`${id}\n`)
    return 0
  } finally {
    container.close()
  }
}

/** Writes a container's root file system, and answers the exit code. */
export async function exportRootfs(words: readonly string[], root: string | undefined): Promise<number> {
  const draft: ExportDraft = { help: false }
  const [ref, more] = parseAnywhere(exportFlags, words, draft)
  if (draft.help) {
    const usage = 'caisson export [OPTIONS] CONTAINER'
    const summary =
      "Export a container's filesystem as a tar archive.\nWhat is mounted in the container is left out."
    process.stdout.write(helpText(usage, summary, exportFlags))
    return 0
  }
  if (ref === undefined || more !== undefined)
    throw new WordError("'caisson export' requires exactly 1 argument")
  if (draft.output === undefined && process.stdout.isTTY)
    throw new WordError('cowardly refusing to save to a terminal. Use the -o flag or redirect')
  const container = await engineAt(draft.root ?? root).containers.get(ref)
  try {
    await container.export(draft.output ?? process.stdout, { signal: interrupted('export') })
    return 0
  } finally {
    container.close()
  }
}
