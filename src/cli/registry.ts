/** `caisson registry` and `caisson manifest`: what a registry has, without pulling it. */
import { registry as asked } from '../index.ts'
import type { Referrer } from '../index.ts'
import { manifestFlags, referrersFlags, tagsFlags } from './flags/registry.ts'
import type { ReferrersDraft, TagsDraft } from './flags/registry.ts'
import { parseAnywhere, WordError } from './flags/words.ts'
import type { Flag } from './flags/words.ts'
import { helpText } from './help.ts'
import { format } from './output.ts'
import { shown } from './table.ts'

/** What steers a terminal, of a stranger's text: blanks instead. */
function plain(text: string): string {
  return text.replaceAll(/[\p{Cc}\u2028-\u202e\u2066-\u2069]/gu, ' ')
}

/** The one operand; undefined where the help was asked for. */
function operand<Draft extends { help: boolean }>(
  words: readonly string[],
  flags: readonly Flag<Draft>[],
  draft: Draft,
  [name, form, summary]: [string, string, string],
): string | undefined {
  const [given, more] = parseAnywhere(flags, words, draft)
  if (draft.help) {
    process.stdout.write(helpText(`caisson ${name} [OPTIONS] ${form}`, summary, flags))
    return undefined
  }
  if (given === undefined || more !== undefined)
    throw new WordError(`'caisson ${name}' requires exactly 1 argument`)
  return given
}

async function tags(words: readonly string[]): Promise<number> {
  const draft: TagsDraft = { help: false }
  const about: [string, string, string] = ['registry tags', 'REPOSITORY', 'List the tags of a repository.']
  const repository = operand(words, tagsFlags, draft, about)
  if (repository === undefined) return 0
  const found = await asked.tags(repository, draft.limit === undefined ? {} : { limit: draft.limit })
  const form = draft.format ?? '{{.Tag}}'
  process.stdout.write(found.map((tag) => format({ Tag: tag }, form)).join(''))
  return 0
}

const columns = { Digest: 'DIGEST', ArtifactType: 'ARTIFACT TYPE', Size: 'SIZE' }

function row({ digest, mediaType, size, artifactType, annotations }: Referrer): Record<string, string> {
  return {
    Digest: digest,
    ArtifactType: plain(artifactType ?? ''),
    MediaType: plain(mediaType),
    Size: String(size),
    Annotations: plain(JSON.stringify(annotations)),
  }
}

async function referrers(words: readonly string[]): Promise<number> {
  const draft: ReferrersDraft = { help: false }
  const summary = 'List what refers to a manifest: signatures, attestations, bills of materials.'
  const form = 'NAME[:TAG|@DIGEST]'
  const image = operand(words, referrersFlags, draft, ['registry referrers', form, summary])
  if (image === undefined) return 0
  const { artifactType, format: wanted } = draft
  const found = await asked.referrers(image, artifactType === undefined ? {} : { artifactType })
  process.stdout.write(
    wanted === 'json'
      ? found.map((one) => plain(JSON.stringify(one)) + '\n').join('')
      : shown(found.map(row), wanted, columns),
  )
  return 0
}

async function inspect(words: readonly string[]): Promise<number> {
  const draft = { help: false }
  const summary = 'Show the manifest or index of a name, byte for byte as its registry serves it.'
  const image = operand(words, manifestFlags, draft, ['manifest inspect', 'NAME[:TAG|@DIGEST]', summary])
  if (image === undefined) return 0
  const { bytes } = await asked.manifest(image)
  if (process.stdout.isTTY) process.stdout.write(`${bytes.toString().split('\n').map(plain).join('\n')}\n`)
  else process.stdout.write(bytes)
  return 0
}

type Act = (words: readonly string[]) => Promise<number>

/** Picks one act of a group. */
async function pick(
  group: string,
  acts: Readonly<Record<string, Act>>,
  summary: string,
  words: readonly string[],
): Promise<number> {
  const [name, ...rest] = words
  if (name === undefined || name === '--help') {
    const list = Object.keys(acts).join(', ')
    process.stdout.write(`Usage:  caisson ${group} COMMAND\n\n${summary}: ${list}\n`)
    return 0
  }
  const act = Object.hasOwn(acts, name) ? acts[name] : undefined
  if (act === undefined) throw new WordError(`unknown command: caisson ${group} ${name}`)
  return act(rest)
}

/** `caisson registry COMMAND`. */
export async function registry(words: readonly string[], _root: string | undefined): Promise<number> {
  return pick('registry', { referrers, tags }, 'List what a registry has', words)
}

/** `caisson manifest COMMAND`. */
export async function manifest(words: readonly string[], _root: string | undefined): Promise<number> {
  return pick('manifest', { inspect }, 'Show what a registry has under a name', words)
}
