/** The containers that run now, of this program and of every other of the same user and root. */
import type { Socket } from 'node:net'
import { CaissonError } from '../errors.ts'
import { toError } from '../native.ts'
import type { ShimEvent } from '../native.ts'
import type { About } from './about.ts'
import { commitOver } from './commit.ts'
import type { CommitImage } from './commit.ts'
import type { Container, StopOptions } from './container.ts'
import { agentOf, connectTo, dialInto, listeningIn } from './dial.ts'
import { exec } from './exec.ts'
import { exportOver } from './export.ts'
import { statsOver } from './figures.ts'
import type { ExecOptions, Host } from './exec.ts'
import { PeerConnection, shimPaths } from './peer.ts'
import { ended, ownNamespaces } from './process.ts'
import { isolationOf, signalNumber } from './result.ts'
import type { Isolation } from './result.ts'
import { refuse } from '../errors.ts'
import { later, milliseconds } from './units.ts'

/** A container that runs, as its owner and the kernel tell of it. */
export interface ContainerInfo {
  /** 64 hex digits. */
  id: string
  name: string | undefined
  labels: Readonly<Record<string, string>>
  /** A reference, or the path of a root file system. */
  image: string
  command: readonly string[]
  /** When it was started. */
  created: Date
  hostname: string
  /** Its main process's id on this machine. */
  pid: number
  env: readonly string[]
  workdir: string
  user: string
  isolation: Isolation
}

/** A container that runs, whoever started it. It is let go by {@link RunningContainer.close}, and lives on. */
export interface RunningContainer extends Pick<
  Container,
  'exec' | 'dial' | 'listening' | 'agent' | 'stats' | 'commit' | 'export' | 'id' | 'name'
> {
  readonly info: ContainerInfo
  /** Sends a signal to its main process; SIGKILL ends it. Default SIGKILL. */
  kill(signal?: NodeJS.Signals | number): void
  /** As {@link Container.stop}; its owner alone learns what it came to. */
  stop(options?: StopOptions): Promise<void>
  /** Resolves once nothing of it is left. */
  wait(): Promise<void>
  /** Lets go of it. What `exec` started is ended. */
  close(): void
  [Symbol.asyncDispose](): Promise<void>
}

interface Found {
  path: string
  container: number
  about: About
  info: ContainerInfo
}

function found(path: string, event: ShimEvent): Found[] {
  const { listed, isolation, pid } = event
  if (listed === undefined || isolation === undefined) return []
  const about = JSON.parse(listed.about) as About
  const process = about.host?.spec.process
  const info: ContainerInfo = {
    id: listed.id,
    name: about.name,
    labels: about.labels ?? {},
    image: about.image,
    command: about.command,
    created: new Date(about.created),
    hostname: about.hostname,
    pid: pid ?? 0,
    env: process?.env ?? [],
    workdir: process?.cwd ?? '',
    user: process?.user.username ?? '',
    isolation: isolationOf(isolation, ownNamespaces()),
  }
  return [{ path, container: listed.container, about, info }]
}

/** Asks every shim of a run root. */
async function all(run: string): Promise<Found[]> {
  const each = shimPaths(run).map(async (path) => {
    const peer = await PeerConnection.open(path)
    if (peer === undefined) return []
    try {
      const events = await peer.ask((shim, token) => shim.list(token))
      return events.flatMap((event) => found(path, event))
    } catch {
      // It ended meanwhile, and its containers with it.
      return []
    } finally {
      peer.close()
    }
  })
  return (await Promise.all(each)).flat()
}

