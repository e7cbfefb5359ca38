/** A running container that ends with the block, or the program, that holds it. */
import type { Socket } from 'node:net'
import type { Writable } from 'node:stream'
import type { ImageInfo } from '../image/info.ts'
import { CaissonError } from '../errors.ts'
import type { CommitImage, CommitOptions } from './commit.ts'
import { agentOf, connectTo } from './dial.ts'
import type { ContainerAgent, ListeningOptions } from './dial.ts'
import { exec } from './exec.ts'
import type { ExecOptions, Host } from './exec.ts'
import type { ExportOptions } from './export.ts'
import { later, milliseconds } from './units.ts'
import type { Duration } from './units.ts'
import { settled } from './process.ts'
import type { Stats } from './figures.ts'
import type { ProcessPromise, Run } from './process.ts'
import type { Isolation, Result } from './result.ts'
import type { ShimConnection } from './shim.ts'

/** How a container is asked to end. */
export interface StopOptions {
  /** What asks its main process. Default: `stopSignal`, else the image's, else SIGTERM. */
  signal?: NodeJS.Signals | number
  /** How long it may take; after that everything in it is killed. Default: `stopTimeout`, else 10 s. */
  timeout?: Duration
}

/** A container that was started. It ends with its main process, and at the latest with this program. */
export interface Container {
  /** 64 hex digits. */
  readonly id: string
  readonly name: string | undefined
  readonly labels: Readonly<Record<string, string>>
  /** Its main process: streams, and a promise of its result. */
  readonly main: ProcessPromise
  /** What is in force, read from the kernel; undefined of one that was over before it could be looked at. */
  readonly isolation: Isolation | undefined
  /** Sends a signal to the main process; SIGKILL ends the whole container. False once it has ended. Default SIGKILL. */
  kill(signal?: NodeJS.Signals | number): boolean
  /** Asks it to end, and makes it; answers what it came to. */
  stop(options?: StopOptions): Promise<Result>
  /** What it came to, once it has ended. */
  wait(): Promise<Result>
  /**
   * Runs another command in it: in all its namespaces, in a cgroup of its own, with its capabilities and its filter or
   * fewer. As {@link Engine.run}, it resolves however the command ended; rejects with ERR_NOT_RUNNING once the container
   * has ended.
   */
  exec(command: readonly string[], options: ExecOptions & { encoding: 'buffer' }): ProcessPromise<Buffer>
  exec(command: readonly string[], options?: ExecOptions): ProcessPromise
  /**
   * Connects to a TCP port of its loopback, from inside its network: nothing is published, nothing can collide. Rejects
   * with ERR_DIAL, and the errno, where nobody listens.
   */
  dial(port: number): Promise<Socket>
  /**
   * Resolves once something in it listens at a TCP port, which needs no program in the image: the shim looks at the tables
   * of its network, after 1 ms, then less often, at last every 20 ms. Rejects with ERR_NOT_RUNNING if it ends before.
   */
  listening(port: number, options?: ListeningOptions): Promise<void>
  /**
   * Makes an image of it: its own image, and what was changed in its root file system as one layer on top. It is paused
   * meanwhile, if it has a cgroup of its own; what is mounted in it is left out. Its config is docker's: the image's, with
   * what the container was started with, and `changes`. Rejects with ERR_NOT_RUNNING once it has ended, or if it ends
   * meanwhile and is not read five seconds later; with ERR_UNSUPPORTED for a container of `{ rootfs }`.
   */
  commit(options?: CommitOptions): Promise<ImageInfo>
  /**
   * Writes its root file system, without what is mounted in it, as a tar archive for `import`: to a file, written aside and
   * renamed, or to a stream, which is ended. It is not paused: a file that shrinks while it is read is filled with zeros.
   * Rejects with ERR_NOT_RUNNING as `commit` does, with ERR_UNSUPPORTED for `{ rootfs: '/' }`: what is masked there would
   * be in the archive; and for one that has mounted something over its root.
   */
  export(target: string | Writable, options?: ExportOptions): Promise<void>
  /**
   * For `http.request` and clients that take an agent, and as `dispatcher` for Node's `fetch`: connects to the port of the
   * URL, inside; its host is not looked at. http alone.
   */
  agent(): ContainerAgent
  /** Figures now; rejects with ERR_NOT_RUNNING once it has ended. */
  stats(): Promise<Stats>
  /** Ends it, everything in it at once, and waits until nothing of it is left. */
  [Symbol.asyncDispose](): Promise<void>
}

/** Docker's. */
const patience = 10_000

/** Gives the container once its command runs. */
export async function container(
  shim: ShimConnection,
  live: Run,
  main: ProcessPromise,
  put: CommitImage,
): Promise<Container> {
  // Who only holds the container hears of a loss by wait or stop.
  main.catch(() => {})
  await settled(live.started)
  // A start that failed rejects here; a command that is over already is a container that ended.
  if (live.isOver) {
    await main.catch((error: unknown) => {
      if (!(error instanceof CaissonError && error.code === 'ERR_COMMAND_FAILED')) throw error
    })
  }
  const dial = async (port: number): Promise<Socket> => connectTo(async (inside) => live.dial(inside), port)
  return {
    id: main.id,
    name: main.name,
    labels: main.labels,
    main,
    get isolation() {
      return live.isolation
    },
    kill: (signal = 'SIGKILL') => main.kill(signal),
    async stop({ signal, timeout } = {}) {
      const most = timeout ?? live.options.stopTimeout
      const ms = most === undefined ? patience : milliseconds('timeout', most)
      main.kill(signal ?? live.stopSignal)
      const cancel = later(ms, () => main.kill('SIGKILL'))
      await settled(main)
      cancel()
      return main
    },
    exec: ((command: readonly string[], options?: ExecOptions) =>
      exec(shim, live as Host, command, options ?? {})) as Container['exec'],
    dial,
    listening: async (port, options) => live.listening(port, options),
    agent: () => agentOf(dial),
    commit: async (options) => live.commit(put, options),
    export: async (target, options) => live.export(target, options),
    wait: async () => main,
    stats: async () => main.stats(),
    async [Symbol.asyncDispose]() {
      main.kill('SIGKILL')
      await settled(main)
    },
  }
}
