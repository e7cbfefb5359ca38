/** Connections into a container's network. */
import { createRequire } from 'node:module'
import type * as Http from 'node:http'
import type { Agent } from 'node:http'
import type { Socket } from 'node:net'
import type * as Util from 'node:util'
import { CaissonError, refuse } from '../errors.ts'
import { native, toError } from '../native.ts'
import { failureOf } from './shim.ts'
import type { Connection } from './shim.ts'
import { opened } from './stdio.ts'
import { streams } from './streams.ts'
import { later, milliseconds } from './units.ts'
import type { Duration } from './units.ts'

/** Connects to a port of the loopback of the container with this number: a descriptor that is held. */
export async function dialInto(connection: Connection, container: number, port: number): Promise<number> {
  const { addon } = native()
  const [theirs = -1, ours = -1] = opened(() => addon.wayBack())
  const token = connection.token()
  try {
    return await new Promise((resolve, reject) => {
      const { shim, forget } = connection.get(token, (event) => {
        forget()
        if (event instanceof Error) reject(event)
        else if (event.kind === 'dialed') resolve(addon.receiveDescriptor(ours))
        else reject(failureOf(event))
      })
      const failure = shim.dial(token, container, port, theirs)
      if (failure === null) return
      forget()
      reject(toError(failure))
    })
  } finally {
    addon.closeDescriptor(theirs)
    addon.closeDescriptor(ours)
  }
}

function checkedPort(port: number): void {
  if (!Number.isInteger(port) || port < 1 || port > 65_535)
    throw refuse('port', `'${String(port)}' is not between 1 and 65535`)
}

/** How long one waits for a port. */
export interface ListeningOptions {
  /** After this it rejects with ERR_DIAL. Default: as long as the container runs. */
  timeout?: Duration
  /** Aborting it rejects with its reason. */
  signal?: AbortSignal
}

/** Waits until something in the container with this number listens at a port. */
export async function listeningIn(
  connection: Connection,
  container: number,
  port: number,
  { timeout, signal }: ListeningOptions = {},
): Promise<void> {
  checkedPort(port)
  const ms = timeout === undefined ? undefined : milliseconds('timeout', timeout)
  signal?.throwIfAborted()
  const token = connection.token()
  let why: unknown
  let off: (() => void) | undefined
  try {
    await new Promise<void>((resolve, reject) => {
      const { shim, forget } = connection.get(token, (event) => {
        forget()
        if (event instanceof Error) reject(event)
        else if (event.kind === 'done') resolve()
        else reject(why ?? failureOf(event))
      })
      const failure = shim.listening(token, container, port)
      if (failure !== null) {
        forget()
        reject(toError(failure))
        return
      }
      const end = (reason: unknown): void => {
        why ??= reason
        shim.cancel(token)
      }
      const aborted = (): void => end(signal?.reason)
      signal?.addEventListener('abort', aborted, { once: true })
      const late = new CaissonError('ERR_DIAL', `port ${port}: nobody listened within ${ms} ms`, {
        subject: 'port',
      })
      const cancel = ms === undefined ? undefined : later(ms, () => end(late))
      off = () => {
        cancel?.()
        signal?.removeEventListener('abort', aborted)
      }
    })
  } finally {
    off?.()
  }
}

/** A socket of what `dial` connects to. */
export async function connectTo(dial: (port: number) => Promise<number>, port: number): Promise<Socket> {
  checkedPort(port)
  const fd = await dial(port)
  const { Socket: Stream } = streams()
  const socket = new Stream({ fd, readable: true, writable: true })
  native().addon.releaseDescriptor(fd)
  return socket
}

/** For `http.request`, for clients that take an agent, and for Node's own `fetch(url, { dispatcher })`. */
export type ContainerAgent = Agent & NonNullable<RequestInit['dispatcher']>

interface Dispatcher {
  dispatch(options: object, handler: object): boolean
  destroy(): Promise<void>
}
type Connector = (
  options: { port: string; protocol: string },
  answer: (error: Error | null, socket: Socket | null) => void,
) => void

/** The dispatcher of Node's own fetch, which is not to be imported: it has left one of its class where undici looks for it. */
function dispatcherOf(connect: Connector): Dispatcher {
  const known = (globalThis as unknown as Record<symbol, object | undefined>)[
    Symbol.for('undici.globalDispatcher.1')
  ]
  const Base = known?.constructor as (new (options: { connect: Connector }) => Dispatcher) | undefined
  if (Base === undefined)
    throw new CaissonError('ERR_DIAL', 'agent: this Node has no fetch that takes a dispatcher')
  return new Base({ connect })
}

/** An agent whose connections are made by `dial`. */
export function agentOf(dial: (port: number) => Promise<Socket>): ContainerAgent {
  // Loaded by who asks for one.
  const require = createRequire(import.meta.url)
  const { Agent: Base } = require('node:http') as typeof Http
  const { callbackify } = require('node:util') as typeof Util
  const agent = new Base()
  const called = callbackify(dial)
  // Answered by the callback; Node takes no promise.
  agent.createConnection = (options, callback) => {
    called(Number(options.port), (error, socket) => callback?.(error, socket))
    return undefined
  }
  let fetching: Dispatcher | undefined
  const connect: Connector = ({ port, protocol }, answer) => {
    if (protocol !== 'http:') {
      answer(
        new CaissonError('ERR_DIAL', `agent: ${protocol} is not http:, which is all that it speaks`),
        null,
      )
      return
    }
    called(port === '' ? 80 : Number(port), answer)
  }
  return Object.assign(agent, {
    dispatch: (options: object, handler: object) =>
      (fetching ??= dispatcherOf(connect)).dispatch(options, handler),
    destroy: () => {
      void fetching?.destroy()
      Base.prototype.destroy.call(agent)
    },
  }) as unknown as ContainerAgent
}
