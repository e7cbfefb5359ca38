/** One command in a container: a promise of its result, and a live process until then. */
import { existsSync, readlinkSync } from 'node:fs'
import { hostname } from 'node:os'
import type { Writable } from 'node:stream'
import type { ImageInfo } from '../image/info.ts'
import type { NativeEnd, ShimEvent } from '../native.ts'
import { CaissonError, refuse } from '../errors.ts'
import type { Attached, Capture } from './attached.ts'
import type { ImageConfig } from '../image/config.ts'
import { native, toError } from '../native.ts'
import type { Native } from '../native.ts'
import { commitOver } from './commit.ts'
import type { CommitImage, CommitOptions, Origin } from './commit.ts'
import { exportOver } from './export.ts'
import type { ExportOptions } from './export.ts'
import type { RunOptions, Times } from './options.ts'
import { causeOf, isolationOf, now, signalName, signalNumber, timingOf, usageOf } from './result.ts'
import type { Cause, Isolation, Moments, Result } from './result.ts'
import { dialInto, listeningIn } from './dial.ts'
import { statsOver } from './figures.ts'
import type { Stats } from './figures.ts'
import type { ListeningOptions } from './dial.ts'
import { failureOf } from './shim.ts'
import type { Connection } from './shim.ts'
import type { Spec } from './spec.ts'
import type { Output, Streams } from './stdio.ts'
import { joinTerminal } from './terminal.ts'
import { later } from './units.ts'

/** What a command in a container can be asked while it runs. */
export interface Process {
  /** Its container's id, 64 hex digits. */
  readonly id: string
  readonly name: string | undefined
  readonly labels: Readonly<Record<string, string>>
  /** Its process's id on this machine, once it runs. */
  readonly pid: number | undefined
  readonly stdin: Writable | null
  readonly stdout: Output | null
  readonly stderr: Output | null
  /** Resolves once the command runs, or ran; rejects, as the result does, if it could not be started. */
  readonly started: Promise<void>
  /**
   * Sends it a signal. SIGKILL ends all that goes with it: of a main process its container, of an exec its children.
   * False once it has ended. Default SIGTERM.
   */
  kill(signal?: NodeJS.Signals | number): boolean
  /** Sets the terminal's size. */
  resize(size: { columns: number; rows: number }): void
  /** Figures now; rejects once it has ended. */
  stats(): Promise<Stats>
  /** Ends it, as SIGKILL does, and waits until nothing of it is left. */
  [Symbol.asyncDispose](): Promise<void>
}

/** A promise of the result that is the process, too. */
export type ProcessPromise<Out = string> = Promise<Result<Out>> & Process

interface Settle {
  resolve(result: Result<string | Buffer>): void
  reject(error: Error): void
}

/** The state behind a {@link ProcessPromise}. */
export class Run {
  readonly id: string
  readonly options: RunOptions
  readonly token: number
  readonly #connection: Connection
  #forget: () => void = () => {}
  readonly #times: Times
  readonly #settle: Settle
  readonly #moments: Moments
  #shim: InstanceType<Native['Shim']> | undefined
  #attached: Attached | undefined
  #asked: Cause | undefined
  /** Signals that were sent; those of before the launch wait for it. */
  readonly #signals: Set<number> = new Set()
  #launched = false
  #pid: number | undefined
  #isolation: Isolation | undefined
  #over = false
  #timers: (() => void)[] = []
  readonly started: Promise<void>
  #start: () => void = () => {}
  #startFailed: (error: Error) => void = () => {}
  #onAbort: (() => void) | undefined
  /** Ends what is done before there is a container. */
  #cancel: AbortController | undefined
  /** What the image says. */
  image: ImageConfig = {}
  /** Of what it was made, for an image of it. */
  origin: Origin = { digest: undefined, own: undefined, command: [] }
  /** What was composed of it and the options. */
  spec: Spec | undefined
  /** Where a terminal's master will come from. */
  #terminal: number | undefined

  constructor(
    connection: Connection,
    id: string,
    options: RunOptions,
    times: Times,
    called: number,
    settle: Settle,
  ) {
    this.id = id
    this.options = options
    this.#connection = connection
    this.#times = times
    this.#settle = settle
    this.#moments = { called, resolved: called, sent: called }
    this.token = connection.token()
    this.started = new Promise((resolve, reject) => {
      this.#start = resolve
      this.#startFailed = reject
    })
    // The result says it, too.
    this.started.catch(() => {})
  }

  get moments(): Moments {
    return this.#moments
  }

  get pid(): number | undefined {
    return this.#pid
  }

  /** What is in force, once its start was told or it ended. */
  get isolation(): Isolation | undefined {
    return this.#isolation
  }

  /** Whether it has ended, or nothing was started. */
  get isOver(): boolean {
    return this.#over
  }

  /** The container's host name. */
  get hostname(): string {
    if (this.options.hostname !== undefined) return this.options.hostname
    // Docker's: with the machine's network comes its name.
    return this.options.network === 'host' ? hostname() : this.id.slice(0, 12)
  }

