/** This side of a run's stdio: streams where somebody wants them, and what the outputs brought. */
import type { Readable } from 'node:stream'
import { native } from '../native.ts'
import { kept, withLines } from './stdio.ts'
import type { Stdio, Streams } from './stdio.ts'
import { streams } from './streams.ts'

/** How long an output may stay open after the container is gone: a descriptor of it was passed to somebody outside. */
const grace = 500

/** What is on this side while there is nothing, and after the end. */
const none: Streams = { stdin: null, stdout: null, stderr: null, relays: { stdin: null, outputs: [] } }

/**
 * The streams of one run. They are made when they are asked for, or once the run is more than a moment: one that is over
 * by then is read from its pipes directly, which saves the making, two ends that wake Node up while the container still
 * takes its last breaths, and a turn of the loop.
 */
export class Attached {
  readonly #stdio: Stdio
  readonly #most: number
  readonly #make: () => Streams
  #streams: Streams | undefined
  #captures: [Capture, Capture]
  #relays: Capture[] = []
  #over = false

  constructor(stdio: Stdio, most: number, make: () => Streams) {
    this.#stdio = stdio
    this.#most = most
    this.#make = make
    this.#captures = [new Capture(null, most), new Capture(null, most)]
  }

  get streams(): Streams {
    if (this.#streams !== undefined) return this.#streams
    if (this.#over) return this.#afterwards()
    const made = this.#make()
    this.#streams = made
    this.#captures = [new Capture(made.stdout, this.#most), new Capture(made.stderr, this.#most)]
    this.#relays = made.relays.outputs.map((stream) => new Capture(stream, 0))
    return made
  }

  /** Ends it all: nothing was started, or nothing will be heard of it. */
  destroy(): void {
    this.#over = true
    if (this.#streams === undefined) {
      this.#close()
      return
    }
    const { stdin, stdout, stderr, relays } = this.#streams
    for (const stream of [stdin, stdout, stderr, relays.stdin, ...relays.outputs]) stream?.destroy()
  }

  /** After the container's end: what stdout and stderr brought, once both have ended too. */
  async ended(): Promise<[Capture, Capture]> {
    if (this.#streams === undefined) {
      const read = this.#stdio.ends
        .slice(1)
        .map(({ ours }) => (ours === undefined ? undefined : native().addon.drain(ours)))
      const open = read.some((output) => output?.ended === false)
      if (open) void this.streams
      for (const [index, output] of read.entries())
        if (output?.bytes !== undefined) this.#captures[index]?.take(output.bytes)
      if (!open) {
        this.#over = true
        this.#close()
        return this.#captures
      }
    }
    const { stdin, relays } = this.streams
    stdin?.destroy()
    relays.stdin?.destroy()
    const outputs = [...this.#captures, ...this.#relays]
    for (const output of outputs) output.look()
    const late = setInterval(() => {
      for (const output of outputs) output.giveUpIfSilent()
    }, grace)
    await Promise.all(outputs.map((output) => output.ended))
    clearInterval(late)
    return this.#captures
  }

  #close(): void {
    for (const { ours } of this.#stdio.ends) if (ours !== undefined) native().addon.closeDescriptor(ours)
  }

  /** For who asks when it is over: streams that have ended. */
  #afterwards(): Streams {
    const { Readable, Writable } = streams()
    const [stdin, stdout, stderr] = this.#stdio.ends.map(({ ours }) => ours !== undefined)
    const output = (there: boolean | undefined): Streams['stdout'] =>
      there === true ? withLines(Readable.from([])) : null
    this.#streams = {
      ...none,
      stdin: stdin === true ? new Writable().destroy() : null,
      stdout: output(stdout),
      stderr: output(stderr),
    }
    return this.#streams
  }
}

/** Keeps what a stream brings, up to a bound. */
export class Capture {
  readonly #chunks: Buffer[] = []
  #left: number
  /** Bytes that were not kept. */
  dropped = 0
  /** Settles at the end of the stream, however it came. */
  readonly ended: Promise<void>
  readonly #stream: Readable | null
  #seen = 0
  #looked = 0

  constructor(stream: Readable | null, most: number) {
    this.#stream = stream
    this.#left = most
    if (stream === null) {
      this.ended = Promise.resolve()
      return
    }
    kept.set(stream, this.#chunks)
    stream.on('data', (chunk: Buffer) => {
      this.#seen += chunk.length
      this.take(chunk)
    })
    this.ended = new Promise((resolve) => {
      stream.once('close', resolve)
      stream.on('error', () => {})
    })
  }

  take(chunk: Buffer): void {
    const part = chunk.subarray(0, this.#left)
    this.#left -= part.length
    this.dropped += chunk.length - part.length
    if (part.length > 0) this.#chunks.push(part)
  }

  /**
   * Ends a stream that nothing comes from: since the last call nothing did, nothing waits to be taken, and whoever takes
   * it wants more. A slow taker is waited for, as Node does.
   */
  giveUpIfSilent(): void {
    const stream = this.#stream
    if (stream === null) return
    const held = stream.readableFlowing === false && stream.listenerCount('readable') === 0
    if (this.#seen === this.#looked && stream.readableLength === 0 && !held) stream.destroy()
    this.look()
  }

  /** From now on it is watched for silence. */
  look(): void {
    this.#looked = this.#seen
  }

  bytes(): Buffer {
    return Buffer.concat(this.#chunks)
  }
}