/** Docker's order: a whole id, a whole name, the beginning of an id. */
function pick(ref: string, known: readonly Found[]): Found {
  if (typeof ref !== 'string' || ref === '') throw refuse('container', 'is no name and no id')
  const ways: ((one: Found) => boolean)[] = [
    ({ info }) => info.id === ref,
    ({ info }) => info.name === ref,
    ({ info }) => info.id.startsWith(ref),
  ]
  const matches = ways.map((way) => known.filter(way)).find((some) => some.length > 0) ?? []
  const [match, other] = matches
  if (match === undefined)
    throw new CaissonError('ERR_CONTAINER_NOT_FOUND', `No such container: ${ref}`, { subject: ref })
  if (other !== undefined) {
    const ids = matches.map(({ info }) => info.id.slice(0, 12)).join(', ')
    throw new CaissonError('ERR_CONTAINER_NOT_FOUND', `${ref} is more than one container: ${ids}`, {
      subject: ref,
    })
  }
  return match
}

function running(
  peer: PeerConnection,
  { container, about, info }: Found,
  put: CommitImage,
): RunningContainer {
  const state = { isOver: false, isClosed: false }
  const host = (): Host => {
    if (about.host !== undefined)
      return { id: info.id, token: container, hostname: about.hostname, ...about.host, isOver: state.isOver }
    const message = 'its environment or its profile is too large to be handed to other programs'
    throw new CaissonError('ERR_UNSUPPORTED', `exec: ${message}`, { subject: 'exec' })
  }
  const wait = async (): Promise<void> => {
    try {
      await peer.ask((shim, token) => shim.wait(token, container))
    } catch (error) {
      // With its owner it is gone, too; with us it is not.
      if (state.isClosed) throw error
    }
    state.isOver = true
  }
  const close = (): void => {
    state.isClosed = true
    peer.close()
  }
  const kill = (signal: NodeJS.Signals | number = 'SIGKILL'): void => {
    const number = signalNumber(signal)
    if (number === undefined) throw refuse('signal', `'${String(signal)}' is no signal`)
    const failure = number === 9 ? peer.shim.kill(container, 3) : peer.shim.signal(container, number)
    if (failure !== null) throw toError(failure)
  }
  const dial = async (port: number): Promise<Socket> =>
    connectTo(async (inside) => {
      if (state.isOver) throw ended(info.id)
      return dialInto(peer, container, inside)
    }, port)
  return {
    id: info.id,
    name: info.name,
    info,
    kill,
    async stop({ signal, timeout } = {}) {
      const ms = milliseconds('timeout', timeout ?? about.stopTimeout ?? 10_000)
      kill(signal ?? about.stopSignal)
      const cancel = later(ms, () => void peer.shim.kill(container, 3))
      await wait()
      cancel()
    },
    wait,
    exec: ((command: readonly string[], options?: ExecOptions) =>
      exec(peer, host, command, options ?? {})) as Container['exec'],
    dial,
    listening: async (port, options) => {
      if (state.isOver) throw ended(info.id)
      return listeningIn(peer, container, port, options)
    },
    agent: () => agentOf(dial),
    commit: async (options) => {
      if (state.isOver) throw ended(info.id)
      const { digest, own, command } = about
      return commitOver(peer, container, { digest, own, command }, put, options)
    },
    export: async (target, options) => {
      if (state.isOver) throw ended(info.id)
      return exportOver(peer, container, target, options)
    },
    stats: async () => statsOver(peer, container, () => ended(info.id)),
    close,
    async [Symbol.asyncDispose]() {
      close()
    },
  }
}

/** Containers of an engine's roots, whichever program started them. */
export class Containers {
  readonly #run: string
  readonly #put: CommitImage

  /** `put` makes an image of one. */
  constructor(run: string, put: CommitImage) {
    this.#run = run
    this.#put = put
  }

  /** Those that run, the newest first. */
  async list(): Promise<ContainerInfo[]> {
    const known = await all(this.#run)
    return known.map(({ info }) => info).toSorted((a, b) => Number(b.created) - Number(a.created))
  }

  /**
   * One that runs: by its id, its name, or the beginning of its id. Rejects with ERR_CONTAINER_NOT_FOUND where there is
   * none, or more than one.
   */
  async get(ref: string): Promise<RunningContainer> {
    const match = pick(ref, await all(this.#run))
    const peer = await PeerConnection.open(match.path)
    if (peer === undefined) throw ended(match.info.id)
    return running(peer, match, this.#put)
  }
}
