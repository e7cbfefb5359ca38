/** The flags of `exec`: docker's words, each once. */
import type { ExecOptions } from '../../index.ts'
import { envFile, variable } from './parse.ts'
import { isTrue, WordError } from './words.ts'
import type { Flag } from './words.ts'

/** What was typed, as far as the API has a word for it; the rest is the CLI's own. */
export interface ExecDraft {
  options: { -readonly [Name in keyof ExecOptions]: ExecOptions[Name] }
  files: [string, string][]
  env: [string, string][]
  root?: string
  interactive: boolean
  help: boolean
}

export function execDraft(): ExecDraft {
  return { options: {}, files: [], env: [], interactive: false, help: false }
}

/** In the order of the help. */
export const execFlags: readonly Flag<ExecDraft>[] = [
  {
    long: 'cap-drop',
    value: 'list',
    help: 'Drop Linux capabilities that the container has',
    apply: ({ options }, value) => void (options.capDrop = [...(options.capDrop ?? []), value]),
  },
  {
    long: 'env',
    short: 'e',
    value: 'list',
    help: 'Set environment variables',
    apply: ({ env }, value) => {
      const one = variable(value, process.env)
      if (one !== undefined) env.push(one)
    },
  },
  {
    long: 'env-file',
    value: 'list',
    help: 'Read in a file of environment variables',
    apply: ({ files }, value) => void files.push(...envFile(value, process.env)),
  },
  { long: 'help', help: 'Print usage', apply: (draft, value) => void (draft.help = isTrue(value)) },
  {
    long: 'interactive',
    short: 'i',
    help: 'Keep STDIN open',
    apply: (draft, value) => void (draft.interactive = isTrue(value)),
  },
  {
    long: 'privileged',
    help: 'Not to be had: a command has at most the rights of its container',
    apply: (_, value) => {
      if (isTrue(value)) throw new WordError('a command has at most the rights of its container')
    },
  },
  {
    long: 'root',
    value: 'dir',
    help: 'Where all state and storage is',
    apply: (draft, value) => void (draft.root = value),
  },
  {
    long: 'timeout',
    value: 'duration',
    help: 'Kill the command and its children after this time (10s, 1m30s)',
    apply: ({ options }, value) => void (options.timeout = value),
  },
  {
    long: 'tty',
    short: 't',
    help: 'Allocate a pseudo-TTY',
    apply: ({ options }, value) => void (options.tty = isTrue(value)),
  },
  {
    long: 'user',
    short: 'u',
    value: 'string',
    help: 'Username or UID (format: <name|uid>[:<group|gid>])',
    apply: ({ options }, value) => void (options.user = value),
  },
  {
    long: 'workdir',
    short: 'w',
    value: 'string',
    help: 'Working directory inside the container',
    apply: ({ options }, value) => void (options.workdir = value),
  },
]

/** Flags that docker has, whose parts are not built: refused by name. */
export const notYet: ReadonlyMap<string, string> = new Map([
  ['d', 'detach'],
  ['detach', 'detach'],
  ['detach-keys', 'detach-keys'],
])
