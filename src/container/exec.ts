/** `exec`: another command in a container that runs. */
import { toError } from '../native.ts'
import { reach, rejected, withStdio } from './begin.ts'
import { without } from './capabilities.ts'
import { refuse } from '../errors.ts'
import { checkProcess, ownOptions, times } from './options.ts'
import type { RunOptions } from './options.ts'
import { planOf } from './plan.ts'
import { asProcess, ended, Run } from './process.ts'
import type { ProcessPromise } from './process.ts'
import { rlimits } from './resources.ts'
import { now } from './result.ts'
import type { Result } from './result.ts'
import type { Connection } from './shim.ts'
import { environment, user, wellFormed, workdir } from './spec.ts'
import type { Spec } from './spec.ts'

/** The options of `run` that are of a command. */
const own = {
  env: true,
  user: true,
  groups: true,
  workdir: true,
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
  ulimits: true,
  capDrop: true,
  noNewPrivileges: true,
} as const

/**
 * What `exec` takes: the options of `run` that are of a command; a `workdir` must be there. Environment, user and working directory are the
 * container's unless they are given, capabilities and the filter are the container's or fewer. `timeout` and `signal` kill
 * the command and all its children, and nothing else.
 */
export type ExecOptions = Pick<RunOptions, keyof typeof own>

/** What a command runs in. */
export interface Host {
  id: string
  token: number
  hostname: string
  /** How it was started: what an exec has no words of its own for. */
  spec: Pick<Spec, 'ociVersion' | 'process' | 'root'>
  options: Pick<RunOptions, 'name' | 'labels' | 'seccomp' | 'groups' | 'env'>
  isOver: boolean
}

function checked(given: ExecOptions): RunOptions {
  if (Object.hasOwn(given, 'privileged'))
    throw refuse('privileged', 'a command has at most the rights of its container')
  const options = ownOptions(given, own)
  checkProcess(options)
  return options
}

function isWords(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((word) => typeof word === 'string')
}

/** A spec of the command alone. */
function compose(command: readonly string[], options: RunOptions, host: Host): Spec {
  const { process } = host.spec
  if (options.noNewPrivileges === false && process.noNewPrivileges)
    throw refuse('noNewPrivileges', 'is in force for the whole container')
  const capabilities = without(process.capabilities.bounding, options.capDrop ?? [])
  const ulimits = options.ulimits === undefined ? (process.rlimits ?? []) : rlimits(options)
  return {
    ociVersion: host.spec.ociVersion,
    process: {
      terminal: options.tty === true,
      ...(options.size !== undefined && {
        consoleSize: { width: options.size.columns, height: options.size.rows },
      }),
      user: user(options, process.user.username),
      args: wellFormed(command),
      env: environment(options, process.env),
      cwd: workdir(options, process.cwd),
      capabilities: { bounding: capabilities, effective: capabilities, permitted: capabilities },
      ...(ulimits.length > 0 && { rlimits: ulimits }),
      noNewPrivileges: options.noNewPrivileges === true || process.noNewPrivileges,
    },
    root: host.spec.root,
    mounts: [],
    linux: {},
  }
}

/** Starts a command in a container. */
export function exec(
  connection: Connection,
  found: Host | (() => Host),
  command: readonly string[],
  given: ExecOptions,
): ProcessPromise<string | Buffer> {
  try {
    const called = now()
    const { promise, ...settle } = Promise.withResolvers<Result<string | Buffer>>()
    if (!isWords(command)) throw refuse('command', 'is not an array of strings')
    const options = checked(given)
    const host = typeof found === 'function' ? found() : found
    const { name, labels, seccomp, groups } = host.options
    const whole = { ...options, ...(name !== undefined && { name }), ...(labels !== undefined && { labels }) }
    const live = new Run(connection, host.id, whole, times(options), called, settle)
    void reach(
      live,
      (async () => {
        if (host.isOver) throw ended(host.id)
        options.signal?.throwIfAborted()
        await withStdio(live, (stdio) => {
          const spec = compose(command, options, host)
          const rights = {
            env: { ...host.options.env, ...options.env },
            ...(seccomp !== undefined && { seccomp }),
            // More groups are of the user that they were given with.
            ...(options.user === undefined && groups !== undefined && { groups }),
            ...(options.groups !== undefined && { groups: options.groups }),
          }
          const plan = planOf(spec, rights, true)
          live.moments.resolved = now()
          const message = {
            token: live.token,
            container: host.token,
            hostname: host.hostname,
            stdio: stdio.payload,
            ownStdio: stdio.own,
            timeoutMs: live.timeoutMs,
          }
          const failure = live.shim().exec(plan, message)
          if (failure !== null) throw toError(failure)
        })
      })(),
    )
    return asProcess(promise, live)
  } catch (error) {
    return rejected(error)
  }
}
