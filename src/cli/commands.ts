/** The commands: a name, a sentence, and where it is. None is loaded before it is asked for. */

export interface CommandRow {
  name: string
  summary: string
  /** Runs the words behind the name, and answers the exit code. */
  act: (words: readonly string[], root: string | undefined) => Promise<number>
}

export const commands: readonly CommandRow[] = [
  {
    name: 'doctor',
    summary: 'Show whether containers run here, and what would mend what they lack',
    act: async (words, root) => (await import('./doctor.ts')).doctor(words, root),
  },
  {
    name: 'exec',
    summary: 'Execute a command in a running container',
    act: async (words, root) => (await import('./exec.ts')).exec(words, root),
  },
  {
    name: 'info',
    summary: 'Show what is installed, and where',
    act: async (words, root) => (await import('./info.ts')).info(words, root),
  },
  {
    name: 'inspect',
    summary: 'Return low-level information on containers',
    act: async (words, root) => (await import('./inspect.ts')).inspect(words, root),
  },
  {
    name: 'kill',
    summary: 'Kill one or more running containers',
    act: async (words, root) => (await import('./end.ts')).kill(words, root),
  },
  {
    name: 'ps',
    summary: 'List containers',
    act: async (words, root) => (await import('./ps.ts')).ps(words, root),
  },
  {
    name: 'run',
    summary: 'Create and run a new container',
    act: async (words, root) => (await import('./run.ts')).run(words, root),
  },
  {
    name: 'stats',
    summary: 'Display a live stream of resource usage statistics',
    act: async (words, root) => (await import('./stats.ts')).stats(words, root),
  },
  {
    name: 'stop',
    summary: 'Stop one or more running containers',
    act: async (words, root) => (await import('./end.ts')).stop(words, root),
  },
  {
    name: 'version',
    summary: 'Show the version',
    act: async (words) => (await import('./version.ts')).version(words),
  },
]