  /** How long the shim lets it run, in ms; 0: for ever. With a stop time this side asks first, and that is the last resort. */
  get timeoutMs(): number {
    const { timeout, stopTimeout } = this.#times
    if (timeout === 0 || stopTimeout === undefined) return timeout
    return timeout + stopTimeout + 1000
  }

  /** What asks it to end. */
  get stopSignal(): number {
    return signalNumber(this.options.stopSignal ?? this.image.stopSignal ?? 'SIGTERM') ?? 15
  }

  get streams(): Partial<Streams> {
    return this.#attached?.streams ?? {}
  }

  /** The cause that is known before the shim's answer: an abort that came before the start. */
  get asked(): Cause | undefined {
    return this.#asked
  }

  /** The shim that will hold it; from now on its events are heard. Asked again, another one: the first was lost. */
  shim(): InstanceType<Native['Shim']> {
    this.#forget()
    const { shim, forget } = this.#connection.get(this.token, (event) => this.#hear(event), this.#shim)
    this.#shim = shim
    this.#forget = forget
    return shim
  }

  /** Aborted by the caller's signal and by `kill`: for the time before there is a container. */
  cancellation(): AbortSignal {
    this.#cancel = new AbortController()
    const { signal } = this.options
    return signal === undefined ? this.#cancel.signal : AbortSignal.any([signal, this.#cancel.signal])
  }

  throwIfCancelled(): void {
    this.options.signal?.throwIfAborted()
    this.#cancel?.signal.throwIfAborted()
  }

