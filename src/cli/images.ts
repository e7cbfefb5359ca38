/** `caisson images`: what is here. */
import type { Engine, ImageInfo } from '../index.ts'
import { engineAt } from './engine.ts'
import { imagesFlags } from './flags/images.ts'
import type { ImagesDraft } from './flags/images.ts'
import { isTrue, parseAnywhere, WordError } from './flags/words.ts'
import { helpText } from './help.ts'
import { ago, bytes, shown } from './table.ts'

const none = '<none>'
const columns = {
  Repository: 'REPOSITORY',
  Tag: 'TAG',
  ID: 'IMAGE ID',
  CreatedSince: 'CREATED',
  Size: 'SIZE',
}

interface Row {
  info: ImageInfo
  repository: string
  tag: string
  digest: string
}

/** `debian:12` to its two halves. */
function halves(name: string): [string, string] {
  const at = name.lastIndexOf(':')
  return [name.slice(0, at), name.slice(at + 1)]
}

/** A row a name; one of an image without. */
function rows(info: ImageInfo): Row[] {
  const digestOf = (repository: string): string =>
    info.repoDigests.find((one) => one.startsWith(`${repository}@`))?.split('@')[1] ?? none
  if (info.names.length > 0)
    return info.names.map((name) => {
      const [repository, tag] = halves(name)
      return { info, repository, tag, digest: digestOf(repository) }
    })
  const [repository] = info.repoDigests[0]?.split('@') ?? []
  return [
    {
      info,
      repository: repository ?? none,
      tag: none,
      digest: repository === undefined ? none : digestOf(repository),
    },
  ]
}

function described({ info, repository, tag, digest }: Row, whole: boolean): Record<string, string> {
  const age = info.created === undefined ? 'N/A' : `${ago(Date.now() - Number(info.created))} ago`
  return {
    Repository: repository,
    Tag: tag,
    Digest: digest,
    ID: whole ? info.id : info.id.slice('sha256:'.length, 'sha256:'.length + 12),
    CreatedSince: age,
    CreatedAt: info.created?.toISOString() ?? '',
    Size: bytes(info.size),
  }
}

/** Docker's pattern: `*` and `?` within a component, of a repository, with or without its tag. */
function fits(pattern: string, { repository, tag }: Row): boolean {
  const source = pattern
    .replaceAll(/[.+^${}()|[\]\\]/g, '\\$&')
    .replaceAll('*', '[^/]*')
    .replaceAll('?', '[^/]')
  const expression = new RegExp(`^${source}$`)
  return expression.test(repository) || expression.test(`${repository}:${tag}`)
}

async function test(engine: Engine, [key, word]: [string, string]): Promise<(row: Row) => boolean> {
  if (key === 'dangling') return ({ tag }) => (tag === none) === isTrue(word)
  if (key === 'reference') return (row) => fits(word, row)
  if (key === 'label') {
    const [label = '', value] = word.split(/=(.*)/s, 2)
    return ({ info }) =>
      Object.hasOwn(info.labels, label) && (value === undefined || info.labels[label] === value)
  }
  const other = Number((await engine.images.get(word)).created ?? 0)
  const age = (row: Row): number => Number(row.info.created ?? 0)
  return key === 'before' ? (row) => age(row) < other : (row) => age(row) > other
}

/** Prints them, the newest first, and answers the exit code. */
export async function images(words: readonly string[], root: string | undefined): Promise<number> {
  const draft: ImagesDraft = { filters: [], digests: false, quiet: false, whole: false, help: false }
  const [pattern, more] = parseAnywhere(imagesFlags, words, draft)
  if (draft.help) {
    process.stdout.write(helpText('caisson images [OPTIONS] [REPOSITORY[:TAG]]', 'List images.', imagesFlags))
    return 0
  }
  if (more !== undefined) throw new WordError('"caisson images" accepts at most 1 argument')
  const at = draft.root ?? root
  const engine = engineAt(at)
  const tests = await Promise.all(draft.filters.map((filter) => test(engine, filter)))
  const found = (await engine.images.list())
    .flatMap(rows)
    .filter((row) => (pattern === undefined || fits(pattern, row)) && tests.every((one) => one(row)))
  const facts = found.map((row) => described(row, draft.whole))
  const { Repository, Tag, ...others } = columns
  const wide = { Repository, Tag, Digest: 'DIGEST', ...others }
  process.stdout.write(
    draft.quiet
      ? [...new Set(facts.map(({ ID }) => `${ID}\n`))].join('')
      : shown(facts, draft.format, draft.digests ? wide : columns),
  )
  return 0
}
