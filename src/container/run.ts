/** `run`: resolve, compose, plan, launch; the rest are the shim's events. */
import { existsSync, readFileSync } from 'node:fs'
import { CaissonError } from '../errors.ts'
import type { ImageConfig } from '../image/config.ts'
import { native, toError } from '../native.ts'
import { idMap } from '../state/ids.ts'
import type { Roots } from '../state/roots.ts'
import { Attached } from './attached.ts'
import { container } from './container.ts'
import type { Container } from './container.ts'
import { hosts } from './defaults.ts'
import { rootFilesystem } from './machine.ts'
import type { RootFilesystem } from './machine.ts'
import { maxBuffer, ownOptions, refuse, times } from './options.ts'
import type { RunOptions } from './options.ts'
import { planOf } from './plan.ts'
import { asProcess, Run, settled } from './process.ts'
import type { ProcessPromise } from './process.ts'
import { now, signalNumber } from './result.ts'
import type { Result } from './result.ts'
import type { ShimConnection } from './shim.ts'
import { compose } from './spec.ts'
import { closeStdio, connect, openStdio } from './stdio.ts'
import type { Streams } from './stdio.ts'
import { openTerminal, terminalStreams } from './terminal.ts'

/** What a container is made from: an image of a layout, `oci:DIR[:TAG]`, or a directory of this machine. */
export type Image = string | { rootfs: string }

/** What an image gives a run. */
export interface Resolved {
  root: RootFilesystem
  config: ImageConfig
}

/** What a run needs of its engine. */
export interface RunContext {
  roots: Roots
  shim: ShimConnection
  /** An image that is ready; undefined for one that is not, or is not known. */
  find(image: string): Resolved | undefined
  /** Makes an image ready. */
  prepare(image: string, signal: AbortSignal): Promise<Resolved>
}

let bounding: bigint | undefined

