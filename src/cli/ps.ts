/** `caisson ps`: the containers that run, of every program of this user. */
import type { ContainerInfo } from '../index.ts'
import { engineAt } from './engine.ts'
import { psFlags } from './flags/containers.ts'
import type { ListDraft } from './flags/containers.ts'
import { parseAnywhere, WordError } from './flags/words.ts'
import { helpText } from './help.ts'
import { ago, shown } from './table.ts'

const columns = {
  ID: 'CONTAINER ID',
  Image: 'IMAGE',
  Command: 'COMMAND',
  RunningFor: 'CREATED',
  Status: 'STATUS',
  Ports: 'PORTS',
  Names: 'NAMES',
}

function cut(text: string, most: number): string {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text
}

function row(info: ContainerInfo, whole: boolean): Record<string, string> {
  const command = info.command.join(' ')
  const age = ago(Date.now() - Number(info.created))
  return {
    ID: whole ? info.id : info.id.slice(0, 12),
    Image: info.image,
    Command: `"${whole ? command : cut(command, 20)}"`,
    CreatedAt: info.created.toISOString(),
    RunningFor: `${age} ago`,
    State: 'running',
    Status: `Up ${age}`,
    Ports: '',
    Names: info.name ?? '',
    Labels: Object.entries(info.labels)
      .map(([key, value]) => `${key}=${value}`)
      .join(','),
    Networks: info.isolation.shared.includes('network') ? 'host' : 'none',
  }
}

function matches(info: ContainerInfo, [key, word]: [string, string]): boolean {
  if (key === 'id') return info.id.startsWith(word)
  if (key === 'status') return word === 'running'
  if (key === 'name') return info.name !== undefined && new RegExp(word).test(info.name)
  const [label = '', value] = word.split(/=(.*)/s, 2)
  return Object.hasOwn(info.labels, label) && (value === undefined || info.labels[label] === value)
}

/** Of filters with one name any will do; all names must have one. */
function passes(info: ContainerInfo, filters: readonly [string, string][]): boolean {
  const names = [...new Set(filters.map(([name]) => name))]
  return names.every((name) => {
    const those = filters.filter(([key]) => key === name)
    return name === 'label'
      ? those.every((one) => matches(info, one))
      : those.some((one) => matches(info, one))
  })
}

/** Prints them, the newest first, and answers the exit code. */
export async function ps(words: readonly string[], root: string | undefined): Promise<number> {
  const draft: ListDraft = { filters: [], last: -1, quiet: false, whole: false, help: false }
  const [more] = parseAnywhere(psFlags, words, draft)
  if (draft.help) {
    process.stdout.write(helpText('caisson ps [OPTIONS]', 'List containers.', psFlags))
    return 0
  }
  if (more !== undefined) throw new WordError('"caisson ps" accepts no arguments')
  const at = draft.root ?? root
  const engine = engineAt(at)
  const known = (await engine.containers.list()).filter((info) => passes(info, draft.filters))
  const some = draft.last < 0 ? known : known.slice(0, draft.last)
  const rows = some.map((info) => row(info, draft.whole))
  const form = draft.quiet ? '{{.ID}}' : draft.format
  process.stdout.write(shown(rows, form, columns))
  return 0
}
