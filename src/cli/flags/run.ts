/** The flags of `run`: docker's words, each once. */
import { readFileSync } from 'node:fs'
import type { IoLimit, RunOptions } from '../../index.ts'
import { count, envFile, mount, rate, tmpfs, ulimit, variable, volume } from './parse.ts'
import { isTrue, WordError } from './words.ts'
import type { Flag } from './words.ts'

/** What was typed, as far as the API has a word for it; the rest is the CLI's own. */
export interface RunDraft {
  options: { -readonly [Name in keyof RunOptions]: RunOptions[Name] }
  files: [string, string][]
  env: [string, string][]
  root?: string
  rootfs?: string
  cidfile?: string
  interactive: boolean
  quiet: boolean
  help: boolean
}

export function runDraft(): RunDraft {
  return { options: {}, files: [], env: [], interactive: false, quiet: false, help: false }
}

type Lists = 'capAdd' | 'capDrop' | 'groups' | 'devices' | 'mounts'

function push<Name extends Lists>(
  draft: RunDraft,
  name: Name,
  value: NonNullable<RunOptions[Name]>[number],
): void {
  draft.options[name] = [...(draft.options[name] ?? []), value] as RunDraft['options'][Name]
}

function limit(key: 'readBps' | 'writeBps' | 'readIops' | 'writeIops') {
  return ({ options }: RunDraft, words: string): void => {
    const { device, rate: value } = rate(words)
    const one: IoLimit = { device, [key]: key.endsWith('Iops') ? count(value) : value }
    options.io = [...(options.io ?? []), one]
  }
}

function security({ options }: RunDraft, words: string): void {
  const [key = '', value] = words.split(/[=:](.*)/s, 2)
  if (key === 'no-new-privileges') options.noNewPrivileges = value === undefined || isTrue(value)
  else if (key === 'seccomp' && value !== undefined) {
    if (value === 'unconfined') options.seccomp = value
    else if (value === 'builtin' || value === 'default') options.seccomp = 'default'
    else options.seccomp = profile(value)
  } else if ((key === 'apparmor' && value === 'unconfined') || (key === 'label' && value === 'disable')) {
    // Nothing of the kind is in force.
  } else throw new WordError(`${words} is not supported yet`)
}

function profile(path: string): `{${string}` {
  let content: string
  try {
    content = readFileSync(path, 'utf8').trim()
  } catch (error) {
    throw new WordError(
      `opening seccomp profile (${path}) failed: ${error instanceof Error ? error.message : String(error)}`,
    )
  }
  if (!content.startsWith('{')) throw new WordError(`${path} is no seccomp profile`)
  return content as `{${string}`
}

/** A flag whose text is an option of the API as it is. */
function text(
  name:
    | 'user'
    | 'workdir'
    | 'hostname'
    | 'memory'
    | 'memorySwap'
    | 'memoryReservation'
    | 'cpuset'
    | 'shmSize'
    | 'stopSignal'
    | 'timeout'
    | 'entrypoint'
    | 'name',
) {
  return ({ options }: RunDraft, value: string): void => {
    options[name] = value
  }
}

function number(name: 'cpus' | 'cpuShares' | 'pids') {
  return ({ options }: RunDraft, value: string): void => {
    options[name] = count(value)
  }
}

function on(name: 'tty' | 'init' | 'readOnly') {
  return ({ options }: RunDraft, value: string): void => {
    options[name] = isTrue(value)
  }
}

function network(long: string, help: string): Flag<RunDraft> {
  return {
    long,
    value: 'network',
    help,
    apply: ({ options }, value) => {
      if (value !== 'none' && value !== 'host')
        throw new WordError(`network ${value} is not supported yet: none or host`)
      options.network = value
    },
  }
}

