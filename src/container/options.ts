/** What `run` can be asked, and what it means: words to plain, checked values. */
import type { Readable, Writable } from 'node:stream'
import { refuse } from '../errors.ts'
import type { PullProgress } from '../image/pull.ts'
import { signalNumber } from './result.ts'
import { checkShape, kindOf } from './shapes.ts'
import { bytes } from '../state/sizes.ts'
import type { Size } from '../state/sizes.ts'
import { milliseconds } from './units.ts'
import type { Duration } from './units.ts'

/** One of stdin, stdout, stderr: Node's words, a descriptor that goes to the payload itself, or a stream. */
export type StdioOption = 'pipe' | 'inherit' | 'ignore' | number | Readable | Writable | Uint8Array

/** A mount, as docker's `--mount` says it. */
export interface MountOption {
  /** `bind` of a path of this machine, or a fresh `tmpfs`. */
  type: 'bind' | 'tmpfs'
  /** Where it comes from: an absolute path of this machine, for a bind. */
  source?: string
  /** Where it goes: an absolute path in the container; made if it is absent. */
  target: string
  /** No writing through it, nor through what is mounted below it. Default false. */
  readOnly?: boolean
  /** What is mounted below the source comes along. Default true. */
  recursive?: boolean
  /** Mount events: default `rprivate`. */
  propagation?: 'private' | 'rprivate' | 'slave' | 'rslave' | 'shared' | 'rshared'
  /** tmpfs: the most it holds. Default half of the memory. */
  size?: Size
  /** tmpfs: mode of its root. Default 0o1777. */
  mode?: number
}

/** A device of this machine. */
export interface DeviceOption {
  /** Its path here. */
  host: string
  /** Its path in the container; default the same. */
  container?: string
  /** `r` read, `w` write, `m` mknod. Default all. */
  permissions?: string
}

/** A soft and a hard limit; -1 is unlimited. */
export interface Ulimit {
  soft: number
  hard: number
}

/** Limits of one block device, bytes or operations a second. */
export interface IoLimit {
  /** The device's path, `/dev/sda`. */
  device: string
  readBps?: Size
  writeBps?: Size
  readIops?: number
  writeIops?: number
}

