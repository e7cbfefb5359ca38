/** What tests of real programs share: one started from its image, a port of loopback that leads into it, what it says. */
import { createServer } from 'node:net'
import type { AddressInfo, Server } from 'node:net'
import type { ExecutionContext } from 'ava'
import type { Container, Engine, Result, RunOptions } from '../../src/index.ts'
import { engine, scratch } from '../image/store.ts'
import { imageOf } from './make.ts'

/** A program's image, and an engine for it. */
export interface Scene {
  engine: Engine
  directory: string
  image: string
  /** Starts it, and gathers what it writes. */
  start: (command?: readonly string[], options?: RunOptions) => Promise<Started>
  /** Runs a client that the image has, on this host's network. */
  client: (command: readonly string[], options?: RunOptions) => Promise<Result>
}

/** One that runs. */
export interface Started {
  held: Container
  /** Waits until it writes this to its stderr. */
  says: (what: string) => Promise<void>
  /** A port of this host's loopback, each of whose connections is dialled into the container. */
  port: (inside: number) => Promise<number>
  /** Stops it as its image says, and answers with all that it wrote. */
  stop: () => Promise<{ result: Result; said: string }>
}

/** A listener on loopback that leads to a port of a container: what a client needs that dials by itself. */
async function forward(held: Container, inside: number): Promise<Server> {
  const server = createServer((client) => {
    const joined = async (): Promise<void> => {
      const socket = await held.dial(inside)
      client.on('error', () => socket.destroy())
      socket.on('error', () => client.destroy())
      client.pipe(socket).pipe(client)
    }
    joined().catch(() => client.destroy())
  })
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve)
  })
  return server
}

/** Sets a scene for a program; nothing of it stays. */
export function program(t: ExecutionContext, name: string): Scene {
  const directory = scratch(t)
  const made = engine(t, directory)
  const image = imageOf(name)
  const client: Scene['client'] = async (command, options) => {
    const [entrypoint = '', ...words] = command
    return made.run(image, words, {
      stdio: 'pipe',
      input: '',
      network: 'host',
      entrypoint,
      user: 0,
      ...options,
    })
  }
  const start: Scene['start'] = async (command, options) => {
    const held = await made.start(image, command, options)
    const servers: Server[] = []
    const close = (): void => {
      for (const server of servers) server.close()
    }
    t.teardown(async () => {
      close()
      await held[Symbol.asyncDispose]()
    })
    return {
      held,
      says: async (what) => {
        for await (const line of held.main.stderr?.lines() ?? []) if (line.includes(what)) return
        const { stdout, stderr } = await held.wait()
        throw new Error(`it ended without '${what}': ${stdout}${stderr}`)
      },
      port: async (inside) => {
        await held.listening(inside, { timeout: '60s' })
        const server = await forward(held, inside)
        servers.push(server)
        return (server.address() as AddressInfo).port
      },
      stop: async () => {
        close()
        const result = await held.stop()
        return { result, said: result.stdout + result.stderr }
      },
    }
  }
  return { engine: made, directory, image, start, client }
}
