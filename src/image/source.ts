/** An archive from a file or a stream into a spool. */
import { once } from 'node:events'
import { open } from 'node:fs/promises'
import { Socket } from 'node:net'
import type { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { refuse } from '../errors.ts'
import { native } from '../native.ts'
import { Spool } from './spool.ts'
import type { ReadArchive } from './spool.ts'

/** Reads a file of this machine. */
async function readFile(root: string, path: string, read: ReadArchive, signal: AbortSignal): Promise<Spool> {
  const file = await open(path, 'r').catch((error: unknown) => {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error)
    throw refuse('source', `'${path}' cannot be opened: ${code}`)
  })
  try {
    if ((await file.stat()).isDirectory()) throw refuse('source', `'${path}' is a directory`)
    return await Spool.read(root, file.fd, read, signal)
  } finally {
    await file.close()
  }
}

/** Reads a stream, by a pipe. */
async function readStream(
  root: string,
  source: Readable,
  read: ReadArchive,
  signal: AbortSignal,
): Promise<Spool> {
  const { addon } = native()
  const [end, write] = addon.pipe() as [number, number]
  addon.widen(write)
  const writer = new Socket({ fd: write, readable: false, writable: true })
  addon.releaseDescriptor(write)
  const broken = new AbortController()
  const both = AbortSignal.any([signal, broken.signal])
  // Not waited for: a source that never ends does not end when it is destroyed either.
  void pipeline(source, writer).catch((error: unknown) => broken.abort(error))
  try {
    return await Spool.read(root, end, read, both)
  } finally {
    addon.closeDescriptor(end)
    // Who reads no more, because it failed, must not keep who writes waiting.
    writer.destroy()
    if (!writer.closed) await once(writer, 'close')
  }
}

/**
 * Reads an archive, from its beginning to its end, into a spool below the data root; to be disposed of.
 * @throws CaissonError ERR_INVALID_OPTION for a path that is no file; of the reading; the stream's error; the signal's
 * reason.
 */
export async function readSource(
  root: string,
  source: string | Readable,
  read: ReadArchive,
  signal: AbortSignal,
): Promise<Spool> {
  signal.throwIfAborted()
  return typeof source === 'string'
    ? readFile(root, source, read, signal)
    : readStream(root, source, read, signal)
}
