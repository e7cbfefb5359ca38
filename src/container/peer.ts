/** The shims of other programs of the same user: each listens on a path in its run directory. */
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { native, toError } from '../native.ts'
import type { ShimEvent } from '../native.ts'
import { CaissonError } from '../errors.ts'
import { Connected } from './shim.ts'
import type { Connection, Listener, NativeShim } from './shim.ts'

/** How long one may take to say that it is there: it may be stopped. */
const patience = 2000

/** The paths at which shims listen that work in a run root. */
export function shimPaths(run: string): string[] {
  const shims = join(run, 'shims')
  try {
    const names = readdirSync(shims).filter((name) => name.endsWith('.socket'))
    return names.map((name) => join(shims, name))
  } catch {
    // Nothing ran there yet.
    return []
  }
}

/** A connection to one of them, for as long as somebody needs it. */
export class PeerConnection implements Connection {
  readonly #connected: Connected
  #next: number

  private constructor(connected: Connected, base: number) {
    this.#connected = connected
    this.#next = base + 1
  }

  /** Connects; undefined where nobody is any more, or somebody of another version. */
  static async open(path: string): Promise<PeerConnection | undefined> {
    const shim = native().addon.Shim.connect(path)
    if (shim.events < 0) return undefined
    return new Promise((answer) => {
      const timer = setTimeout(() => {
        answer(undefined)
        connected.leave()
      }, patience)
      const resolve = (connection: PeerConnection | undefined): void => {
        clearTimeout(timer)
        answer(connection)
      }
      const connected: Connected = new Connected(shim, () => {
        resolve(undefined)
        shim.close()
        for (const listener of Array.from(connected.listeners.values())) listener(gone())
        connected.settle()
      })
      connected.welcome = (base) => resolve(new PeerConnection(connected, base))
    })
  }

  token(): number {
    return this.#next++
  }

  get(token: number, listener: Listener): { shim: NativeShim; forget: () => void } {
    this.#connected.listen(token, listener)
    return { shim: this.#connected.shim, forget: () => this.#connected.forget(token) }
  }

  /** Asks; answers all events up to the last one. */
  async ask(send: (shim: NativeShim, token: number) => ReturnType<NativeShim['list']>): Promise<ShimEvent[]> {
    const token = this.token()
    const events: ShimEvent[] = []
    return new Promise((resolve, reject) => {
      const { shim, forget } = this.get(token, (event) => {
        if (event instanceof Error) reject(event)
        else if (event.kind === 'listed') return void events.push(event)
        else resolve([...events, event])
        return forget()
      })
      const failure = send(shim, token)
      if (failure === null) return
      forget()
      reject(toError(failure))
    })
  }

  /** For what has no answer. */
  get shim(): NativeShim {
    return this.#connected.shim
  }

  close(): void {
    this.#connected.leave()
  }
}

function gone(): CaissonError {
  return new CaissonError('ERR_SHIM_LOST', 'the connection to the container ended')
}
