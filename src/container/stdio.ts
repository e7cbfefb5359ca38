/** The three descriptors of a payload: pipes with streams on this side, /dev/null, or what the caller has. */
import { fstatSync } from 'node:fs'
import type { Socket } from 'node:net'
import type { Readable, Writable } from 'node:stream'
import { StringDecoder } from 'node:string_decoder'
import { CaissonError, refuse } from '../errors.ts'
import { native } from '../native.ts'
import type { RunOptions, StdioOption } from './options.ts'
import { streams } from './streams.ts'

/** A payload's output: Node's stream, and its lines. */
export type Output = Readable & {
  /**
   * Lines without their ends: those of what came before and was kept (`maxBuffer`), then as they come. Who breaks off ends
   * no stream, and may ask again, from the beginning.
   */
  lines(): AsyncIterable<string>
}

const names = ['stdin', 'stdout', 'stderr'] as const

/** This program's own stdin, stdout and stderr, not touched before they are needed. */
type Own = 0 | 1 | 2

interface End {
  /** What the payload gets: a descriptor, or -1 for /dev/null. */
  payload: number
  /** Our end of a pipe. */
  ours?: number
  /** What is connected to our end. */
  peer?: Readable | Writable | Uint8Array | Own
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
  if (options.input !== undefined && list[0] !== 'pipe') throw refuse('input', 'stdin is not a pipe')
  return list
}

/** What the binding could not open, as the error that callers know. */
export function opened(make: () => number[]): number[] {
  try {
    return make()
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error)
    throw new CaissonError('ERR_LAUNCH', message, { cause: error })
  }
}

function pipe(index: number): Required<Pick<End, 'payload' | 'ours'>> {
  const [read = -1, write = -1] = opened(() => native().addon.pipe())
  return index === 0 ? { payload: read, ours: write } : { payload: write, ours: read }
}

function isSocket(fd: number): boolean {
  try {
    return fstatSync(fd).isSocket()
  } catch {
    // A closed one: the binding says so, with its name.
    return false
  }
}

/** Which of this program's own streams a terminal's descriptor is. */
function ownTerminal(fd: number, index: Own): Own {
  if (index === 0 ? fd === 0 : fd === 1 || fd === 2) return fd as Own
  throw refuse('stdio', `descriptor ${fd} is a terminal: relayed are this program's own alone, as 'inherit'`)
}

function open(option: StdioOption, index: Own): End {
  if (option === 'pipe') return pipe(index)
  if (option === 'ignore') return { payload: -1 }
  // A terminal is never handed in: the payload could push input into the caller's shell (TIOCSTI and kin).
  // Nor a socket, which is what Node gives its own children as pipes: it has made it non-blocking, for both.
  if (option === 'inherit') {
    const { addon } = native()
    // Nor what Node has made non-blocking and only somebody else may open anew.
    return addon.isTerminal(index) || isSocket(index) || !addon.canBeHandedIn(index)
      ? { ...pipe(index), peer: index }
      : { payload: index }
  }
  if (typeof option === 'number') {
    if (!Number.isInteger(option) || option < 0) throw refuse('stdio', `${option} is no descriptor`)
    return native().addon.isTerminal(option)
      ? { ...pipe(index), peer: ownTerminal(option, index) }
      : { payload: option }
  }
  const { Readable, Writable } = streams()
  const fits =
    index === 0 ? option instanceof Readable || option instanceof Uint8Array : option instanceof Writable
  if (!fits) throw refuse('stdio', `${names[index]} takes none of this kind`)
  return { ...pipe(index), peer: option }
}

/** Opens the descriptors. {@link close} those of the payload once they were sent. */
export function openStdio(options: RunOptions): Stdio {
  const ends: End[] = []
  try {
    for (const [index, option] of each(options).entries()) ends.push(open(option, index as Own))
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
    native().addon.closeDescriptor(payload)
    if (all) native().addon.closeDescriptor(ours)
  }
}

/** Gives an output its lines. */
export function withLines(stream: Readable): Output {
  return Object.assign(stream, { lines: () => linesOf(stream) })
}

/** What was kept of a stream so far. */
export const kept: WeakMap<Readable, readonly Buffer[]> = new WeakMap()

async function* linesOf(stream: Readable): AsyncGenerator<string, void, undefined> {
  const decoder = new StringDecoder('utf8')
  let rest = ''
  const take = (chunk: Buffer): string[] => {
    const lines = (rest + decoder.write(chunk)).split('\n')
    rest = lines.pop() ?? ''
    return lines
  }
  // It flows from the start: what came before does not come again.
  const before = kept.get(stream) ?? []
  for (let index = 0; index < before.length; index += 1) yield* take(before[index] as Buffer)
  if (!stream.readableEnded && !stream.destroyed) {
    try {
      // In the tick of the last look at what was kept.
      for await (const chunk of stream.iterator({ destroyOnReturn: false })) yield* take(chunk as Buffer)
    } finally {
      // A payload that writes on must not wait for a reader that went.
      stream.resume()
    }
  }
  rest += decoder.end()
  if (rest !== '') yield rest
}

/** The streams of one run on this side; null for what has none. */
export interface Streams {
  stdin: Writable | null
  stdout: Output | null
  stderr: Output | null
  /** What is relayed from and to this program's own streams, which nobody else reads or writes. */
  relays: { stdin: Writable | null; outputs: Output[] }
}

function socketOf(fd: number, sides: { readable: boolean; writable: boolean }): Socket {
  const { Socket } = streams()
  const socket = new Socket({ fd, ...sides })
  native().addon.releaseDescriptor(fd)
  return socket
}

/** Wraps our ends: the one place that does, in the tick in which they were made. */
export function connect(stdio: Stdio, input: string | Uint8Array | undefined): Streams {
  const { Readable, Writable } = streams()
  const [first, ...outputs] = stdio.ends
  const stdin = first?.ours === undefined ? null : socketOf(first.ours, { readable: false, writable: true })
  // A payload that ends before it has read everything is no error of its caller's.
  stdin?.on('error', () => {})
  if (stdin !== null) {
    const { peer } = first ?? {}
    if (peer === 0) process.stdin.pipe(stdin)
    else if (peer instanceof Readable) {
      peer.pipe(stdin)
      // One that fails has no end that is passed on: the payload would wait for it for ever.
      peer.once('close', () => stdin.destroy())
    } else if (peer instanceof Uint8Array) stdin.end(peer)
    else if (input !== undefined) stdin.end(input)
  }
  const [stdout = null, stderr = null] = outputs.map(({ ours, peer }) => {
    if (ours === undefined) return null
    const stream = socketOf(ours, { readable: true, writable: false })
    if (peer === 1) stream.pipe(process.stdout, { end: false })
    else if (peer === 2) stream.pipe(process.stderr, { end: false })
    else if (peer instanceof Writable) stream.pipe(peer, { end: false })
    return withLines(stream)
  })
  const [inherits, ...relayed] = stdio.ends.map(({ peer }) => typeof peer === 'number')
  const hidden = [stdout, stderr].filter((stream, index) => stream !== null && relayed[index] === true)
  return {
    stdin: inherits === true ? null : stdin,
    stdout: relayed[0] === true ? null : stdout,
    stderr: relayed[1] === true ? null : stderr,
    relays: { stdin: inherits === true ? stdin : null, outputs: hidden as Output[] },
  }
}
