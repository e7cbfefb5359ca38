/** `caisson run`: a container from here to its end. */
import { closeSync, openSync, rmSync, writeSync } from 'node:fs'
import type { PullProgress, RunOptions } from '../index.ts'
import { exitCode, lacksTerminal, proxySignals, stdioOptions } from './attached.ts'
import { engineAt } from './engine.ts'
import { notYet, runDraft, runFlags } from './flags/run.ts'
import type { RunDraft } from './flags/run.ts'
import { parseWords, WordError } from './flags/words.ts'
import { helpText } from './help.ts'
import type { ProgressView } from './progress.ts'
import { join } from './terminal.ts'

const usage =
  'caisson run [OPTIONS] IMAGE [COMMAND] [ARG...]\n        caisson run [OPTIONS] --rootfs DIR COMMAND [ARG...]'
const summary =
  'Create and run a new container. An image is a name in a registry, or oci:DIR[:TAG], a layout on disk.'

function parse(words: readonly string[], draft: RunDraft): string[] {
  try {
    return parseWords(runFlags, words, draft)
  } catch (error) {
    const name = error instanceof WordError ? /^unknown flag: --(.*)$/.exec(error.message)?.[1] : undefined
    if (name !== undefined && notYet.has(name)) throw new WordError(`--${name} is not supported yet`)
    const letter =
      error instanceof WordError ? /^unknown shorthand flag: '(.)'/.exec(error.message)?.[1] : undefined
    const long = { a: 'attach', d: 'detach', p: 'publish', P: 'publish-all' }[letter ?? '']
    if (long !== undefined) throw new WordError(`-${letter}, --${long} is not supported yet`)
    throw error
  }
}

function options(draft: RunDraft): RunOptions {
  const env = Object.fromEntries([...draft.files, ...draft.env])
  return {
    ...draft.options,
    ...(Object.keys(env).length > 0 && { env }),
    ...stdioOptions(draft.options.tty === true, draft.interactive),
  }
}

/** Shows a pull, if there is one, on stderr; what shows it is loaded only then. `missing`: why there is one. */
function pullView(image: string | { rootfs: string }, missing: boolean): (progress: PullProgress) => void {
  const name = typeof image === 'string' ? image : image.rootfs
  let view: Promise<ProgressView> | undefined
  return (progress) => {
    view ??= (async () => {
      if (missing) process.stderr.write(`Unable to find image '${name}' locally\n`)
      const { ProgressView: View } = await import('./progress.ts')
      return new View(process.stderr, 'pull')
    })()
    void (async () => {
      const shown = await view
      shown.show(progress)
      if (progress.kind !== 'complete') return
      shown.end()
      const status = progress.changed ? 'Downloaded newer image for' : 'Image is up to date for'
      process.stderr.write(`Digest: ${progress.digest}\nStatus: ${status} ${name}\n`)
    })()
  }
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
  if (lacksTerminal(tty, draft.interactive)) return 1
  const image = draft.rootfs === undefined ? rest.shift() : { rootfs: draft.rootfs }
  if (image === undefined) throw new WordError("'caisson run' requires at least 1 argument")
  const at = draft.root ?? root
  const engine = engineAt(at)
  const { name } = draft.options
  if (name !== undefined) {
    const other = (await engine.containers.list()).find((one) => one.name === name)
    if (other !== undefined) {
      const what = `Conflict. The container name "/${name}" is already in use by container "${other.id}"`
      throw new WordError(`${what}. You have to stop that container, or give another name`)
    }
  }
  const idFile = draft.cidfile === undefined ? undefined : openIdFile(draft.cidfile)
  const watched = {
    ...options(draft),
    ...(!draft.quiet && { onProgress: pullView(image, draft.options.pull !== 'always') }),
  }
  const child = engine.run(image, rest.length > 0 ? rest : undefined, watched)
  proxySignals(child)
  const leave = tty ? join(child, draft.interactive) : undefined
  try {
    if (idFile !== undefined) {
      writeSync(idFile, child.id)
      closeSync(idFile)
    }
    return exitCode(await child, draft.options, 'container')
  } catch (error) {
    if (draft.cidfile !== undefined) rmSync(draft.cidfile, { force: true })
    throw error
  } finally {
    leave?.()
    // What nobody reads any more would keep this program; touched only if it was, since its making takes 3 ms.
    if (draft.interactive) process.stdin.destroy()
  }
}
