/** How every command begins: its stdio opened, its message sent, and whatever fails told to who waits for it. */
import { CaissonError } from '../errors.ts'
import { native } from '../native.ts'
import { Attached } from './attached.ts'
import { maxBuffer } from './options.ts'
import { settled } from './process.ts'
import type { ProcessPromise, Run } from './process.ts'
import type { Result } from './result.ts'
import { closeStdio, connect, openStdio } from './stdio.ts'
import type { Stdio, Streams } from './stdio.ts'
import { openTerminal, terminalStreams } from './terminal.ts'

/** A start that fails before anything is heard of it fails the run. */
export async function reach(live: Run, beginning: Promise<void>): Promise<void> {
  try {
    await beginning
  } catch (error) {
    live.fail(error instanceof Error ? error : new CaissonError('ERR_INTERNAL', String(error)))
  }
}

/** What is refused at once is a promise too, with the shape of a process, so that callers have one way to handle it. */
export function rejected(reason: unknown): ProcessPromise<string | Buffer> {
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

/**
 * Opens the stdio of a command and has its message sent, which throws if it cannot be. This side is connected after that,
 * or when `send` calls `attach` because it has to wait first: all in the caller's own tick, or in that of the waiting.
 */
export async function withStdio(
  live: Run,
  send: (stdio: Stdio, attach: () => void) => Promise<void> | void,
): Promise<void> {
  const { options } = live
  const { addon } = native()
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
    const waiting = send(stdio, attach)
    if (waiting !== undefined) await waiting
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
