/** `run`: resolve, compose, plan, launch; the rest are the shim's events. */
import { existsSync, readFileSync } from 'node:fs'
import { CaissonError, refuse } from '../errors.ts'
import type { ImageConfig } from '../image/config.ts'
import type { ImageOptions } from '../image/images.ts'
import { native, toError } from '../native.ts'
import { idMap } from '../state/ids.ts'
import type { Roots } from '../state/roots.ts'
import { ownConfig } from './commit.ts'
import type { CommitImage } from './commit.ts'
import { container } from './container.ts'
import type { Container } from './container.ts'
import { hosts } from './defaults.ts'
import { rootFilesystem } from './machine.ts'
import type { RootFilesystem } from './machine.ts'
import { aboutOf } from './about.ts'
import { reach, rejected, withStdio } from './begin.ts'
import { checkProcess, ownOptions, times } from './options.ts'
import type { RunOptions } from './options.ts'
import { planOf } from './plan.ts'
import { asProcess, Run } from './process.ts'
import type { ProcessPromise } from './process.ts'
import { now } from './result.ts'
import type { Result } from './result.ts'
import type { ShimConnection } from './shim.ts'
import { compose } from './spec.ts'
import type { Stdio } from './stdio.ts'

/** What a container is made from: an image of a layout, `oci:DIR[:TAG]`, or a directory of this machine. */
export type Image = string | { rootfs: string }

/** What an image gives a run. */
export interface Resolved {
  root: RootFilesystem
  /** What of the store is held while it runs: the chain id of the topmost layer. */
  layer?: string | undefined
  config: ImageConfig
  /** Of the image's manifest; none: it is no image. */
  digest?: string | undefined
}

/** What a run needs of its engine. */
export interface RunContext {
  roots: Roots
  shim: ShimConnection
  /** An image that is ready; undefined for one that is not, or is not known. */
  find(image: string): Resolved | undefined
  /** Makes an image ready. */
  prepare(image: string, options: ImageOptions): Promise<Resolved>
  /** Makes an image of a container. */
  commit: CommitImage
}

let bounding: bigint | undefined

function check(options: RunOptions): void {
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
  const pull: string = options.pull ?? 'missing'
  if (!['missing', 'always', 'never'].includes(pull))
    throw refuse('pull', `'${pull}' is neither missing, always nor never`)
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
  checkProcess(options)
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
  return container(context.shim, live, process as ProcessPromise, context.commit)
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
  // It gets ready while the rest is loaded and made.
  context.shim.start()
  await withStdio(live, (stdio, attach) => {
    const found = typeof image === 'string' ? find(context, image, options) : directory(image, context.roots)
    if (found !== undefined) sendLaunch(live, image, command, found, stdio)
    if (found !== undefined || typeof image !== 'string') return undefined
    // Its streams can be asked for before the wait.
    attach()
    return (async () => {
      const { pull, platform, onProgress: report } = options
      const resolved = await context.prepare(image, { signal: live.cancellation(), pull, platform, report })
      live.throwIfCancelled()
      sendLaunch(live, image, command, resolved, stdio)
    })()
  })
}

/** What is ready; not where it is to be looked for anew. */
function find(context: RunContext, image: string, { pull, platform }: RunOptions): Resolved | undefined {
  return pull === 'always' || platform !== undefined ? undefined : context.find(image)
}

/** Composes, compiles, sends. */
function sendLaunch(
  live: Run,
  image: Image,
  command: readonly string[] | undefined,
  resolved: Resolved,
  stdio: Stdio,
): void {
  const { options } = live
  live.image = resolved.config
  live.moments.resolved = now()
  bounding ??= BigInt(`0x${native().addon.boundingSet()}`)
  const spec = compose(command, options, resolved.config, resolved.root.extras, bounding)
  live.spec = spec
  live.origin = {
    digest: resolved.digest,
    own: ownConfig(command, options),
    command: spec.process.args,
  }
  const plan = planOf(spec, options)
  const message = {
    token: live.token,
    id: live.id,
    hostname: live.hostname,
    rootfs: resolved.root.layers,
    files: files(options, live.hostname),
    stdio: stdio.payload,
    ownStdio: stdio.own,
    ...(resolved.layer !== undefined && { layer: resolved.layer }),
    grouped: options.minIsolation === 'full',
    timeoutMs: live.timeoutMs,
    about: aboutOf(image, live, spec),
  }
  let failure = live.shim().launch(plan, message)
  // It has ended since: nobody took the message, so the next one may.
  if (failure?.code === 'ERR_SHIM_LOST') failure = live.shim().launch(plan, message)
  if (failure !== null) throw toError(failure)
}

function directory(image: { rootfs: string }, roots: Roots): Resolved {
  return { root: rootFilesystem(image.rootfs, roots), config: {} }
}
