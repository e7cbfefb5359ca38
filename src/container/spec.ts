/** Options and an image's configuration to one config.json of the runtime spec: plain data that any OCI runtime runs. */
import * as defaults from './defaults.ts'
import { capabilitySets } from './capabilities.ts'
import { deviceNodes } from './devices.ts'
import { mounts } from './mounts.ts'
import type { ImageConfig } from '../image/config.ts'
import { refuse } from '../errors.ts'
import { bare } from './options.ts'
import type { RunOptions } from './options.ts'
import { resources, rlimits } from './resources.ts'
import { constant } from './constant.ts'

/** The process of a config.json as far as Caisson writes it. */
export interface SpecProcess {
  terminal: boolean
  consoleSize?: { width: number; height: number }
  user: { uid: number; gid: number; username: string }
  args: readonly string[]
  env: readonly string[]
  cwd: string
  capabilities: Record<'bounding' | 'effective' | 'permitted', readonly string[]>
  rlimits?: readonly unknown[]
  noNewPrivileges: boolean
}

/** A config.json as far as Caisson writes it. */
export interface Spec {
  ociVersion: string
  process: SpecProcess
  root: Record<string, unknown>
  mounts: readonly defaults.SpecMount[]
  linux: Record<string, unknown>
  hostname?: string
}

const shared = ['pid', 'mount', 'uts', 'ipc', 'cgroup'].map((type) => ({ type }))
const namespaces = { none: constant([...shared, { type: 'network' }]), host: constant(shared) }

/** The default ones and more. Without more they are the same object, which is written once. */
function joined<T>(own: readonly T[], more: readonly T[]): readonly T[] {
  return more.length === 0 ? own : [...own, ...more]
}

/** The words that will be executed. */
function args(
  command: readonly string[] | undefined,
  options: RunOptions,
  image: ImageConfig,
): readonly string[] {
  if (options.entrypoint !== undefined) {
    const entrypoint = typeof options.entrypoint === 'string' ? [options.entrypoint] : options.entrypoint
    // An empty word resets the image's entrypoint; either way the image's command does not belong to the new one.
    return [...entrypoint.filter((word) => word !== ''), ...(command ?? [])]
  }
  return [...(image.entrypoint ?? []), ...(command ?? image.cmd ?? [])]
}

/** What a terminal adds, then `base`, then the caller's. */
export function environment(options: Pick<RunOptions, 'env' | 'tty'>, base: readonly string[]): string[] {
  const env = new Map<string, string>([['PATH', defaults.path]])
  if (options.tty === true) env.set('TERM', 'xterm')
  for (const entry of base) {
    const at = entry.indexOf('=')
    if (at > 0) env.set(entry.slice(0, at), entry.slice(at + 1))
  }
  for (const [name, value] of Object.entries(options.env ?? {})) {
    if (name === '' || name.includes('=') || name.includes('\0'))
      throw refuse('env', `'${name}' is no name of a variable`)
    if (value === undefined) env.delete(name)
    else if (typeof value === 'string' && value.isWellFormed()) env.set(name, value)
    else throw refuse('env', `the value of ${name} is no string, or half of a surrogate pair is in it`)
  }
  return [...env].map(([name, value]) => `${name}=${value}`)
}

/** Docker's words for who a process is; `base` where the caller has none. */
export function user(options: Pick<RunOptions, 'user' | 'groups'>, base: string): SpecProcess['user'] {
  const words = options.user === undefined ? base : String(options.user)
  // More groups may be names, for which the spec has no word: they go beside it (plan.ts).
  const wrong = options.groups?.find(
    (group: unknown) => typeof group !== 'number' && typeof group !== 'string',
  )
  if (wrong !== undefined) throw refuse('groups', `'${String(wrong)}' is neither a name nor a number`)
  return { uid: 0, gid: 0, username: words }
}

export function workdir(options: Pick<RunOptions, 'workdir'>, base: string | undefined): string {
  if (options.workdir !== undefined && !options.workdir.startsWith('/')) {
    throw refuse('workdir', `'${options.workdir}' is not an absolute path`)
  }
  return options.workdir ?? (base === undefined || base === '' ? '/' : base)
}

/** The words of a command, checked. */
export function wellFormed(words: readonly string[]): readonly string[] {
  if (words.length === 0) throw refuse('command', 'no command specified')
  if (!words.every((word) => word.isWellFormed())) throw refuse('command', 'holds half of a surrogate pair')
  return words
}

/** What else the root file system brings: mounts and masks of a view of the machine. */
export interface RootExtras {
  mounts: defaults.SpecMount[]
  maskedPaths: string[]
}

/** Settings of the container's namespaces: the caller's win, in either way to write their names. */
function sysctls(
  given: RunOptions['sysctls'],
  network: string,
): Readonly<Record<string, string>> | undefined {
  if (network === 'host') return given
  if (given === undefined) return defaults.networkSettings
  const isSet = Object.keys(given).some((name) => name.replaceAll('/', '.') === defaults.portSetting)
  return isSet ? given : { ...given, ...defaults.networkSettings }
}

/** Composes the config.json. It holds nothing of one run, so equal options give equal text and one plan serves both. */
export function compose(
  command: readonly string[] | undefined,
  options: RunOptions,
  config: ImageConfig,
  extras: RootExtras,
  bounding: bigint,
): Spec {
  const image = bare(config)
  const words = wellFormed(args(command, options, image))
  const network: string = options.network ?? 'none'
  if (network !== 'none' && network !== 'host')
    throw refuse('network', `'${network}' is neither none nor host`)
  const capabilities = capabilitySets(options, bounding)
  const devices = deviceNodes(options)
  const limits = resources(options)
  const ulimits = rlimits(options)
  const settings = sysctls(options.sysctls, network)
  return {
    ociVersion: '1.2.0',
    process: {
      terminal: options.tty === true,
      ...(options.size !== undefined && {
        consoleSize: { width: options.size.columns, height: options.size.rows },
      }),
      user: user(options, image.user ?? ''),
      args: words,
      env: environment(options, image.env ?? []),
      cwd: workdir(options, image.workdir),
      capabilities: { bounding: capabilities, effective: capabilities, permitted: capabilities },
      ...(ulimits.length > 0 && { rlimits: ulimits }),
      noNewPrivileges: options.noNewPrivileges === true,
    },
    root: { path: 'rootfs', readonly: options.readOnly === true },
    ...(options.hostname !== undefined && { hostname: options.hostname }),
    mounts: joined(mounts(options, extras.mounts), devices.bound),
    linux: {
      namespaces: namespaces[network],
      resources: { ...limits, devices: joined(defaults.deviceRules, devices.rules) },
      ...(devices.nodes.length > 0 && { devices: devices.nodes }),
      maskedPaths: joined(defaults.maskedPaths(), extras.maskedPaths),
      readonlyPaths: defaults.readonlyPaths,
      ...(settings !== undefined && { sysctl: settings }),
    },
  }
}
