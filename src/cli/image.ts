/** `caisson image`, `rmi`, `tag`, `history`: one image, and what becomes of it. */
import { CaissonError } from '../index.ts'
import type { Engine, VerifiedImage } from '../index.ts'
import { importRootfs, load, save } from './archive.ts'
import { engineAt } from './engine.ts'
import { fail } from './fail.ts'
import { factsFlags, historyFlags, pruneFlags, rmiFlags, verifyFlags } from './flags/images.ts'
import type { FactsDraft, HistoryDraft, PruneDraft, RemoveDraft } from './flags/images.ts'
import { common } from './flags/containers.ts'
import { parseAnywhere, WordError } from './flags/words.ts'
import { interrupted } from './interrupted.ts'
import { helpText } from './help.ts'
import { images } from './images.ts'
import { asFlag } from './named.ts'
import { format } from './output.ts'
import { ago, blocked, bytes, shown } from './table.ts'
import { pull, push } from './transfer.ts'

/** Removes images, each by itself; answers the exit code. */
export async function rmi(words: readonly string[], root: string | undefined): Promise<number> {
  const draft: RemoveDraft = { force: false, help: false }
  const refs = parseAnywhere(rmiFlags, words, draft)
  if (draft.help) {
    const usage = 'caisson rmi [OPTIONS] IMAGE [IMAGE...]'
    process.stdout.write(helpText(usage, 'Remove one or more images.', rmiFlags))
    return 0
  }
  if (refs.length === 0) throw new WordError("'caisson rmi' requires at least 1 argument")
  const engine = engineAt(draft.root ?? root)
  let code = 0
  for (const ref of refs) {
    try {
      const { untagged, deleted } = await engine.images.remove(ref, { force: draft.force })
      process.stdout.write(untagged.map((name) => `Untagged: ${name}\n`).join(''))
      process.stdout.write(deleted.map((id) => `Deleted: ${id}\n`).join(''))
    } catch (error) {
      code = Math.min(fail(error, 'rmi '), 1)
    }
  }
  return code
}

/** Gives an image one more name; answers the exit code. */
export async function tag(words: readonly string[], root: string | undefined): Promise<number> {
  const draft: FactsDraft = { help: false }
  const flags = common<FactsDraft>()
  const [source, target, more] = parseAnywhere(flags, words, draft)
  if (draft.help) {
    const summary = 'Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE.'
    process.stdout.write(helpText('caisson tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]', summary, flags))
    return 0
  }
  if (source === undefined || target === undefined || more !== undefined)
    throw new WordError("'caisson tag' requires exactly 2 arguments")
  await engineAt(draft.root ?? root).images.tag(source, target)
  return 0
}

const steps = {
  ID: 'IMAGE',
  CreatedSince: 'CREATED',
  CreatedBy: 'CREATED BY',
  Size: 'SIZE',
  Comment: 'COMMENT',
}

/** Prints how an image was made, and answers the exit code. */
export async function history(words: readonly string[], root: string | undefined): Promise<number> {
  const draft: HistoryDraft = { quiet: false, whole: false, help: false }
  const [reference, more] = parseAnywhere(historyFlags, words, draft)
  if (draft.help) {
    const usage = 'caisson history [OPTIONS] IMAGE'
    process.stdout.write(helpText(usage, 'Show the history of an image.', historyFlags))
    return 0
  }
  if (reference === undefined || more !== undefined)
    throw new WordError("'caisson history' requires exactly 1 argument")
  const engine = engineAt(draft.root ?? root)
  const { id } = await engine.images.get(reference)
  const cut = (text: string): string => (draft.whole || text.length <= 45 ? text : `${text.slice(0, 44)}…`)
  const rows = (await engine.images.history(reference)).map(({ created, createdBy, comment, size }, at) => ({
    ID: at > 0 ? '<missing>' : draft.whole ? id : id.slice('sha256:'.length, 'sha256:'.length + 12),
    CreatedSince: created === undefined ? 'N/A' : `${ago(Date.now() - Number(created))} ago`,
    CreatedAt: created?.toISOString() ?? '',
    CreatedBy: cut(createdBy.replaceAll(/\s+/g, ' ')),
    Size: bytes(size),
    Comment: comment,
  }))
  process.stdout.write(shown(rows, draft.quiet ? '{{.ID}}' : draft.format, steps))
  return 0
}

/** What is known of an image, by docker's names. */
export async function described(engine: Engine, reference: string): Promise<Record<string, unknown>> {
  const info = await engine.images.get(reference)
  const config = await engine.images.config(reference)
  return {
    Id: info.id,
    RepoTags: info.names,
    RepoDigests: info.repoDigests,
    Created: info.created?.toISOString(),
    Author: config.author ?? '',
    Architecture: config.architecture,
    Os: config.os,
    ...(config.variant !== undefined && { Variant: config.variant }),
    Platforms: info.platforms,
    Size: info.size,
    Config: config.config ?? {},
    RootFS: { Type: 'layers', Layers: (config.rootfs as { diff_ids?: unknown } | undefined)?.diff_ids ?? [] },
    Descriptor: { digest: info.digest },
  }
}