/** Everything that `run` takes. An option that is unknown is refused by name. */
export interface RunOptions {
  /** Environment of the command, beside the image's; later wins. A value of undefined leaves the name out. */
  env?: Record<string, string | undefined>
  /** `name|uid[:name|gid]`, looked up in the container. Default: the image's, else root. */
  user?: string | number
  /** Working directory, absolute; made if it is absent. Default: the image's, else `/`. */
  workdir?: string
  /** Replaces the image's entrypoint, and clears its command. */
  entrypoint?: string | readonly string[]
  /** Host name. Default: the first 12 digits of the id. */
  hostname?: string
  /** A terminal of Caisson's own as stdio: one stream. Default false. */
  tty?: boolean
  /** The terminal's first size. */
  size?: { columns: number; rows: number }
  /** stdin, stdout, stderr: one word for all, or one each. Default `'pipe'`. */
  stdio?: StdioOption | readonly StdioOption[]
  /** What is written to stdin, which then ends. */
  input?: string | Uint8Array
  /** How `stdout` and `stderr` of the result are given. Default `'utf8'`. */
  encoding?: 'utf8' | 'buffer'
  /** The most bytes kept of each output stream. Default 16 MiB. What was dropped is counted in the result. */
  maxBuffer?: Size
  /** After this the whole container is killed. Default: never. */
  timeout?: Duration
  /** Aborting it kills the whole container. */
  signal?: AbortSignal
  /** With it, `timeout` and abort first send `stopSignal` and wait this long. */
  stopTimeout?: Duration
  /** What asks the payload to stop. Default: the image's, else SIGTERM. */
  stopSignal?: string
  /** A non-zero exit rejects. Default false: it is a result. */
  check?: boolean
  /** A small init as pid 1, which passes signals on and reaps. Default false. */
  init?: boolean
  /** The most memory. */
  memory?: Size
  /** The most memory and swap together; -1: no limit of swap. Default: twice the memory. */
  memorySwap?: Size
  /** What is kept from reclaim while others have more to give (memory.low). */
  memoryReservation?: Size
  /** The most CPU time, in processors. */
  cpus?: number
  /** Relative CPU share, docker's 2 to 262144. */
  cpuShares?: number
  /** The processors it may use, `'0-2,4'`. */
  cpuset?: string
  /** The most processes and threads; -1: no limit. */
  pids?: number
  /** Block device limits. */
  io?: readonly IoLimit[]
  /** Any other file of the cgroup, by its name. */
  cgroup?: Record<string, string>
  /** Resource limits of the process, by docker's names: `nofile`, `nproc`, `core`, … */
  ulimits?: Record<string, number | Ulimit>
  /** Mounts, beside the container's own; one at the same place replaces it. */
  mounts?: readonly MountOption[]
  /** tmpfs by place, with docker's options: `{ '/run': 'size=64m' }`. */
  tmpfs?: Record<string, string>
  /** Size of /dev/shm. Default 64 MiB. */
  shmSize?: Size
  /** A read-only root. Default false. */
  readOnly?: boolean
  /** Capabilities beside the default ones; `ALL`. */
  capAdd?: readonly string[]
  /** Capabilities of the default ones that are not given; `ALL`. */
  capDrop?: readonly string[]
  /** `'default'`, `'unconfined'`, or a profile in docker's form or the runtime spec's: an object, or its JSON text. */
  seccomp?: 'default' | 'unconfined' | `{${string}` | object
  /** No exec gains a privilege. Default false, as docker's. */
  noNewPrivileges?: boolean
  /** Devices of this machine, `'/dev/kvm'` or `'/dev/x:/dev/y:rw'`. */
  devices?: readonly (string | DeviceOption)[]
  /** Settings of the container's namespaces. Default: `net.ipv4.ip_unprivileged_port_start` is 0 in a network of its own. */
  sysctls?: Record<string, string>
  /** Labels, for people. */
  labels?: Record<string, string>
  /** A name, for people. */
  name?: string
  /** `none`: a network of its own with loopback only, the default. `host`: this machine's. */
  network?: 'none' | 'host'
  /** More groups of the user, by name or number. */
  groups?: readonly (string | number)[]
  /**
   * Less than this is an error. `full`: what root's containers have, users of their own and a cgroup of their own.
   * `range`: users of their own. `single`, the default: this user's one id will do.
   */
  minIsolation?: 'full' | 'range' | 'single'
  /** When the image is pulled. Default `missing`: if it is not here. */
  pull?: 'missing' | 'always' | 'never'
  /** Which of an image's platforms, `OS/ARCH[/VARIANT]`. Default: this machine's. */
  platform?: string
  /** Hears what is being pulled. */
  onProgress?: (progress: PullProgress) => void
}

const known: Record<keyof RunOptions, true> = {
  minIsolation: true,
  pull: true,
  platform: true,
  onProgress: true,
  env: true,
  user: true,
  workdir: true,
  entrypoint: true,
  hostname: true,
  tty: true,
  size: true,
  stdio: true,
  input: true,
  encoding: true,
  maxBuffer: true,
  timeout: true,
  signal: true,
  stopTimeout: true,
  stopSignal: true,
  check: true,
  init: true,
  memory: true,
  memorySwap: true,
  memoryReservation: true,
  cpus: true,
  cpuShares: true,
  cpuset: true,
  pids: true,
  io: true,
  cgroup: true,
  ulimits: true,
  mounts: true,
  tmpfs: true,
  shmSize: true,
  readOnly: true,
  capAdd: true,
  capDrop: true,
  seccomp: true,
  noNewPrivileges: true,
  devices: true,
  sysctls: true,
  labels: true,
  name: true,
  network: true,
  groups: true,
}

