/** The flags of commands that are about containers that run. */
import type { CommitOptions } from '../../index.ts'
import { count } from './parse.ts'
import { isTrue, WordError } from './words.ts'
import type { Flag } from './words.ts'

export interface Common {
  root?: string
  help: boolean
}

export function common<Draft extends Common>(): Flag<Draft>[] {
  return [
    { long: 'help', help: 'Print usage', apply: (draft, value) => void (draft.help = isTrue(value)) },
    {
      long: 'root',
      value: 'dir',
      help: 'Where all state and storage is',
      apply: (draft, value) => void (draft.root = value),
    },
  ]
}

export function template<Draft extends { format?: string }>(help: string): Flag<Draft> {
  return {
    long: 'format',
    value: 'string',
    help,
    apply: (draft, value) => void (draft.format = value),
  }
}

export interface CommitDraft extends Common {
  options: Pick<CommitOptions, 'author' | 'message' | 'pause'>
  changes: string[]
}

export const commitFlags: readonly Flag<CommitDraft>[] = [
  {
    long: 'author',
    short: 'a',
    value: 'string',
    help: 'Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")',
    apply: ({ options }, value) => void (options.author = value),
  },
  {
    long: 'change',
    short: 'c',
    value: 'list',
    help: 'Apply Dockerfile instruction to the created image',
    apply: ({ changes }, value) => void changes.push(value),
  },
  ...common<CommitDraft>(),
  {
    long: 'message',
    short: 'm',
    value: 'string',
    help: 'Commit message',
    apply: ({ options }, value) => void (options.message = value),
  },
  {
    long: 'no-pause',
    help: 'Do not pause the container during commit',
    apply: ({ options }, value) => void (options.pause = !isTrue(value)),
  },
  {
    long: 'pause',
    short: 'p',
    help: 'Pause the container during commit, or refuse; by default it is paused if it can be',
    apply: ({ options }, value) => void (options.pause = isTrue(value)),
  },
]

export interface ExportDraft extends Common {
  output?: string
}

export const exportFlags: readonly Flag<ExportDraft>[] = [
  ...common<ExportDraft>(),
  {
    long: 'output',
    short: 'o',
    value: 'string',
    help: 'Write to a file, instead of STDOUT',
    apply: (draft, value) => void (draft.output = value),
  },
]

export interface EndDraft extends Common {
  signal?: string
  timeout?: number
}

function signal(help: string): Flag<EndDraft> {
  return {
    long: 'signal',
    short: 's',
    value: 'string',
    help,
    apply: (draft, value) => void (draft.signal = value),
  }
}

export const killFlags: readonly Flag<EndDraft>[] = [
  ...common<EndDraft>(),
  signal('Signal to send to the container, SIGKILL by default'),
]

export const stopFlags: readonly Flag<EndDraft>[] = [
  ...common<EndDraft>(),
  signal('Signal to send to the container, its stop signal by default'),
  {
    long: 'timeout',
    short: 't',
    value: 'int',
    help: 'Seconds to wait before killing the container',
    apply: (draft, value) => {
      const seconds = count(value)
      // Docker's -1 waits for ever.
      draft.timeout = seconds < 0 ? Number.MAX_SAFE_INTEGER : seconds * 1000
    },
  },
]

export interface ListDraft extends Common {
  format?: string
  filters: [string, string][]
  last: number
  quiet: boolean
  whole: boolean
}

const filters = ['id', 'label', 'name', 'status']

export const psFlags: readonly Flag<ListDraft>[] = [
  {
    long: 'all',
    short: 'a',
    help: 'Show all containers: so far there are none but those that run',
    apply: () => {},
  },
  {
    long: 'filter',
    short: 'f',
    value: 'filter',
    help: 'Filter output: id=, name=, label=KEY[=VALUE], status=',
    apply: (draft, value) => {
      const [key = '', word] = value.split(/=(.*)/s, 2)
      if (word === undefined) throw new WordError('bad format of filter (expected name=value)')
      if (!filters.includes(key)) throw new WordError(`invalid filter '${key}'`)
      draft.filters.push([key, word])
    },
  },
  template<ListDraft>("'json', 'table TEMPLATE' or a template like '{{.Names}}'"),
  ...common<ListDraft>(),
  {
    long: 'last',
    short: 'n',
    value: 'int',
    help: 'Show n last created containers',
    apply: (draft, value) => void (draft.last = count(value)),
  },
  {
    long: 'latest',
    short: 'l',
    help: 'Show the latest created container',
    apply: (draft, value) => void (draft.last = isTrue(value) ? 1 : -1),
  },
  {
    long: 'no-trunc',
    help: "Don't truncate output",
    apply: (draft, value) => void (draft.whole = isTrue(value)),
  },
  {
    long: 'quiet',
    short: 'q',
    help: 'Only display container IDs',
    apply: (draft, value) => void (draft.quiet = isTrue(value)),
  },
]

export interface StatsDraft extends Common {
  format?: string
  once: boolean
  whole: boolean
}

export const statsFlags: readonly Flag<StatsDraft>[] = [
  { long: 'all', short: 'a', help: 'Show all containers: those that run', apply: () => {} },
  template<StatsDraft>("'json' or a template like '{{.CPUPerc}}'"),
  ...common<StatsDraft>(),
  {
    long: 'no-stream',
    help: 'Disable streaming stats and only pull the first result',
    apply: (draft, value) => void (draft.once = isTrue(value)),
  },
  {
    long: 'no-trunc',
    help: 'Do not truncate output',
    apply: (draft, value) => void (draft.whole = isTrue(value)),
  },
]

export interface InspectDraft extends Common {
  format?: string
}

export const inspectFlags: readonly Flag<InspectDraft>[] = [
  { ...template<InspectDraft>("'json' or a template like '{{.State.Pid}}'"), short: 'f' },
  ...common<InspectDraft>(),
]