async function inspect(words: readonly string[], root: string | undefined): Promise<number> {
  const draft: FactsDraft = { help: false }
  const refs = parseAnywhere(factsFlags, words, draft)
  if (draft.help) {
    const usage = 'caisson image inspect [OPTIONS] IMAGE [IMAGE...]'
    process.stdout.write(helpText(usage, 'Display detailed information on one or more images.', factsFlags))
    return 0
  }
  if (refs.length === 0) throw new WordError("'caisson image inspect' requires at least 1 argument")
  const engine = engineAt(draft.root ?? root)
  const found: Record<string, unknown>[] = []
  let code = 0
  for (const ref of refs) {
    try {
      found.push(await described(engine, ref))
    } catch (error) {
      if (!(error instanceof CaissonError) || error.code !== 'ERR_IMAGE_NOT_FOUND') throw error
      process.stderr.write(`Error: No such image: ${ref.replaceAll(/\p{Cc}/gu, ' ')}\n`)
      code = 1
    }
  }
  const form = draft.format
  process.stdout.write(
    form === undefined || form === 'json'
      ? `${JSON.stringify(found, null, form === undefined ? 4 : 0)}\n`
      : found.map((one) => format(one, form)).join(''),
  )
  return code
}

async function confirmed(question: string): Promise<boolean> {
  const { createInterface } = await import('node:readline/promises')
  const lines = createInterface({ input: process.stdin, output: process.stdout })
  try {
    return /^y(es)?$/i.test(
      (await lines.question(`${question}\nAre you sure you want to continue? [y/N] `)).trim(),
    )
  } finally {
    lines.close()
  }
}

async function prune(words: readonly string[], root: string | undefined): Promise<number> {
  const draft: PruneDraft = { all: false, blobs: false, force: false, help: false }
  const [more] = parseAnywhere(pruneFlags, words, draft)
  if (draft.help) {
    process.stdout.write(helpText('caisson image prune [OPTIONS]', 'Remove unused images.', pruneFlags))
    return 0
  }
  if (more !== undefined) throw new WordError('"caisson image prune" accepts no arguments')
  const what = draft.all ? 'all images that no running container uses' : 'all dangling images'
  const also = draft.blobs
    ? ', and the compressed blobs of what is unpacked: push and save of these images need a pull first, which needs a registry that has them'
    : ''
  if (!draft.force && !(await confirmed(`WARNING! This will remove ${what}${also}.`))) return 0
  const { all, blobs, keepStorage } = draft
  const { untagged, deleted, reclaimed, damaged } = await asFlag('--keep-storage', 'keepStorage', () =>
    engineAt(draft.root ?? root).images.prune({
      all,
      blobs,
      ...(keepStorage !== undefined && { keepStorage }),
    }),
  )
  process.stdout.write(untagged.map((name) => `untagged: ${name}\n`).join(''))
  process.stdout.write(deleted.map((id) => `deleted: ${id}\n`).join(''))
  process.stdout.write(`Total reclaimed space: ${bytes(reclaimed)}\n`)
  process.stderr.write(blocked(damaged))
  return 0
}

/** Verifies images, and answers the exit code: 1 where something is damaged or missing. */
async function verify(words: readonly string[], root: string | undefined): Promise<number> {
  const draft: FactsDraft = { help: false }
  const refs = parseAnywhere(verifyFlags, words, draft)
  if (draft.help) {
    const summary = 'Check images against their digests, all without IMAGE; a pull mends what is found.'
    process.stdout.write(helpText('caisson image verify [OPTIONS] [IMAGE...]', summary, verifyFlags))
    return 0
  }
  const { format: form } = draft
  const found = await engineAt(draft.root ?? root).images.verify(refs, {
    signal: interrupted('verify'),
    onProgress: (one) =>
      void process.stdout.write(form === undefined ? verified(one) : format({ ...one }, form)),
  })
  return found.every(({ isWhole }) => isWhole) ? 0 : 1
}

/** A line for the image, and one for each fault. */
function verified({ digest, names, isWhole, faults }: VerifiedImage): string {
  const name = names.length === 0 ? `<none>@${digest}` : names.join(', ')
  const lines = faults.map(({ part, layer, digest: of, state, message, left }) => {
    const where = layer === undefined ? `${part} ${of}` : `layer ${layer + 1} ${of}: ${part}`
    // Names of files are whatever a layer says, or who damaged it.
    const said = message.replaceAll(/\p{Cc}/gu, ' ')
    const next =
      left !== undefined
        ? `; it was left: ${left}`
        : state === 'unverifiable'
          ? ''
          : '; the next pull brings it'
    return `  ${where}: ${state}: ${said}${next}\n`
  })
  return `${name}: ${isWhole ? 'ok' : 'damaged'}\n${lines.join('')}`
}

type Act = (words: readonly string[], root: string | undefined) => Promise<number>

const acts: Readonly<Record<string, Act>> = {
  history,
  import: importRootfs,
  inspect,
  list: images,
  load,
  ls: images,
  prune,
  pull,
  push,
  remove: rmi,
  rm: rmi,
  save,
  tag,
  verify,
}

/** `caisson image COMMAND`. */
export async function image(words: readonly string[], root: string | undefined): Promise<number> {
  const [name, ...rest] = words
  if (name === undefined || name === '--help') {
    process.stdout.write(`Usage:  caisson image COMMAND\n\nManage images: ${Object.keys(acts).join(', ')}\n`)
    return 0
  }
  const act = Object.hasOwn(acts, name) ? acts[name] : undefined
  if (act === undefined) throw new WordError(`unknown command: caisson image ${name}`)
  return act(rest, root)
}
