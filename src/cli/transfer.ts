/** `caisson pull` and `caisson push`. */
import { Engine } from '../index.ts'
import { pullFlags, pushFlags } from './flags/images.ts'
import type { TransferDraft } from './flags/images.ts'
import { parseAnywhere, WordError } from './flags/words.ts'
import type { Flag } from './flags/words.ts'
import { interrupted } from './interrupted.ts'
import { helpText } from './help.ts'
import { asFlag } from './named.ts'
import { ProgressView } from './progress.ts'

interface Asked {
  reference: string
  draft: TransferDraft
  engine: Engine
  /** Aborted by ^C: what came so far is kept. */
  signal: AbortSignal
}

/** What was asked for; undefined where the help was. */
async function asked(
  name: string,
  flags: readonly Flag<TransferDraft>[],
  [form, summary]: [string, string],
  words: readonly string[],
  root: string | undefined,
): Promise<Asked | undefined> {
  const draft: TransferDraft = { quiet: false, help: false }
  const [reference, more] = parseAnywhere(flags, words, draft)
  if (draft.help) {
    process.stdout.write(helpText(`caisson ${name} [OPTIONS] ${form}`, summary, flags))
    return undefined
  }
  if (reference === undefined || more !== undefined)
    throw new WordError(`'caisson ${name}' requires exactly 1 argument`)
  const at = draft.root ?? root
  const { storeLimit } = draft
  const options = {
    ...(at !== undefined && { root: at }),
    ...(storeLimit !== undefined && { storeLimit }),
  }
  const engine = await asFlag('--store-limit', 'storeLimit', () => new Engine(options))
  return { reference, draft, engine, signal: interrupted(name) }
}

/** Which platforms. */
export function chosen({ platform, allPlatforms }: TransferDraft): {
  platform?: string
  allPlatforms?: boolean
} {
  if (platform !== undefined && allPlatforms === true)
    throw new WordError('--platform and --all-platforms are mutually exclusive')
  return { ...(platform !== undefined && { platform }), ...(allPlatforms === true && { allPlatforms }) }
}

/** Pulls, and answers the exit code. */
export async function pull(words: readonly string[], root: string | undefined): Promise<number> {
  const about: [string, string] = ['NAME[:TAG|@DIGEST]', 'Download an image from a registry.']
  const wanted = await asked('pull', pullFlags, about, words, root)
  if (wanted === undefined) return 0
  const { reference, draft, engine, signal } = wanted
  const view = draft.quiet ? undefined : new ProgressView(process.stdout, 'pull')
  const last = { changed: false, digest: '' }
  const image = await engine.images.pull(reference, {
    signal,
    ...chosen(draft),
    onProgress: (progress) => {
      if (progress.kind === 'complete') Object.assign(last, progress)
      view?.show(progress)
    },
  })
  view?.end()
  const name = image.names.find((one) => one === reference || one === `${reference}:latest`) ?? reference
  if (draft.quiet) process.stdout.write(`${name}\n`)
  else {
    const status = last.changed ? 'Downloaded newer image for' : 'Image is up to date for'
    process.stdout.write(`Digest: ${last.digest}\nStatus: ${status} ${name}\n${name}\n`)
  }
  return 0
}

/** Pushes, and answers the exit code. */
export async function push(words: readonly string[], root: string | undefined): Promise<number> {
  const about: [string, string] = ['NAME[:TAG]', 'Upload an image to a registry.']
  const wanted = await asked('push', pushFlags, about, words, root)
  if (wanted === undefined) return 0
  const { reference, draft, engine, signal } = wanted
  const view = draft.quiet ? undefined : new ProgressView(process.stdout, 'push')
  const digest = await engine.images.push(reference, {
    signal,
    ...chosen(draft),
    onProgress: (progress) => view?.show(progress),
  })
  view?.end()
  process.stdout.write(draft.quiet ? `${reference}\n` : `${reference}: digest: ${digest}\n`)
  return 0
}
