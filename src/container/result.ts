/** The receipt: what a run came to, what it used, how long what took, what was in force. */
import { constants } from 'node:os'
import type { NativeEnd, NativeIsolation, NativeUsage } from '../native.ts'

/** Why a run ended: the first that holds. */
export type Cause = 'aborted' | 'timeout' | 'killed' | 'oom' | 'signal' | 'exit'

/** What a run used, from its own cgroup. A figure whose kernel file is absent is undefined and named in `missing`. */
export interface Usage {
  /** CPU time in ms. */
  cpu: { user: number; system: number }
  /** The most memory at one time, bytes; with the memory controller alone. */
  memory: { peak: number | undefined }
  /** Bytes of block devices. */
  io: { read: number | undefined; written: number | undefined }
  /** The most processes and threads at one time. */
  pids: { peak: number | undefined }
  /** Processes that the OOM killer took. */
  oomKills: number | undefined
  /** Periods in which the CPU limit held it back. */
  throttled: number | undefined
  /** Names of the figures that this host cannot give. */
  missing: string[]
  /** True where the figures are the main process's alone (getrusage), since there is no cgroup. */
  estimate: boolean
}

/** Milliseconds of each stage of a run, in their order. */
export interface Timing {
  /** Finding the root file system. */
  resolve: number
  /** Spec, plan, pipes, the message. */
  prepare: number
  /** Journal, cgroup, mount sources, clone. */
  launch: number
  /** Init, to the exec. */
  init: number
  /** The command. */
  payload: number
  /** Figures, undoing, the way back. */
  cleanup: number
  /** From the call to the settled promise. */
  total: number
}

/** What was really in force, read from the kernel. */
export interface Isolation {
  /** Namespaces and their inode numbers; `shared` are the caller's own. */
  namespaces: Record<string, string>
  shared: string[]
  /** `root`: ids are this machine's own. */
  ids: 'root' | 'range' | 'single'
  uid: number
  gid: number
  /** The capabilities that the payload can have, 16 hex digits as in /proc/self/status. */
  capabilities: string
  /** Whether a system call filter is in force. */
  seccomp: boolean
  noNewPrivileges: boolean
  /** The limits that the kernel holds, by their cgroup file. */
  limits: Record<string, string>
  /** The container's cgroup. */
  cgroup: string
}

/** What a run came to. */
export interface Result<Output = string> {
  /** The exit code; null for an end by a signal. */
  exitCode: number | null
  /** The signal's name; null for an exit. */
  signal: NodeJS.Signals | null
  cause: Cause
  stdout: Output
  stderr: Output
  /** Bytes of each stream that `maxBuffer` did not keep. */
  dropped: { stdout: number; stderr: number }
  usage: Usage
  timing: Timing
  isolation: Isolation
}

const signalNames = new Map<number, NodeJS.Signals>(
  Object.entries(constants.signals).map(([name, number]) => [number, name as NodeJS.Signals]),
)

/** A signal's name by its number. */
export function signalName(number: number): NodeJS.Signals {
  return signalNames.get(number) ?? (`SIG${number}` as NodeJS.Signals)
}

/** A signal's number by its name or number; undefined for what is none. */
export function signalNumber(signal: string | number): number | undefined {
  if (typeof signal === 'number' || /^\d+$/.test(signal)) {
    const number = Number(signal)
    return Number.isInteger(number) && number >= 1 && number <= 64 ? number : undefined
  }
  const name = signal.toUpperCase()
  const numbers: Record<string, number> = constants.signals
  return numbers[name.startsWith('SIG') ? name : `SIG${name}`]
}

const causes: Record<number, Cause> = { 1: 'timeout', 2: 'aborted', 3: 'killed' }

/**
 * `asked`: what this side did that may have been the cause, before the shim's own knowledge; a signal is one only if the
 * command died of it.
 */
