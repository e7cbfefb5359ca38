/** `caisson load`, `caisson save` and `caisson import`. */
import { engineAt } from './engine.ts'
import { importFlags, loadFlags, saveFlags } from './flags/images.ts'
import type { ImportDraft, LoadDraft, SaveDraft } from './flags/images.ts'
import { parseAnywhere, WordError } from './flags/words.ts'
import { interrupted } from './interrupted.ts'
import { helpText } from './help.ts'
import { ProgressView } from './progress.ts'
import { chosen } from './transfer.ts'

/** Loads the images of an archive, and answers the exit code. */
export async function load(words: readonly string[], root: string | undefined): Promise<number> {
  const draft: LoadDraft = { quiet: false, help: false }
  const [more] = parseAnywhere(loadFlags, words, draft)
  if (draft.help) {
    const summary = 'Load images from a tar archive or STDIN.'
    process.stdout.write(helpText('caisson load [OPTIONS]', summary, loadFlags))
    return 0
  }
  if (more !== undefined) throw new WordError("'caisson load' accepts no arguments")
  if (draft.input === undefined && process.stdin.isTTY)
    throw new WordError('requested load from stdin, but stdin is a terminal')
  const view = draft.quiet || !process.stdout.isTTY ? undefined : new ProgressView(process.stdout, 'load')
  const said: string[] = []
  await engineAt(draft.root ?? root).images.load(draft.input ?? process.stdin, {
    signal: interrupted('load'),
    ...chosen(draft),
    onProgress: (progress) => {
      if (progress.kind === 'renamed')
        said.push(
          `The image ${progress.name} already exists, renaming the old one with ID ${progress.id} to empty string`,
        )
      else if (progress.kind === 'loaded')
        said.push(
          progress.name === undefined ? `Loaded image ID: ${progress.id}` : `Loaded image: ${progress.name}`,
        )
      else view?.show(progress)
    },
  })
  view?.end()
  process.stdout.write(said.map((line) => `${line}\n`).join(''))
  return 0
}

/** Saves images, and answers the exit code. */
export async function save(words: readonly string[], root: string | undefined): Promise<number> {
  const draft: SaveDraft = { format: 'docker', help: false }
  const refs = parseAnywhere(saveFlags, words, draft)
  if (draft.help) {
    const summary = 'Save one or more images to a tar archive (streamed to STDOUT by default).'
    process.stdout.write(helpText('caisson save [OPTIONS] IMAGE [IMAGE...]', summary, saveFlags))
    return 0
  }
  if (refs.length === 0) throw new WordError("'caisson save' requires at least 1 argument")
  if (draft.output === undefined && draft.format === 'oci-dir')
    throw new WordError('--format oci-dir needs --output DIRECTORY')
  if (draft.output === undefined && process.stdout.isTTY)
    throw new WordError('cowardly refusing to save to a terminal. Use the -o flag or redirect')
  await engineAt(draft.root ?? root).images.save(refs, draft.output ?? process.stdout, {
    format: draft.format,
    ...(draft.platform !== undefined && { platform: draft.platform }),
    signal: interrupted('save'),
  })
  return 0
}

/** Imports a root file system, and answers the exit code. */
export async function importRootfs(words: readonly string[], root: string | undefined): Promise<number> {
  const draft: ImportDraft = { changes: [], help: false }
  const [source, reference, more] = parseAnywhere(importFlags, words, draft)
  if (draft.help) {
    const summary = 'Import the contents of a tar archive as the root file system of an image.'
    process.stdout.write(helpText('caisson import [OPTIONS] FILE|- [REPOSITORY[:TAG]]', summary, importFlags))
    return 0
  }
  if (source === undefined || more !== undefined)
    throw new WordError("'caisson import' requires 1 or 2 arguments")
  if (source === '-' && process.stdin.isTTY)
    throw new WordError('requested import from stdin, but stdin is a terminal')
  if (/^https?:/.test(source)) throw new WordError('an import from a URL is not supported: fetch it first')
  const image = await engineAt(draft.root ?? root).images.import(source === '-' ? process.stdin : source, {
    signal: interrupted('import'),
    changes: draft.changes,
    message: draft.message ?? `Imported from ${source}`,
    ...(reference !== undefined && { reference }),
    ...(draft.platform !== undefined && { platform: draft.platform }),
  })
  process.stdout.write(`${image.id}\n`)
  return 0
}
