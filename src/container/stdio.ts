/** The three descriptors of a payload: pipes with streams on this side, /dev/null, or what the caller has. */
import { closeSync } from 'node:fs'
import { Socket } from 'node:net'
import { Readable, Writable } from 'node:stream'
import { StringDecoder } from 'node:string_decoder'
import { isatty } from 'node:tty'
import { native } from '../native.ts'
import { refuse } from './options.ts'
import type { RunOptions, StdioOption } from './options.ts'

/** A payload's output: Node's stream, and its lines. */
export type Output = Readable & {
  /** Lines without their ends, as they come. */
  lines(): AsyncIterable<string>
}

const names = ['stdin', 'stdout', 'stderr'] as const

interface End {
  /** What the payload gets: a descriptor, or -1 for /dev/null. */
  payload: number
  /** Our end of a pipe. */
  ours?: number
  /** What is connected to our end. */
  peer?: Readable | Writable | Uint8Array | 'inherit'
}

/** What one run was given as stdio. */
export interface Stdio {
  payload: number[]
  /** Which are ends of pipes that Caisson made, a bit each. */
  own: number
  ends: End[]
}

function each(options: RunOptions): StdioOption[] {
  const given = options.stdio ?? 'pipe'
  const list = Array.isArray(given)
    ? (given as StdioOption[])
    : [given as StdioOption, given as StdioOption, given as StdioOption]
  if (list.length !== 3) throw refuse('stdio', `${list.length} entries; stdin, stdout and stderr are wanted`)
  return list
}

function pipe(index: number): Required<Pick<End, 'payload' | 'ours'>> {
  const [read = -1, write = -1] = native().addon.pipe()
  return index === 0 ? { payload: read, ours: write } : { payload: write, ours: read }
}

function open(option: StdioOption, index: number): End {
  if (option === 'pipe') return pipe(index)
  if (option === 'ignore') return { payload: -1 }
  // A terminal is never handed in: the payload could push input into the caller's shell (TIOCSTI and kin).
  if (option === 'inherit') return isatty(index) ? { ...pipe(index), peer: 'inherit' } : { payload: index }
  if (typeof option === 'number') {
    if (!Number.isInteger(option) || option < 0) throw refuse('stdio', `${option} is no descriptor`)
    return isatty(option) ? { ...pipe(index), peer: 'inherit' } : { payload: option }
  }
  const fits =
    index === 0 ? option instanceof Readable || option instanceof Uint8Array : option instanceof Writable
  if (!fits) throw refuse('stdio', `${names[index]} takes none of this kind`)
  return { ...pipe(index), peer: option as Readable | Writable | Uint8Array }
}

/** Opens the descriptors. {@link close} those of the payload once they were sent. */
export function openStdio(options: RunOptions): Stdio {
  const ends: End[] = []
  try {
    for (const [index, option] of each(options).entries()) ends.push(open(option, index))
  } catch (error) {
    closeStdio({ payload: [], own: 0, ends }, true)
    throw error
  }
  return {
    payload: ends.map(({ payload }) => payload),
    own: ends.reduce((own, { ours }, index) => own | (ours === undefined ? 0 : 1 << index), 0),
    ends,
  }
}

/** Closes the payload's ends of pipes, and with `all` our own too. */
export function closeStdio(stdio: Stdio, all = false): void {
  for (const { payload, ours } of stdio.ends) {
    if (ours === undefined) continue
    closeSync(payload)
    if (all) closeSync(ours)
  }
}

/** Gives an output its lines. */
export function withLines(stream: Readable): Output {
  return Object.assign(stream, { lines: () => linesOf(stream) })
}

async function* linesOf(stream: Readable): AsyncGenerator<string, void, undefined> {
  const decoder = new StringDecoder('utf8')
  let rest = ''
  for await (const chunk of stream) {
    rest += decoder.write(chunk as Buffer)
    const lines = rest.split('\n')
    rest = lines.pop() ?? ''
    yield* lines
  }
  rest += decoder.end()
  if (rest !== '') yield rest
}

/** The streams of one run on this side; null for what has none. */
export interface Streams {
  stdin: Writable | null
  stdout: Output | null
  stderr: Output | null
}

/** Wraps our ends: the one place that does, in the tick in which they were made. */
export function connect(stdio: Stdio, input: string | Uint8Array | undefined): Streams {
  const [first, ...outputs] = stdio.ends
  const stdin =
    first?.ours === undefined ? null : new Socket({ fd: first.ours, readable: false, writable: true })
  // A payload that ends before it has read everything is no error of its caller's.
  stdin?.on('error', () => {})
  if (stdin !== null) {
    const { peer } = first ?? {}
    if (peer === 'inherit') process.stdin.pipe(stdin)
    else if (peer instanceof Readable) peer.pipe(stdin)
    else if (peer instanceof Uint8Array) stdin.end(peer)
    else if (input !== undefined) stdin.end(input)
  } else if (input !== undefined) throw refuse('input', 'stdin is not a pipe')
  const [stdout = null, stderr = null] = outputs.map(({ ours, peer }, index) => {
    if (ours === undefined) return null
    const stream = new Socket({ fd: ours, readable: true, writable: false })
    if (peer === 'inherit') stream.pipe(index === 0 ? process.stdout : process.stderr, { end: false })
    else if (peer instanceof Writable) stream.pipe(peer, { end: false })
    return withLines(stream)
  })
  return { stdin, stdout, stderr }
}

/** Keeps what a stream brings, up to a bound. */
export class Capture {
  readonly #chunks: Buffer[] = []
  #left: number
  /** Bytes that were not kept. */
  dropped = 0
  /** Settles at the end of the stream, however it came. */
  readonly ended: Promise<void>

  constructor(stream: Readable | null, most: number) {
    this.#left = most
    if (stream === null) {
      this.ended = Promise.resolve()
      return
    }
    stream.on('data', (chunk: Buffer) => {
      const kept = chunk.subarray(0, this.#left)
      this.#left -= kept.length
      this.dropped += chunk.length - kept.length
      if (kept.length > 0) this.#chunks.push(kept)
    })
    this.ended = new Promise((resolve) => {
      stream.once('close', resolve)
      stream.on('error', () => {})
    })
  }

  bytes(): Buffer {
    return Buffer.concat(this.#chunks)
  }
}