export function causeOf(
  end: NativeEnd,
  asked: Cause | undefined,
  signals: ReadonlySet<number>,
  init: boolean,
): Cause {
  const killed = causes[end.killed]
  // An init of ours ends as its command did, by the exit code that shells give: 128 and the signal.
  const died = end.signaled ? end.status : init ? end.status - 128 : 0
  if (asked !== undefined && (asked !== 'killed' || signals.has(died))) return asked
  if (killed !== undefined && end.signaled) return killed
  if (end.oom) return 'oom'
  return end.signaled ? 'signal' : 'exit'
}

export function usageOf(end: NativeEnd): Usage {
  const { usage } = end
  const missing: string[] = []
  const figure = (name: string, value: number | undefined): number | undefined => {
    if (value === undefined) missing.push(name)
    return value
  }
  const estimate = usage.userUs === undefined
  return {
    cpu: {
      user: (usage.userUs ?? end.rusageUserUs) / 1000,
      system: (usage.systemUs ?? end.rusageSystemUs) / 1000,
    },
    memory: { peak: estimate ? end.rusageMaxRss : figure('memory.peak', usage.memoryPeak) },
    io: { read: figure('io.read', usage.ioRead), written: figure('io.written', usage.ioWritten) },
    pids: { peak: figure('pids.peak', usage.pidsPeak) },
    oomKills: figure('oomKills', usage.oomKills),
    throttled: figure('throttled', usage.throttledPeriods),
    missing,
    estimate,
  }
}

function ms(us: number | undefined): number | undefined {
  return us === undefined ? undefined : us / 1000
}

/** Figures of a running container; undefined where its cgroup has none, or where it has no cgroup. */
export function statsOf(usage: NativeUsage): {
  cpu: { user: number | undefined; system: number | undefined }
  memory: { current: number | undefined; peak: number | undefined }
  pids: { current: number | undefined }
  io: { read: number | undefined; written: number | undefined }
} {
  return {
    cpu: { user: ms(usage.userUs), system: ms(usage.systemUs) },
    memory: { current: usage.memory, peak: usage.memoryPeak },
    pids: { current: usage.pids },
    io: { read: usage.ioRead, written: usage.ioWritten },
  }
}

/** Moments on this side, ms of the same clock as the shim's. */
export interface Moments {
  called: number
  resolved: number
  sent: number
}

/** CLOCK_MONOTONIC in ms, the clock of the shim's stamps. */
export function now(): number {
  return Number(process.hrtime.bigint()) / 1e6
}

/** The shim's own moments, for who asks where a start's time goes. */
export const stampsOf: unique symbol = Symbol.for('caisson.stamps')

export function timingOf(moments: Moments, stamps: NativeEnd['stamps']): Timing {
  const settled = now()
  const [taken, journaled, grouped, sourced, born, rooted, ready, executed, ended, undone] = stamps
  const timing = {
    resolve: moments.resolved - moments.called,
    prepare: moments.sent - moments.resolved,
    launch: born - moments.sent,
    init: executed - born,
    payload: ended - executed,
    cleanup: settled - ended,
    total: settled - moments.called,
  }
  const inner = { taken, journaled, grouped, sourced, born, rooted, ready, executed, ended, undone }
  Object.defineProperty(timing, stampsOf, { value: { ...moments, ...inner, settled } })
  return timing
}

export function isolationOf(isolation: NativeIsolation, own: Record<string, string>): Isolation {
  const words = isolation.namespaces.split(' ')
  const namespaces: Record<string, string> = {}
  for (let index = 0; index + 1 < words.length; index += 2)
    namespaces[words[index] ?? ''] = words[index + 1] ?? ''
  return {
    namespaces,
    shared: Object.keys(namespaces).filter((name) => own[name] === namespaces[name]),
    ids:
      isolation.uidMap === '0 0 4294967295'
        ? 'root'
        : isolation.uidMap.split(' ').length === 3 && isolation.uidMap.endsWith(' 1')
          ? 'single'
          : 'range',
    uid: isolation.uid,
    gid: isolation.gid,
    capabilities: isolation.capabilities,
    seccomp: isolation.seccomp > 0,
    noNewPrivileges: isolation.noNewPrivileges,
    limits: Object.fromEntries(isolation.limits.map(({ name, value }) => [name, value])),
    cgroup: isolation.cgroup,
  }
}
