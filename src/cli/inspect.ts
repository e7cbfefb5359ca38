/** `caisson inspect`: what is known of containers that run, and of images. */
import { CaissonError } from '../index.ts'
import type { ContainerInfo, Engine } from '../index.ts'
import { engineAt } from './engine.ts'
import { inspectFlags } from './flags/containers.ts'
import type { InspectDraft } from './flags/containers.ts'
import { parseAnywhere, WordError } from './flags/words.ts'
import { helpText } from './help.ts'
import { format } from './output.ts'

/** Docker's names for it; `Isolation` is Caisson's own: what the kernel says is in force. */
function described(info: ContainerInfo): Record<string, unknown> {
  const [path = '', ...args] = info.command
  return {
    Id: info.id,
    Created: info.created.toISOString(),
    Path: path,
    Args: args,
    State: {
      Status: 'running',
      Running: true,
      Paused: false,
      Restarting: false,
      OOMKilled: false,
      Dead: false,
      Pid: info.pid,
      ExitCode: 0,
      Error: '',
      StartedAt: info.created.toISOString(),
    },
    Image: info.image,
    Name: `/${info.name ?? ''}`,
    HostConfig: { NetworkMode: info.isolation.shared.includes('network') ? 'host' : 'none' },
    Config: {
      Hostname: info.hostname,
      User: info.user,
      Env: info.env,
      Cmd: info.command,
      Image: info.image,
      WorkingDir: info.workdir,
      Labels: info.labels,
    },
    Isolation: info.isolation,
  }
}

/** What has no container of this name may be an image. */
async function imageOf(engine: Engine, ref: string): Promise<Record<string, unknown> | undefined> {
  const { described: image } = await import('./image.ts')
  try {
    return await image(engine, ref)
  } catch (error) {
    if (error instanceof CaissonError && /^ERR_(IMAGE_NOT_FOUND|INVALID_OPTION)$/.test(error.code))
      return undefined
    throw error
  }
}

/** Prints it as a list, or each by a template, and answers the exit code. */
export async function inspect(words: readonly string[], root: string | undefined): Promise<number> {
  const draft: InspectDraft = { help: false }
  const refs = parseAnywhere(inspectFlags, words, draft)
  if (draft.help) {
    const usage = 'caisson inspect [OPTIONS] CONTAINER|IMAGE [CONTAINER|IMAGE...]'
    process.stdout.write(
      helpText(usage, 'Return low-level information on containers and images.', inspectFlags),
    )
    return 0
  }
  if (refs.length === 0) throw new WordError("'caisson inspect' requires at least 1 argument")
  const at = draft.root ?? root
  const engine = engineAt(at)
  const found: Record<string, unknown>[] = []
  let code = 0
  for (const ref of refs) {
    try {
      const container = await engine.containers.get(ref)
      found.push(described(container.info))
      container.close()
    } catch (error) {
      if (!(error instanceof CaissonError) || error.code !== 'ERR_CONTAINER_NOT_FOUND') throw error
      const image = await imageOf(engine, ref)
      if (image !== undefined) {
        found.push(image)
        continue
      }
      const none = error.message.startsWith('No such container')
      process.stderr.write(none ? `Error: No such object: ${ref}\n` : `Error: ${error.message}\n`)
      code = 1
    }
  }
  const form = draft.format
  const text =
    form === undefined || form === 'json'
      ? `${JSON.stringify(found, null, form === undefined ? 4 : 0)}\n`
      : found.map((one) => format(one, form)).join('')
  process.stdout.write(text)
  return code
}
