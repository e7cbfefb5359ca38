/** Sending to a registry: blobs in one request or in chunks, mounts from other repositories, manifests last. */
import { Readable } from 'node:stream'
import { CaissonError } from '../errors.ts'
import { native } from '../native.ts'
import { discard } from './bodies.ts'
import { Passing } from './failure.ts'
import type { About } from './failure.ts'
import type { Upstream } from './lists.ts'
import { checkBlob, checkDigest, checkReference, checkRepository, isTag } from './names.ts'
import type { BlobDescriptor } from './names.ts'
import type { Answer } from './request.ts'
import { retrying } from './retry.ts'
import type { Ask } from './server.ts'

/** A blob's bytes from the beginning; called again for each attempt. */
export type Source = () => AsyncIterable<Buffer> | Readable

export interface UploadOptions {
  /** Bytes of a chunk. Default: the blob goes in one request. */
  chunkSize?: number | undefined
  signal?: AbortSignal | undefined
  /** How many bytes of the blob were sent so far; less than before where an attempt began anew. */
  onBytes?: ((sent: number) => void) | undefined
}

/** The most bytes of a chunk, which is held in memory, whatever a registry wants. */
const mostChunk = 256 << 20
/** The most upload sessions that are kept for a blob that was not mounted. */
const mostSessions = 64

/** The pushing half of a registry. */
export class Push {
  readonly #upstream: Upstream
  /** Uploads that the registry began where it did not mount, by name and digest. */
  readonly #sessions = new Map<string, URL>()

  constructor(upstream: Upstream) {
    this.#upstream = upstream
  }

