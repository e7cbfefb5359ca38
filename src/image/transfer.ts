/** A blob from a registry into the pipe that an unpacker reads: a line that is cut goes on where it was. */
import type { IncomingMessage } from 'node:http'
import { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { CaissonError } from '../errors.ts'
import { native } from '../native.ts'
import type { BlobSource } from './layers.ts'
import type { Descriptor } from './manifest.ts'

/** Opens a blob from one of its bytes on; `start` is the first that comes, which may be an earlier one. */
export type OpenBlob = (
  layer: Descriptor,
  offset: number,
  signal: AbortSignal,
) => Promise<{ body: IncomingMessage; start: number }>

/** How often a line may be cut without a byte in between. */
const patience = 5
/** The first wait after a cut, ms; doubled each time. */
const firstWait = 100

/** Tells how many more bytes came. */
export type Came = (bytes: number) => void

class Transfer {
  readonly #layer: Descriptor
  readonly #open: OpenBlob
  readonly #signal: AbortSignal
  readonly #came: Came
  readonly #writer: Socket
  #at: number

  constructor(
    writer: Socket,
    layer: Descriptor,
    open: OpenBlob,
    offset: number,
    signal: AbortSignal,
    came: Came,
  ) {
    this.#writer = writer
    this.#layer = layer
    this.#open = open
    this.#at = offset
    this.#signal = signal
    this.#came = came
  }

  async run(): Promise<void> {
    let cuts = 0
    while (this.#at < this.#layer.size && !this.#isLeft()) {
      const before = this.#at
      try {
        await this.#once()
      } catch (error) {
        // Nobody reads any more: why, its reader says.
        if (this.#isLeft()) return
        if (this.#signal.aborted || error instanceof CaissonError) throw error
        cuts = this.#at > before ? 1 : cuts + 1
        if (cuts >= patience) throw cut(this.#layer, error)
        await sleep(firstWait << cuts, undefined, { signal: this.#signal })
      }
    }
    this.#writer.end()
  }

  #isLeft(): boolean {
    return this.#writer.destroyed
  }

  async #once(): Promise<void> {
    const { body, start } = await this.#open(this.#layer, this.#at, this.#signal)
    let skip = this.#at - start
    const end = (): void => void body.destroy()
    this.#writer.once('close', end)
    try {
      for await (const chunk of body as AsyncIterable<Buffer>) {
        const piece = skip === 0 ? chunk : chunk.subarray(Math.min(skip, chunk.length))
        skip -= chunk.length - piece.length
        this.#at += piece.length
        if (this.#at > this.#layer.size) {
          // Its unpacker refuses it, and removes what came of it.
          this.#writer.write(piece)
          return
        }
        this.#came(piece.length)
        if (piece.length > 0 && !this.#writer.write(piece)) await this.#drained()
      }
    } finally {
      this.#writer.off('close', end)
    }
    if (this.#at < this.#layer.size) throw new Error('the connection ended early')
  }

  #drained(): Promise<void> {
    return new Promise((resolve, reject) => {
      const settle = (): void => {
        this.#writer.off('drain', settle).off('close', settle)
        if (this.#writer.destroyed) reject(new Error('nobody reads'))
        else resolve()
      }
      this.#writer.on('drain', settle).on('close', settle)
    })
  }
}

function cut({ digest }: Descriptor, cause: unknown): CaissonError {
  const why = cause instanceof Error ? cause.message : String(cause)
  const message = `layer ${digest}: ${why}; what came of it is kept, and the next pull goes on from there`
  return new CaissonError('ERR_REGISTRY', message, { stage: 'pull', subject: digest, cause })
}

/** A blob that comes from a registry, if its unpacker wants it. */
export function remote(layer: Descriptor, open: OpenBlob, signal: AbortSignal, came: Came): BlobSource {
  const { addon } = native()
  const over = new AbortController()
  const [blob, end] = addon.pipe() as [number, number]
  addon.widen(end)
  let transfer: Promise<void> | undefined
  let writer: Socket | undefined
  return {
    blob,
    keep: true,
    wanted: (offset) => {
      // The unpacker has it: its end is seen only if nobody else has it open.
      addon.closeDescriptor(blob)
      writer = new Socket({ fd: end, readable: false, writable: true })
      addon.releaseDescriptor(end)
      writer.on('error', () => {})
      const moving = new Transfer(writer, layer, open, offset, AbortSignal.any([signal, over.signal]), came)
      transfer = moving.run()
      // Looked at in `close`; until then nobody's. A reader that waits for more must see the end.
      transfer.catch(() => writer?.destroy())
    },
    close: async () => {
      if (transfer === undefined) {
        addon.closeDescriptor(blob)
        addon.closeDescriptor(end)
        return
      }
      writer?.destroy()
      over.abort()
      await transfer
    },
  }
}
