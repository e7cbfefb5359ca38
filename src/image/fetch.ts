/** Blobs from a registry into the content store as they come: those of platforms that are not unpacked. */
import { statfsSync } from 'node:fs'
import { CaissonError } from '../errors.ts'
import type { BlobSource, UnpackLayer } from './layers.ts'
import type { Descriptor } from './manifest.ts'

/** What is to be fetched, and by whom. */
export interface FetchOptions {
  /** Where they are kept: what is free there bounds them. */
  directory: string
  /** Each once. */
  blobs: readonly Descriptor[]
  unpackLayer: UnpackLayer
  open: (blob: Descriptor, at: number, signal: AbortSignal) => BlobSource
  /** How many at a time. */
  parallel: number
  signal: AbortSignal
  done: (at: number) => void
}

/** Of what is free, as for layers (crates/core/src/archive). */
const most = 0.95

/** That they have room, by what their descriptors say. */
function checkRoom(directory: string, blobs: readonly Descriptor[]): void {
  const { bavail, bsize } = statfsSync(directory)
  const wanted = blobs.reduce((sum, { size }) => sum + size, 0)
  if (wanted <= bavail * bsize * most) return
  const message = `blobs of other platforms have ${wanted} bytes, more than ${most * 100} % of what is free`
  throw new CaissonError('ERR_IMAGE_LIMIT', message, { stage: 'pull', subject: directory })
}

async function once(
  blob: Descriptor,
  at: number,
  { open, unpackLayer }: FetchOptions,
  over: AbortSignal,
  begun: (offset: number) => void,
): Promise<void> {
  const source = open(blob, at, over)
  const wanted = (offset: number): void => {
    begun(offset)
    source.wanted?.(offset)
  }
  const { digest, size } = blob
  try {
    await unpackLayer(
      { chain: '', lowers: [], digest, size, diffId: '', blob: source.blob, keep: true },
      over,
      wanted,
    )
  } finally {
    await source.close()
  }
}

/** Gets a blob; one whose kept beginning was a lie is had from its first byte on. */
async function fetchBlob(
  blob: Descriptor,
  at: number,
  options: FetchOptions,
  over: AbortSignal,
): Promise<void> {
  let from = 0
  try {
    await once(blob, at, options, over, (offset) => (from = offset))
  } catch (error) {
    if (from === 0 || !(error instanceof CaissonError) || error.code !== 'ERR_DIGEST') throw error
    await once(blob, at, options, over, () => {})
  }
}

/** Fetches blobs; settles once all are there, or with the first failure once nothing works any more. */
export async function fetchBlobs(options: FetchOptions): Promise<void> {
  const { directory, blobs, parallel, signal, done } = options
  checkRoom(directory, blobs)
  const failed = new AbortController()
  const over = AbortSignal.any([signal, failed.signal])
  const waiting = [...blobs.entries()]
  const work = async (): Promise<void> => {
    for (let next = waiting.shift(); next !== undefined && !over.aborted; next = waiting.shift()) {
      const [at, blob] = next
      try {
        await fetchBlob(blob, at, options, over)
        done(at)
      } catch (error) {
        failed.abort(error)
        throw error
      }
    }
  }
  const settled = await Promise.allSettled(Array.from({ length: parallel }, work))
  signal.throwIfAborted()
  // The first reason, not what its end made of the others.
  if (settled.some(({ status }) => status === 'rejected')) throw failed.signal.reason
}