function check(options: RunOptions): void {
  if (options.stopSignal !== undefined && signalNumber(options.stopSignal) === undefined) {
    throw refuse('stopSignal', `'${options.stopSignal}' is no signal`)
  }
  if (
    options.hostname !== undefined &&
    !/^[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?$/.test(options.hostname)
  ) {
    throw refuse('hostname', `'${options.hostname}' is no host name of at most 63 characters`)
  }
  if (options.name !== undefined && !/^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/.test(options.name)) {
    throw refuse(
      'name',
      `Invalid container name (${options.name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed`,
    )
  }
  checkIsolation(options.minIsolation)
  // From JavaScript anything can come.
  const encoding: string = options.encoding ?? 'utf8'
  if (encoding !== 'utf8' && encoding !== 'buffer') {
    throw refuse('encoding', `'${encoding}' is neither utf8 nor buffer`)
  }
  if (options.signal !== undefined && !(options.signal instanceof AbortSignal))
    throw refuse('signal', 'is no AbortSignal')
  const seccomp: unknown = options.seccomp
  if (typeof seccomp === 'string' && !/^(default|unconfined|\s*\{[^]*)$/.test(seccomp)) {
    throw refuse('seccomp', `'${seccomp}' is neither default, unconfined nor a profile`)
  }
}

/** What can be known before a start; whether there is a cgroup the shim knows. */
function checkIsolation(wanted: string | undefined): void {
  if (wanted === undefined || wanted === 'single') return
  if (wanted !== 'full' && wanted !== 'range')
    throw refuse('minIsolation', `'${wanted}' is neither full, range nor single`)
  if (idMap().kind !== 'single') return
  throw new CaissonError(
    'ERR_ISOLATION',
    `minIsolation: ${wanted} needs a range of ids for this user in /etc/subuid and /etc/subgid, and newuidmap`,
    { subject: 'minIsolation' },
  )
}

function engineFile(path: string): string {
  return existsSync(path) ? readFileSync(path, 'utf8').slice(0, 65_536) : ''
}

/** The engine's files: none of a network has an address, `host` has this machine's own. */
function files(options: RunOptions, hostname: string): { name: string; content: string }[] {
  const host = options.network === 'host'
  return [
    { name: 'hosts', content: host ? engineFile('/etc/hosts') : hosts },
    { name: 'hostname', content: `${hostname}\n` },
    { name: 'resolv.conf', content: host ? engineFile('/etc/resolv.conf') : '' },
  ]
}

interface Begun {
  live: Run
  process: ProcessPromise<string | Buffer>
}

/** Throws what is refused at once. */
function launch(
  context: RunContext,
  image: Image,
  command: readonly string[] | undefined,
  given: RunOptions,
): Begun {
  const called = now()
  const { promise, ...settle } = Promise.withResolvers<Result<string | Buffer>>()
  const options = ownOptions(given)
  check(options)
  const live = new Run(context.shim, native().addon.randomId(), options, times(options), called, settle)
  void reach(live, begin(context, image, command, live))
  return { live, process: asProcess(promise, live) }
}

/** Starts a command in a fresh container. */
export function run(
  context: RunContext,
  image: Image,
  command: readonly string[] | undefined,
  options: RunOptions,
): ProcessPromise<string | Buffer> {
  try {
    return launch(context, image, command, options).process
  } catch (error) {
    return rejected(error)
  }
}

/** Starts a container that is held for longer than a command. Nobody types into it unless `stdio` says so. */
export async function start(
  context: RunContext,
  image: Image,
  command: readonly string[] | undefined,
  options: RunOptions,
): Promise<Container> {
  const quiet = { stdio: ['ignore', 'pipe', 'pipe'] as const }
  const wanted = options.stdio === undefined && options.tty !== true && options.input === undefined
  const { live, process } = launch(context, image, command, wanted ? { ...options, ...quiet } : options)
  return container(live, process as ProcessPromise)
}

/** A start that fails before anything is heard of it fails the run. */
async function reach(live: Run, beginning: Promise<void>): Promise<void> {
  try {
    await beginning
  } catch (error) {
    live.fail(error instanceof Error ? error : new CaissonError('ERR_INTERNAL', String(error)))
  }
}

/** What is refused at once is a promise too, with the shape of a process, so that callers have one way to handle it. */
function rejected(reason: unknown): ProcessPromise<string | Buffer> {
  const promise = Promise.reject<Result<string | Buffer>>(reason)
  const none = {
    id: '',
    name: undefined,
    labels: {},
    pid: undefined,
    stdin: null,
    stdout: null,
    stderr: null,
  }
  const started = Promise.resolve()
  async function stats(): Promise<never> {
    throw reason
  }
  async function dispose(): Promise<void> {
    await settled(promise)
  }
  const methods = { started, stats, kill: () => false, resize: () => {}, [Symbol.asyncDispose]: dispose }
  return Object.assign(promise, none, methods) as ProcessPromise<string | Buffer>
}

/** The whole way to the launch message; in the caller's own tick, if no image has to be made ready. */
async function begin(
  context: RunContext,
  image: Image,
  command: readonly string[] | undefined,
  live: Run,
): Promise<void> {
  const { options } = live
  options.signal?.throwIfAborted()
  const { addon } = native()
  // It gets ready while the rest is loaded and made.
  context.shim.start()
  const most = maxBuffer(options)
  const tty = options.tty === true
  const terminal = tty ? openTerminal() : undefined
  const stdio = terminal?.stdio ?? openStdio(options)
  const state = { connected: false }
  const attach = (): void => {
    state.connected = true
    const make = (): Streams => (tty ? terminalStreams(options) : connect(stdio, options.input))
    const attached = new Attached(stdio, most, make)
    live.attach(attached, terminal?.ours)
    // What something is to flow into, or comes from, is wanted.
    if (tty || options.input !== undefined || stdio.ends.some(({ peer }) => peer !== undefined))
      void attached.streams
  }
  try {
    let resolved: Resolved | undefined
    if (typeof image !== 'string') resolved = directory(image, context.roots)
    else {
      resolved = context.find(image)
      if (resolved === undefined) {
        // They can be asked for before the first wait.
        attach()
        resolved = await context.prepare(image, live.cancellation())
        live.throwIfCancelled()
      }
    }
    live.image = resolved.config
    live.moments.resolved = now()
    bounding ??= BigInt(`0x${addon.boundingSet()}`)
    const spec = compose(command, options, resolved.config, resolved.root.extras, bounding)
    const plan = planOf(spec, options)
    const hostname = options.hostname ?? live.id.slice(0, 12)
    const { timeout, stopTimeout } = times(options)
    const message = {
      token: live.token,
      id: live.id,
      hostname,
      rootfs: resolved.root.layers,
      files: files(options, hostname),
      stdio: stdio.payload,
      ownStdio: stdio.own,
      grouped: options.minIsolation === 'full',
      timeoutMs: timeout === 0 ? 0 : timeout + (stopTimeout ?? 0) + (stopTimeout === undefined ? 0 : 1000),
    }
    let failure = live.shim().launch(plan, message)
    // It has ended since: nobody took the message, so the next one may.
    if (failure?.code === 'ERR_SHIM_LOST') failure = live.shim().launch(plan, message)
    if (failure !== null) throw toError(failure)
    live.sent()
  } catch (error) {
    closeStdio(stdio, !state.connected)
    if (!state.connected && terminal !== undefined) addon.closeDescriptor(terminal.ours)
    throw error
  } finally {
    if (terminal !== undefined) for (const theirs of stdio.payload) addon.closeDescriptor(theirs)
  }
  closeStdio(stdio)
  if (!state.connected) attach()
}

function directory(image: { rootfs: string }, roots: Roots): Resolved {
  return { root: rootFilesystem(image.rootfs, roots), config: {} }
}
