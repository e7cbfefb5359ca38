/** The root file system of a container that runs, as an archive. */
import type { Writable } from 'node:stream'
import { CaissonError, refuse } from '../errors.ts'
import { given } from '../image/given.ts'
import { writeTo } from '../image/target.ts'
import { native } from '../native.ts'
import { ask } from './ask.ts'
import type { Origin } from './commit.ts'
import { opened } from './stdio.ts'
import type { Connection } from './shim.ts'
import { streams } from './streams.ts'

/** How a container is exported. */
export interface ExportOptions {
  /** Aborting it ends the export; of a file nothing is left. */
  signal?: AbortSignal
}

const never = new AbortController().signal

/** The bytes, as they come; or why there are no more. */
async function* archiveOf(
  connection: Connection,
  container: number,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const { addon } = native()
  const { Socket } = streams()
  const [read = -1, write = -1] = opened(() => addon.pipe())
  addon.widen(write)
  const reader = new Socket({ fd: read, readable: true, writable: false })
  addon.releaseDescriptor(read)
  const over = new AbortController()
  const token = connection.token()
  const packed = ask(
    connection,
    token,
    (shim) => shim.export(token, container, write),
    AbortSignal.any([signal, over.signal]),
  )
  // The shim has it: its end is seen only if nobody else has it open.
  addon.closeDescriptor(write)
  packed.catch(() => {})
  try {
    yield* reader as AsyncIterable<Buffer>
    // An archive that ends early ends as one that is whole.
    await packed
  } finally {
    over.abort()
    reader.destroy()
    await Promise.allSettled([packed])
  }
}

/** Exports the container with this number to a file, written aside and renamed, or to a stream, which is ended. */
export async function exportOver(
  connection: Connection,
  container: number,
  { masked }: Origin,
  target: string | Writable,
  asked: ExportOptions = {},
): Promise<void> {
  const { signal = never } = given(asked, 'signal')
  if (
    typeof target === 'string' ? target === '' : typeof (target as Writable | undefined)?.write !== 'function'
  )
    throw refuse('target', 'is neither a path nor a stream')
  if (masked) {
    const why = 'the container is a view of this machine: what is masked in it would be in the archive'
    throw new CaissonError('ERR_UNSUPPORTED', `export: ${why}`, { subject: 'export' })
  }
  signal.throwIfAborted()
  try {
    await writeTo(target, archiveOf(connection, container, signal), signal)
  } catch (error) {
    signal.throwIfAborted()
    throw error
  }
}
