/** Where an archive goes: a file, which is there as a whole or not at all, or a stream. */
import { createWriteStream, realpathSync, statSync } from 'node:fs'
import { open, rename, rm } from 'node:fs/promises'
import type { FileHandle } from 'node:fs/promises'
import { Readable } from 'node:stream'
import type { Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { refuse } from '../errors.ts'

let serial = 0

/** What a call about the target failed with, in words that name it. */
function unwritable(target: string, error: unknown): unknown {
  if (!(error instanceof Error && 'code' in error && 'syscall' in error)) return error
  return refuse('target', `'${target}' cannot be written: ${String(error.code)}`)
}

async function aside(target: string, name: string): Promise<FileHandle> {
  try {
    return await open(name, 'wx', 0o600)
  } catch (error) {
    throw unwritable(target, error)
  }
}

/** What is there and is no regular file is written to as it is. */
async function toFile(target: string, bytes: AsyncIterable<Uint8Array>, signal: AbortSignal): Promise<void> {
  const known = statSync(target, { throwIfNoEntry: false })
  if (known?.isDirectory() === true) throw refuse('target', `'${target}' is a directory`)
  if (known !== undefined && !known.isFile()) {
    await pipeline(Readable.from(bytes), createWriteStream(target, { flags: 'w' }), { signal })
    return
  }
  const real = known === undefined ? target : realpathSync(target)
  const name = `${real}.${process.pid}-${Date.now()}-${(serial += 1)}`
  const file = await aside(target, name)
  try {
    await pipeline(Readable.from(bytes), file.createWriteStream({ flush: true }), { signal })
    await rename(name, real)
  } catch (error) {
    await file.close().catch(() => {})
    await rm(name, { force: true })
    throw error
  }
}

/**
 * Writes to a path, or to a stream, which is ended then.
 * @throws CaissonError ERR_INVALID_OPTION for a path that cannot be written; whatever the bytes throw.
 */
export async function writeTo(
  target: string | Writable,
  bytes: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): Promise<void> {
  if (typeof target !== 'string') return pipeline(Readable.from(bytes), target, { signal })
  try {
    await toFile(target, bytes, signal)
  } catch (error) {
    throw unwritable(target, error)
  }
}