  /** The launch message is on its way. */
  sent(): void {
    this.#moments.sent = now()
    this.#launched = true
    for (const signal of this.#signals) this.#send(signal)
    const { timeout, stopTimeout } = this.#times
    // Without a stop time the shim itself keeps the time, however busy this thread is.
    if (timeout > 0 && stopTimeout !== undefined) {
      this.#timers.push(later(timeout, () => this.#stopOrKill('timeout')))
    }
    const { signal } = this.options
    if (signal !== undefined) {
      this.#onAbort = () => this.#stopOrKill('aborted')
      signal.addEventListener('abort', this.#onAbort, { once: true })
      if (signal.aborted) this.#onAbort()
    }
  }

  /** This side of its stdio is there. */
  attach(attached: Attached, terminal?: number): void {
    this.#attached = attached
    this.#terminal = terminal
  }

  /** Nothing was started, or nothing will be heard of it. */
  fail(error: Error): void {
    if (this.#over) return
    this.#startFailed(error)
    this.#finish()
    this.#attached?.destroy()
    this.#settle.reject(error)
  }

  kill(signal: NodeJS.Signals | number = 'SIGTERM'): boolean {
    const number = signalNumber(signal)
    if (number === undefined) throw refuse('signal', `'${String(signal)}' is no signal`)
    if (this.#over) return false
    this.#asked ??= 'killed'
    if (this.#shim === undefined) this.#cancel?.abort(killedEarly(this.id))
    this.#signals.add(number)
    this.#send(number)
    return true
  }

  resize({ columns, rows }: { columns: number; rows: number }): void {
    if (!this.#over) this.#shim?.resize(this.token, columns, rows)
  }

  async stats(): Promise<Stats> {
    await settled(this.started)
    if (this.#over) throw ended(this.id)
    return statsOver(this.#connection, this.token, () => ended(this.id))
  }

  /** Connects to a port of the container's loopback: a descriptor that is held. */
  async dial(port: number): Promise<number> {
    await settled(this.started)
    if (this.#over) throw ended(this.id)
    return dialInto(this.#connection, this.token, port)
  }

  /** Waits until something in the container listens at a port. */
  async listening(port: number, options?: ListeningOptions): Promise<void> {
    await settled(this.started)
    if (this.#over) throw ended(this.id)
    return listeningIn(this.#connection, this.token, port, options)
  }

  /** Makes an image of the container. */
  async commit(put: CommitImage, options?: CommitOptions): Promise<ImageInfo> {
    await settled(this.started)
    if (this.#over) throw ended(this.id)
    return commitOver(this.#connection, this.token, this.origin, put, options)
  }

  /** Writes the container's root file system. */
  async export(target: string | Writable, options?: ExportOptions): Promise<void> {
    await settled(this.started)
    if (this.#over) throw ended(this.id)
    return exportOver(this.#connection, this.token, target, options)
  }

  #send(signal: number): void {
    if (!this.#launched) return
    if (signal === 9)
      this.#shim?.kill(this.token, this.#asked === 'aborted' ? 2 : this.#asked === 'timeout' ? 1 : 3)
    else this.#shim?.signal(this.token, signal)
  }

  #stopOrKill(cause: Cause): void {
    if (this.#over) return
    this.#asked ??= cause
    const { stopTimeout } = this.#times
    if (stopTimeout === undefined) {
      this.#send(9)
      return
    }
    this.#send(this.stopSignal)
    this.#timers.push(later(stopTimeout, () => this.#send(9)))
  }

  #hear(event: ShimEvent | CaissonError): void {
    if (event instanceof Error) {
      this.fail(event)
      return
    }
    switch (event.kind) {
      case 'started':
        this.#pid = event.pid
        if (event.isolation !== undefined) this.#isolation = isolationOf(event.isolation, ownNamespaces())
        // More than a moment: from now on its output is read as it comes.
        void this.#attached?.streams
        this.#openTerminal()
        this.#start()
        break
      case 'ended':
        if (event.end !== undefined) this.#end(event.end).catch((error: Error) => this.#settle.reject(error))
        break
      case 'stats':
      case 'dialed':
      case 'unpacked':
      case 'wanted':
      case 'welcome':
      case 'listed':
      case 'done':
        break
      case 'failed':
        this.fail(failureOf(event))
    }
  }

  #openTerminal(): void {
    if (this.#terminal === undefined || this.#attached === undefined) return
    const { addon } = native()
    const master = addon.receiveDescriptor(this.#terminal)
    addon.closeDescriptor(this.#terminal)
    this.#terminal = undefined
    if (master >= 0) joinTerminal(master, this.#attached.streams)
  }

  #finish(): void {
    this.#over = true
    this.#forget()
    if (this.#terminal !== undefined) native().addon.closeDescriptor(this.#terminal)
    this.#terminal = undefined
    for (const cancel of this.#timers) cancel()
    if (this.#onAbort !== undefined) this.options.signal?.removeEventListener('abort', this.#onAbort)
    this.#start()
  }

  async #end(end: NativeEnd): Promise<void> {
    const isolation = isolationOf(end.isolation, ownNamespaces())
    this.#isolation = isolation
    this.#finish()
    const [stdout, stderr] = (await this.#attached?.ended()) ?? []
    if (end.left !== undefined) {
      this.#settle.reject(toError(end.left))
      return
    }
    const text = (capture: Capture | undefined): string | Buffer => {
      const bytes = capture?.bytes() ?? Buffer.alloc(0)
      return this.options.encoding === 'buffer' ? bytes : bytes.toString('utf8')
    }
    const result = {
      exitCode: end.signaled ? null : end.status,
      signal: end.signaled ? signalName(end.status) : null,
      cause: causeOf(end, this.#asked, this.#signals, this.options.init === true),
      stdout: text(stdout),
      stderr: text(stderr),
      dropped: { stdout: stdout?.dropped ?? 0, stderr: stderr?.dropped ?? 0 },
      usage: usageOf(end),
      timing: timingOf(this.#moments, end.stamps),
      isolation,
    }
    if (this.options.check === true && result.exitCode !== 0) {
      const how = result.signal === null ? `exit code ${result.exitCode}` : result.signal
      const error = new CaissonError('ERR_COMMAND_FAILED', `the command ended with ${how} (${result.cause})`)
      this.#settle.reject(Object.assign(error, { result }))
      return
    }
    this.#settle.resolve(result)
  }
}

/** What everything says that comes after the end. */
export function ended(id: string): CaissonError {
  return new CaissonError('ERR_NOT_RUNNING', `container ${id.slice(0, 12)} is not running`, { subject: id })
}

function killedEarly(id: string): CaissonError {
  const message = `container ${id.slice(0, 12)} was killed before its command ran`
  return new CaissonError('ERR_NOT_RUNNING', message, { subject: id })
}

let own: Record<string, string> | undefined

/** The namespaces of this process, to say which a container shares. */
export function ownNamespaces(): Record<string, string> {
  own ??= Object.fromEntries(
    ['cgroup', 'ipc', 'mount', 'network', 'pid', 'time', 'user', 'uts'].flatMap((name) => {
      const path = `/proc/self/ns/${name === 'mount' ? 'mnt' : name === 'network' ? 'net' : name}`
      // A kernel may be built without one.
      const inode = existsSync(path) ? /\[(\d+)\]/.exec(readlinkSync(path))?.[1] : undefined
      return inode === undefined ? [] : [[name, inode]]
    }),
  )
  return own
}

/** Waits until a promise has settled, whichever way. */
export async function settled(promise: Promise<unknown>): Promise<void> {
  await Promise.allSettled([promise])
}

/** Makes the promise of a run its process. */
export function asProcess(
  promise: Promise<Result<string | Buffer>>,
  run: Run,
): ProcessPromise<string | Buffer> {
  const process: PropertyDescriptorMap & ThisType<never> = {
    id: { value: run.id, enumerable: true },
    name: { value: run.options.name, enumerable: true },
    labels: { value: { ...run.options.labels }, enumerable: true },
    pid: { get: () => run.pid, enumerable: true },
    stdin: { get: () => run.streams.stdin ?? null, enumerable: true },
    stdout: { get: () => run.streams.stdout ?? null, enumerable: true },
    stderr: { get: () => run.streams.stderr ?? null, enumerable: true },
    started: { value: run.started },
    kill: { value: (signal?: NodeJS.Signals | number) => run.kill(signal) },
    resize: { value: (size: { columns: number; rows: number }) => run.resize(size) },
    stats: { value: () => run.stats() },
    [Symbol.asyncDispose]: {
      value: async () => {
        run.kill('SIGKILL')
        await settled(promise)
      },
    },
  }
  return Object.defineProperties(promise, process) as ProcessPromise<string | Buffer>
}
