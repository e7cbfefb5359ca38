/** The commands: a name, a sentence, and where it is. None is loaded before it is asked for. */

export interface CommandRow {
  name: string
  summary: string
  /** Runs the words behind the name, and answers the exit code. */
  act: (words: readonly string[], root: string | undefined) => Promise<number>
}

export const commands: readonly CommandRow[] = [
  {
    name: 'commit',
    summary: "Create a new image from a container's changes",
    act: async (words, root) => (await import('./commit.ts')).commit(words, root),
  },
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
    name: 'export',
    summary: "Export a container's filesystem as a tar archive",
    act: async (words, root) => (await import('./commit.ts')).exportRootfs(words, root),
  },
  {
    name: 'history',
    summary: 'Show the history of an image',
    act: async (words, root) => (await import('./image.ts')).history(words, root),
  },
  {
    name: 'image',
    summary: 'Manage images',
    act: async (words, root) => (await import('./image.ts')).image(words, root),
  },
  {
    name: 'images',
    summary: 'List images',
    act: async (words, root) => (await import('./images.ts')).images(words, root),
  },
  {
    name: 'import',
    summary: 'Import a root file system from a tar archive as an image',
    act: async (words, root) => (await import('./archive.ts')).importRootfs(words, root),
  },
  {
    name: 'info',
    summary: 'Show what is installed, and where',
    act: async (words, root) => (await import('./info.ts')).info(words, root),
  },
  {
    name: 'inspect',
    summary: 'Return low-level information on containers and images',
    act: async (words, root) => (await import('./inspect.ts')).inspect(words, root),
  },
  {
    name: 'kill',
    summary: 'Kill one or more running containers',
    act: async (words, root) => (await import('./end.ts')).kill(words, root),
  },
  {
    name: 'load',
    summary: 'Load images from a tar archive or STDIN',
    act: async (words, root) => (await import('./archive.ts')).load(words, root),
  },
  {
    name: 'login',
    summary: 'Authenticate to a registry',
    act: async (words) => (await import('./login.ts')).login(words),
  },
  {
    name: 'logout',
    summary: 'Log out from a registry',
    act: async (words) => (await import('./login.ts')).logout(words),
  },
  {
    name: 'ps',
    summary: 'List containers',
    act: async (words, root) => (await import('./ps.ts')).ps(words, root),
  },
  {
    name: 'pull',
    summary: 'Download an image from a registry',
    act: async (words, root) => (await import('./transfer.ts')).pull(words, root),
  },
  {
    name: 'push',
    summary: 'Upload an image to a registry',
    act: async (words, root) => (await import('./transfer.ts')).push(words, root),
  },
  {
    name: 'rmi',
    summary: 'Remove one or more images',
    act: async (words, root) => (await import('./image.ts')).rmi(words, root),
  },
  {
    name: 'run',
    summary: 'Create and run a new container',
    act: async (words, root) => (await import('./run.ts')).run(words, root),
  },
  {
    name: 'save',
    summary: 'Save one or more images to a tar archive',
    act: async (words, root) => (await import('./archive.ts')).save(words, root),
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
    name: 'system',
    summary: 'Show disk usage: system df',
    act: async (words, root) => (await import('./system.ts')).system(words, root),
  },
  {
    name: 'tag',
    summary: 'Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE',
    act: async (words, root) => (await import('./image.ts')).tag(words, root),
  },
  {
    name: 'version',
    summary: 'Show the version',
    act: async (words) => (await import('./version.ts')).version(words),
  },
]
