/** Connections into a container's network. */
import { createRequire } from 'node:module'
import type * as Http from 'node:http'
import type { Agent } from 'node:http'
import type { Socket } from 'node:net'
import type * as Util from 'node:util'
import { refuse } from '../errors.ts'
import { native, toError } from '../native.ts'
import { failureOf } from './shim.ts'
import type { Connection } from './shim.ts'
import { opened } from './stdio.ts'
import { streams } from './streams.ts'

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

/** A socket of what `dial` connects to. */
export async function connectTo(dial: (port: number) => Promise<number>, port: number): Promise<Socket> {
  if (!Number.isInteger(port) || port < 1 || port > 65_535)
    throw refuse('port', `'${String(port)}' is not between 1 and 65535`)
  const fd = await dial(port)
  const { Socket: Stream } = streams()
  const socket = new Stream({ fd, readable: true, writable: true })
  native().addon.releaseDescriptor(fd)
  return socket
}

/** An agent whose connections are made by `dial`. */
export function agentOf(dial: (port: number) => Promise<Socket>): Agent {
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
  return agent
}