/** In the order of the help. */
export const runFlags: readonly Flag<RunDraft>[] = [
  {
    long: 'cap-add',
    value: 'list',
    help: 'Add Linux capabilities',
    apply: (draft, value) => push(draft, 'capAdd', value),
  },
  {
    long: 'cap-drop',
    value: 'list',
    help: 'Drop Linux capabilities',
    apply: (draft, value) => push(draft, 'capDrop', value),
  },
  {
    long: 'cidfile',
    value: 'string',
    help: 'Write the container ID to the file',
    apply: (draft, value) => void (draft.cidfile = value),
  },
  {
    long: 'cpu-shares',
    short: 'c',
    value: 'int',
    help: 'CPU shares (relative weight)',
    apply: number('cpuShares'),
  },
  { long: 'cpus', value: 'decimal', help: 'Number of CPUs', apply: number('cpus') },
  {
    long: 'cpuset-cpus',
    value: 'string',
    help: 'CPUs in which to allow execution (0-3, 0,1)',
    apply: text('cpuset'),
  },
  {
    long: 'device',
    value: 'list',
    help: 'Add a host device to the container',
    apply: (draft, value) => push(draft, 'devices', value),
  },
  {
    long: 'device-read-bps',
    value: 'list',
    help: 'Limit read rate (bytes per second) from a device',
    apply: limit('readBps'),
  },
  {
    long: 'device-read-iops',
    value: 'list',
    help: 'Limit read rate (IO per second) from a device',
    apply: limit('readIops'),
  },
  {
    long: 'device-write-bps',
    value: 'list',
    help: 'Limit write rate (bytes per second) to a device',
    apply: limit('writeBps'),
  },
  {
    long: 'device-write-iops',
    value: 'list',
    help: 'Limit write rate (IO per second) to a device',
    apply: limit('writeIops'),
  },
  {
    long: 'entrypoint',
    value: 'string',
    help: 'Overwrite the default ENTRYPOINT of the image',
    apply: text('entrypoint'),
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
  {
    long: 'group-add',
    value: 'list',
    help: 'Add additional groups to join',
    apply: (draft, value) => push(draft, 'groups', value),
  },
  { long: 'help', help: 'Print usage', apply: (draft, value) => void (draft.help = isTrue(value)) },
  { long: 'hostname', short: 'h', value: 'string', help: 'Container host name', apply: text('hostname') },
  {
    long: 'init',
    help: 'Run an init inside the container that forwards signals and reaps processes',
    apply: on('init'),
  },
  {
    long: 'interactive',
    short: 'i',
    help: 'Keep STDIN open',
    apply: (draft, value) => void (draft.interactive = isTrue(value)),
  },
  {
    long: 'isolation',
    value: 'level',
    help: 'The least that will do: full (users and a cgroup of its own), range (users), single',
    apply: (draft, value) => void (draft.options.minIsolation = value as 'full'),
  },
  {
    long: 'label',
    short: 'l',
    value: 'list',
    help: 'Set meta data on a container',
    apply: ({ options }, value) => {
      const [key = '', word = ''] = value.split(/=(.*)/s, 2)
      options.labels = { ...options.labels, [key]: word }
    },
  },
  { long: 'memory', short: 'm', value: 'bytes', help: 'Memory limit', apply: text('memory') },
  { long: 'memory-reservation', value: 'bytes', help: 'Memory soft limit', apply: text('memoryReservation') },
  {
    long: 'memory-swap',
    value: 'bytes',
    help: "Swap limit equal to memory plus swap: '-1' to enable unlimited swap",
    apply: text('memorySwap'),
  },
  {
    long: 'mount',
    value: 'mount',
    help: 'Attach a filesystem mount to the container',
    apply: (draft, value) => push(draft, 'mounts', mount(value)),
  },
  { long: 'name', value: 'string', help: 'Assign a name to the container', apply: text('name') },
  network('net', 'The same as --network'),
  network('network', 'Connect the container to a network: none (the default) or host'),
  {
    long: 'pids-limit',
    value: 'int',
    help: 'Tune container pids limit (set -1 for unlimited)',
    apply: number('pids'),
  },
  {
    long: 'platform',
    value: 'string',
    help: 'Run the image for this platform, OS/ARCH[/VARIANT]',
    apply: ({ options }, value) => void (options.platform = value),
  },
  {
    long: 'pull',
    value: 'string',
    help: "Pull the image before running: 'always', 'missing', 'never' (default 'missing')",
    apply: ({ options }, value) => {
      if (value !== 'always' && value !== 'missing' && value !== 'never')
        throw new WordError('must be always, missing or never')
      options.pull = value
    },
  },
  {
    long: 'quiet',
    short: 'q',
    help: 'Suppress the pull output',
    apply: (draft, value) => void (draft.quiet = isTrue(value)),
  },
  { long: 'read-only', help: "Mount the container's root filesystem as read only", apply: on('readOnly') },
  {
    long: 'rm',
    help: 'Remove the container when it exits: so far every one is',
    apply: (_, value) => {
      if (!isTrue(value)) throw new WordError('a container that is kept is not supported yet')
    },
  },
  {
    long: 'root',
    value: 'dir',
    help: "Where all state and storage is, instead of caisson's own places",
    apply: (draft, value) => void (draft.root = value),
  },
  {
    long: 'rootfs',
    value: 'dir',
    help: 'Run on a throwaway copy-on-write view of a directory, instead of an image; / is this machine',
    apply: (draft, value) => void (draft.rootfs = value),
  },
  {
    long: 'security-opt',
    value: 'list',
    help: 'Security options: seccomp=FILE|unconfined|builtin, no-new-privileges',
    apply: security,
  },
  { long: 'shm-size', value: 'bytes', help: 'Size of /dev/shm', apply: text('shmSize') },
  { long: 'stop-signal', value: 'string', help: 'Signal to stop the container', apply: text('stopSignal') },
  {
    long: 'stop-timeout',
    value: 'int',
    help: 'Timeout (in seconds) to stop a container',
    apply: ({ options }, value) => void (options.stopTimeout = count(value) * 1000),
  },
  {
    long: 'sysctl',
    value: 'map',
    help: 'Sysctl options',
    apply: ({ options }, value) => {
      const [key = '', word = ''] = value.split(/=(.*)/s, 2)
      options.sysctls = { ...options.sysctls, [key]: word }
    },
  },
  {
    long: 'timeout',
    value: 'duration',
    help: 'Kill the container after this time (10s, 1m30s)',
    apply: text('timeout'),
  },
  {
    long: 'tmpfs',
    value: 'list',
    help: 'Mount a tmpfs directory',
    apply: ({ options }, value) => {
      const [target, words] = tmpfs(value)
      options.tmpfs = { ...options.tmpfs, [target]: words }
    },
  },
  { long: 'tty', short: 't', help: 'Allocate a pseudo-TTY', apply: on('tty') },
  {
    long: 'ulimit',
    value: 'ulimit',
    help: 'Ulimit options',
    apply: ({ options }, value) => {
      const [name, one] = ulimit(value)
      options.ulimits = { ...options.ulimits, [name]: one }
    },
  },
  {
    long: 'user',
    short: 'u',
    value: 'string',
    help: 'Username or UID (format: <name|uid>[:<group|gid>])',
    apply: text('user'),
  },
  {
    long: 'volume',
    short: 'v',
    value: 'list',
    help: 'Bind mount a directory or file',
    apply: (draft, value) => push(draft, 'mounts', volume(value)),
  },
  {
    long: 'workdir',
    short: 'w',
    value: 'string',
    help: 'Working directory inside the container',
    apply: text('workdir'),
  },
]

/** Flags that docker has, whose parts are not built: refused by name, never taken for unknown. */
export const notYet: ReadonlySet<string> = new Set(
  (
    'add-host annotation attach blkio-weight blkio-weight-device cgroup-parent cgroupns cpu-period cpu-quota cpuset-mems ' +
    'detach detach-keys device-cgroup-rule dns dns-option dns-search domainname expose gpus health-cmd health-interval ' +
    'health-retries health-start-period health-timeout ip ip6 ipc isolation kernel-memory label-file link log-driver ' +
    'log-opt mac-address memory-swappiness network-alias no-healthcheck oom-kill-disable oom-score-adj pid ' +
    'privileged publish publish-all restart runtime sig-proxy storage-opt userns uts volume-driver volumes-from'
  ).split(' '),
)