const kinds: Partial<Record<keyof RunOptions, string>> = {
  env: 'object',
  user: 'string or number',
  workdir: 'string',
  entrypoint: 'string or array',
  hostname: 'string',
  tty: 'boolean',
  input: 'string or object',
  maxBuffer: 'string or number',
  timeout: 'string or number',
  stopTimeout: 'string or number',
  check: 'boolean',
  init: 'boolean',
  memory: 'string or number',
  memorySwap: 'string or number',
  memoryReservation: 'string or number',
  shmSize: 'string or number',
  seccomp: 'string or object',
  cpus: 'number',
  cpuShares: 'number',
  cpuset: 'string',
  pids: 'number',
  io: 'array',
  cgroup: 'object',
  ulimits: 'object',
  mounts: 'array',
  tmpfs: 'object',
  readOnly: 'boolean',
  capAdd: 'array',
  capDrop: 'array',
  noNewPrivileges: 'boolean',
  devices: 'array',
  sysctls: 'object',
  labels: 'object',
  name: 'string',
  stopSignal: 'string',
  groups: 'array',
  minIsolation: 'string',
  pull: 'string',
  platform: 'string',
  onProgress: 'function',
  size: 'object',
}

/**
 * A value whose plain objects, however deep, have no prototype: what is read of them is what the caller wrote, not what
 * somebody put on Object.prototype (security.md E8).
 */
export function bare<T>(value: T): T {
  if (Array.isArray(value)) return value.map((one: unknown) => bare(one)) as T
  if (typeof value !== 'object' || value === null) return value
  if (Object.getPrototypeOf(value) !== Object.prototype) return value
  const copy = Object.create(null) as Record<string, unknown>
  for (const [name, one] of Object.entries(value)) copy[name] = bare(one)
  return copy as T
}

/**
 * The caller's options as own properties of an object without a prototype: what somebody put on Object.prototype is no
 * option (security.md E8), and a misspelt limit is no container without one.
 */
export function ownOptions(given: RunOptions, names: object = known): RunOptions {
  const options = Object.create(null) as Record<string, unknown>
  if (kindOf(given) !== 'object') throw refuse('options', `an object is wanted, not ${kindOf(given)}`)
  for (const [name, value] of Object.entries(given)) {
    if (!Object.hasOwn(names, name)) {
      const whole = Object.hasOwn(known, name)
      throw refuse(name, whole ? 'is of a container, not of a command in it' : 'unknown option')
    }
    if (value === undefined) continue
    const wanted = kinds[name as keyof RunOptions]
    const kind = kindOf(value)
    if (wanted !== undefined && !wanted.split(' or ').includes(kind))
      throw refuse(name, `a value of type ${wanted} is wanted, not ${kind}`)
    checkShape(name, value)
    options[name] = name === 'seccomp' ? value : bare(value)
  }
  return options
}

/** What is of a command, not of a container: from JavaScript anything can come. */
export function checkProcess(options: RunOptions): void {
  const input: unknown = options.input
  if (input !== undefined && typeof input !== 'string' && !(input instanceof Uint8Array))
    throw refuse('input', 'is neither a string nor bytes')
  if (options.stopSignal !== undefined && signalNumber(options.stopSignal) === undefined) {
    throw refuse('stopSignal', `'${options.stopSignal}' is no signal`)
  }
  const encoding: string = options.encoding ?? 'utf8'
  if (encoding !== 'utf8' && encoding !== 'buffer') {
    throw refuse('encoding', `'${encoding}' is neither utf8 nor buffer`)
  }
  if (options.signal !== undefined && !(options.signal instanceof AbortSignal))
    throw refuse('signal', 'is no AbortSignal')
}

/** Times of a run, in milliseconds. */
export interface Times {
  /** 0: never. */
  timeout: number
  /** Undefined: kill at once. */
  stopTimeout: number | undefined
}

export function times(options: RunOptions): Times {
  return {
    timeout: options.timeout === undefined ? 0 : Math.ceil(milliseconds('timeout', options.timeout)),
    stopTimeout:
      options.stopTimeout === undefined ? undefined : milliseconds('stopTimeout', options.stopTimeout),
  }
}

/** The most bytes kept of a stream. */
export function maxBuffer(options: RunOptions): number {
  const size = bytes('maxBuffer', options.maxBuffer ?? 16 << 20)
  if (size < 0) throw refuse('maxBuffer', 'is negative')
  return size
}