  #about(subject: string, name: string): About {
    const { host } = this.#upstream
    return { host, subject: `${host}/${subject}`, repository: name, action: 'push' }
  }

  async #ask(
    name: string,
    about: About,
    ask: Omit<Ask, 'about' | 'scopes'> & { scopes?: string[] },
  ): Promise<Answer> {
    return this.#upstream.server.ask({ scopes: [`repository:${name}:pull,push`], ...ask, about })
  }

  /** Whether the repository has a blob already. */
  async hasBlob(name: string, digest: string, signal?: AbortSignal): Promise<boolean> {
    checkRepository(name)
    checkDigest(digest)
    const about = this.#about(`${name}@${digest}`, name)
    return retrying(this.#upstream.limits, signal, async () => {
      const wanted = [200, 404]
      const { response, status } = await this.#ask(name, about, {
        method: 'HEAD',
        path: `${name}/blobs/${digest}`,
        wanted,
        signal,
      })
      response.resume()
      return status === 200
    })
  }

  /**
   * Lets the registry take a blob from another repository of its own. False where it does not: then it is uploaded, in the
   * session that the registry began instead, if it did.
   */
  async mount(name: string, digest: string, from: string, signal?: AbortSignal): Promise<boolean> {
    checkRepository(name)
    checkRepository(from)
    checkDigest(digest)
    const about = this.#about(`${name}@${digest}`, name)
    const query = new URLSearchParams({ mount: digest, from })
    try {
      const answer = await retrying(this.#upstream.limits, signal, () =>
        this.#ask(name, about, {
          method: 'POST',
          path: `${name}/blobs/uploads/?${query.toString()}`,
          headers: { 'content-length': 0 },
          scopes: [`repository:${name}:pull,push`, `repository:${from}:pull`],
          wanted: [201, 202, 400, 404, 405],
          signal,
        }),
      )
      discard(answer.response)
      if (answer.status === 202 && this.#sessions.size < mostSessions) {
        this.#sessions.set(`${name}@${digest}`, this.#location(answer, about))
      }
      return answer.status === 201
    } catch (error) {
      // No right to read there is no reason not to write here.
      if (error instanceof CaissonError && error.code === 'ERR_REGISTRY_AUTH') return false
      throw error
    }
  }

  /** Where an upload goes on. */
  #location({ response, url }: Answer, about: About): URL {
    const { location } = response.headers
    if (location !== undefined) return this.#upstream.server.lead(url, location)
    throw this.#failed(about, `${about.host} does not say where to upload to`)
  }

  #failed(about: About, message: string): CaissonError {
    return new CaissonError('ERR_REGISTRY', `${about.subject}: ${message}`, {
      stage: 'push',
      subject: about.subject,
    })
  }

  async #begin(
    name: string,
    about: About,
    signal: AbortSignal | undefined,
  ): Promise<{ location: URL; least: number }> {
    const answer = await this.#ask(name, about, {
      method: 'POST',
      path: `${name}/blobs/uploads/`,
      headers: { 'content-length': 0 },
      wanted: [202],
      signal,
    })
    discard(answer.response)
    const least = answer.response.headers['oci-chunk-min-length']
    return {
      location: this.#location(answer, about),
      least: typeof least === 'string' && /^\d{1,12}$/.test(least) ? Number(least) : 0,
    }
  }

  /** Tells the registry that nothing more comes. What it says to that does not matter. */
  async #cancel(name: string, about: About, location: URL): Promise<void> {
    const ask = {
      method: 'DELETE' as const,
      path: location,
      wanted: [204, 202, 200, 404],
      signal: AbortSignal.timeout(2000),
    }
    try {
      const { response } = await this.#ask(name, about, ask)
      discard(response)
    } catch {
      // It forgets it by itself in time.
    }
  }

  /**
   * Uploads a blob. What is sent is not hashed here: the registry does, and refuses other bytes.
   * @throws CaissonError ERR_DIGEST where the source has another number of bytes, ERR_REGISTRY_AUTH, ERR_REGISTRY.
   */
  async upload(
    name: string,
    descriptor: BlobDescriptor,
    open: Source,
    options: UploadOptions = {},
  ): Promise<void> {
    checkRepository(name)
    checkBlob(descriptor)
    const { chunkSize, signal } = options
    if (
      chunkSize !== undefined &&
      !(Number.isSafeInteger(chunkSize) && chunkSize > 0 && chunkSize <= mostChunk)
    ) {
      throw new CaissonError('ERR_INVALID_OPTION', `chunkSize: not between 1 and ${mostChunk} bytes`, {
        subject: 'chunkSize',
      })
    }
    const about = this.#about(`${name}@${descriptor.digest}`, name)
    const key = `${name}@${descriptor.digest}`
    await retrying(this.#upstream.limits, signal, async () => {
      const kept = this.#sessions.get(key)
      this.#sessions.delete(key)
      const session =
        kept === undefined ? await this.#begin(name, about, signal) : { location: kept, least: 0 }
      const work = { name, descriptor, about, options, location: session.location }
      try {
        if (chunkSize === undefined) await this.#whole(work, open)
        else await this.#chunked(work, open, Math.min(Math.max(chunkSize, session.least), mostChunk))
      } catch (error) {
        void this.#cancel(name, about, work.location)
        throw error
      }
    })
  }

  async #whole(work: Upload, open: Source): Promise<void> {
    const { descriptor, options } = work
    let sent = 0
    const onBytes = (bytes: number): void => {
      sent += bytes
      options.onBytes?.(sent)
    }
    const source = open()
    const stream = source instanceof Readable ? source : Readable.from(source, { objectMode: false })
    await this.#finish(work, { stream, length: descriptor.size, onBytes })
  }

  /** The last request of an upload, which names the digest. */
  async #finish(
    { name, descriptor, about, options, location }: Upload,
    body: NonNullable<Ask['body']>,
  ): Promise<void> {
    const url = new URL(location)
    // Appended as text: what stands in a query may be signed as it is written.
    url.search += `${url.search === '' ? '?' : '&'}digest=${encodeURIComponent(descriptor.digest)}`
    const { response, status } = await this.#ask(name, about, {
      method: 'PUT',
      path: url,
      headers: { 'content-type': 'application/octet-stream' },
      body,
      wanted: [201, 204, 404],
      signal: options.signal,
      idle: this.#upstream.limits.commit,
    })
    discard(response)
    // The session is gone; the blob is not there. Another session may do.
    if (status === 404)
      throw new Passing(this.#failed(about, `${about.host} does not know the upload any more`))
  }

  async #chunked(work: Upload, open: Source, size: number): Promise<void> {
    const { descriptor, options } = work
    let done = 0
    for await (const chunk of chunks(open(), size)) {
      if (done + chunk.length > descriptor.size) throw wrongSize(work.about, descriptor, 'more than')
      await this.#chunk(work, chunk, done)
      done += chunk.length
      options.onBytes?.(done)
    }
    if (done !== descriptor.size) throw wrongSize(work.about, descriptor, `only ${done} of`)
    await this.#finish(work, Buffer.alloc(0))
  }

  /** Sends one chunk that begins at `start` of the blob; after a failure only what the registry has not got yet. */
  async #chunk(work: Upload, chunk: Buffer, start: number): Promise<void> {
    const { name, about, options } = work
    let unsure = false
    let from = start
    const end = start + chunk.length
    await retrying(this.#upstream.limits, options.signal, async () => {
      if (unsure) from = await this.#received(work, start, end)
      if (from === end) return
      unsure = true
      const answer = await this.#ask(name, about, {
        method: 'PATCH',
        path: work.location,
        headers: { 'content-type': 'application/octet-stream', 'content-range': `${from}-${end - 1}` },
        body: chunk.subarray(from - start),
        wanted: [202, 416],
        signal: options.signal,
      })
      discard(answer.response)
      if (answer.status === 416)
        throw new Passing(this.#failed(about, `${about.host} does not take the next chunk`))
      work.location = this.#location(answer, about)
    })
  }

  /** How many bytes the registry has, if that is between `start` and `end`. */
  async #received(work: Upload, start: number, end: number): Promise<number> {
    const { name, about, options } = work
    const answer = await this.#ask(name, about, {
      method: 'GET',
      path: work.location,
      wanted: [204, 200],
      signal: options.signal,
    })
    discard(answer.response)
    if (answer.response.headers.location !== undefined) work.location = this.#location(answer, about)
    const last = Number(/^(?:bytes=)?0-(\d{1,15})$/.exec(answer.response.headers.range ?? '')?.[1] ?? 0)
    // Nothing and one byte look alike, `0-0`: distribution means nothing.
    const has = last === 0 ? 0 : last + 1
    if (has >= start && has <= end) return has
    throw this.#failed(about, `${about.host} has ${has} bytes of the upload, of ${start} that were sent`)
  }

  /**
   * Puts a manifest or an index of at most 4 MiB under a tag or its digest.
   * @returns its digest.
   */
  async putManifest(
    name: string,
    reference: string,
    bytes: Buffer,
    mediaType: string,
    signal?: AbortSignal,
  ): Promise<string> {
    checkRepository(name)
    checkReference(reference)
    const { limits } = this.#upstream
    const about = this.#about(`${name}${isTag(reference) ? ':' : '@'}${reference}`, name)
    const { subject, host } = about
    const details = { stage: 'push', subject }
    if (bytes.length > limits.manifest) {
      throw new CaissonError(
        'ERR_IMAGE_LIMIT',
        `${subject}: is larger than ${limits.manifest} bytes`,
        details,
      )
    }
    if (!/^[\w!#$&^.+-]{1,127}\/[\w!#$&^.+-]{1,127}$/.test(mediaType)) {
      throw new CaissonError('ERR_INVALID_OPTION', 'mediaType: is no media type', { subject: 'mediaType' })
    }
    const digest = native().addon.sha256(bytes)
    if (!isTag(reference) && reference !== digest) {
      throw new CaissonError('ERR_DIGEST', `${subject}: its bytes have the digest ${digest}`, details)
    }
    const { response } = await retrying(limits, signal, () =>
      this.#ask(name, about, {
        method: 'PUT',
        path: `${name}/manifests/${reference}`,
        headers: { 'content-type': mediaType },
        body: bytes,
        wanted: [201],
        signal,
        idle: limits.commit,
      }),
    )
    discard(response)
    const kept = response.headers['docker-content-digest']
    if (typeof kept === 'string' && kept.startsWith('sha256:') && kept !== digest) {
      throw new CaissonError('ERR_DIGEST', `${subject}: ${host} kept something else under it`, details)
    }
    return digest
  }
}

/** An upload under way. */
interface Upload {
  name: string
  descriptor: BlobDescriptor
  about: About
  options: UploadOptions
  /** Where it goes on: changes with every chunk. */
  location: URL
}

function wrongSize({ subject }: About, { size }: BlobDescriptor, count: string): CaissonError {
  return new CaissonError('ERR_DIGEST', `${subject}: its source has ${count} ${size} bytes`, {
    stage: 'push',
    subject,
  })
}

/** A stream in pieces of exactly `size` bytes, but for the last. */
async function* chunks(source: AsyncIterable<Buffer>, size: number): AsyncGenerator<Buffer> {
  let parts: Buffer[] = []
  let length = 0
  for await (const piece of source) {
    let rest = piece
    while (length + rest.length >= size) {
      const taken = size - length
      yield Buffer.concat([...parts, rest.subarray(0, taken)])
      rest = rest.subarray(taken)
      parts = []
      length = 0
    }
    if (rest.length > 0) parts.push(rest)
    length += rest.length
  }
  if (length > 0) yield Buffer.concat(parts)
}
