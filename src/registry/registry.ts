/** A registry: manifests, blobs and lists of the OCI distribution protocol. What it says is data; bytes count by their digest. */
import type { IncomingMessage } from 'node:http'
import { CaissonError } from '../errors.ts'
import { native } from '../native.ts'
import { unreachable } from './failure.ts'
import type { About } from './failure.ts'
import { find } from './credentials.ts'
import type { Found } from './credentials.ts'
import { endpoints } from './hosts.ts'
import { discard, readBody } from './bodies.ts'
import type { Answer } from './request.ts'
import { defaultLimits } from './limits.ts'
import type { Limits } from './limits.ts'
import type { Login } from './login.ts'
import { listReferrers, listTags } from './lists.ts'
import type { Referrer, Upstream } from './lists.ts'
import { checkBlob, checkDigest, checkHost, checkReference, checkRepository, isTag } from './names.ts'
import type { BlobDescriptor } from './names.ts'
import type { Environment } from './places.ts'
import { Push } from './push.ts'
import type { Source, UploadOptions } from './push.ts'
import { checkLength, checkRange, tooLarge, wrongDigest } from './promised.ts'
import { retrying } from './retry.ts'
import { Secrets } from './said.ts'
import { Shared as Work } from './shared.ts'
import { Server } from './server.ts'
import type { Ask, Shared } from './server.ts'
import { Unreachable } from './unreachable.ts'

/** How a registry is used. */
export interface RegistryOptions {
  /** Where configuration and credentials are looked for. Default `process.env`. */
  env?: Environment | undefined
  /** Whose rights are used, instead of those that are stored; null: nobody's. */
  login?: Login | null | undefined
  /** Limits other than {@link defaultLimits}. */
  limits?: Partial<Limits> | undefined
}

export interface Waiting {
  /** Ends the call; it throws the signal's reason. */
  signal?: AbortSignal | undefined
}

/** A manifest as it was served: its bytes, and what they are by the server's word and by their own digest. */
export interface Served {
  bytes: Buffer
  /** Content-Type, without parameters. */
  mediaType: string | undefined
  /** `sha256:` of {@link bytes}, computed here. */
  digest: string
}

/** All that this engine reads. */
const manifestTypes = [
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.oci.image.manifest.v1+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
  'application/vnd.docker.distribution.manifest.v2+json',
].join(', ')

/** How long a mirror that cannot be reached is not tried again, in milliseconds. */
const mirrorRest = 60_000

/** One registry, and its mirrors. Loading is lazy: nothing is sent before the first call. */
export class Registry {
  /** `HOST[:PORT]`, or `docker.io`. */
  readonly host: string
  readonly #limits: Limits
  readonly #shared: Shared
  readonly #login: Login | null | undefined
  readonly #found = new Map<string, Work<Found>>()
  /** Its mirrors, and last itself. */
  readonly #servers: readonly Server[]
  readonly #push: Push
  /** Mirrors that could not be reached: each blob would wait for them again. */
  readonly #down = new Map<Server, { until: number; message: string }>()

  /** @throws CaissonError ERR_INVALID_OPTION for a malformed name, or what a file of configuration says wrong. */
  constructor(host: string, options: RegistryOptions = {}) {
    this.host = checkHost(host)
    const { env = process.env } = options
    this.#login = options.login
    this.#limits = { ...defaultLimits, ...options.limits }
    const secrets = new Secrets()
    for (const name of ['https_proxy', 'HTTPS_PROXY', 'http_proxy', 'HTTP_PROXY']) {
      const url = env[name] ?? ''
      if (!URL.canParse(url)) continue
      const { password } = new URL(url)
      secrets.add(password)
      secrets.add(new URLSearchParams(`p=${password.replaceAll('+', '%2B')}`).get('p') ?? '')
    }
    this.#shared = {
      limits: this.#limits,
      secrets,
      env,
      find: (place, repository, signal) => this.#find(place, repository, signal),
    }
    this.#servers = endpoints(this.host, env).map((endpoint) => new Server(endpoint, this.#shared))
    this.#push = new Push(this.#upstream())
  }

  #upstream(): Upstream {
    const server = this.#servers.at(-1)
    if (server === undefined) throw new CaissonError('ERR_INTERNAL', `${this.host} has no server`)
    return { host: this.host, server, limits: this.#limits, secrets: this.#shared.secrets }
  }

  /** Ends its connections. Idle ones keep no program alive; this frees their descriptors. */
  close(): void {
    for (const server of this.#servers) server.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }

  /** A login by its repository's host and name; looked for once. All that is found stays out of messages. */
  async #find(host: string, repository: string | undefined, signal: AbortSignal | undefined): Promise<Found> {
    const { env, secrets } = this.#shared
    if (this.#login !== undefined) {
      // What was given is for this registry, and for no mirror of it.
      const login = host === this.host ? (this.#login ?? undefined) : undefined
      hide(login, secrets)
      return { login, trouble: undefined }
    }
    const key = `${host}/${repository ?? ''}`
    let work = this.#found.get(key)
    if (work === undefined || work.failed) {
      work = new Work((ended) => find(host, repository, { env, signal: ended }))
      this.#found.set(key, work)
    }
    const found = await work.wait(signal)
    hide(found.login, secrets)
    return found
  }

  #about(subject: string, action: 'pull' | 'push', missing?: 'ERR_IMAGE_NOT_FOUND'): About {
    return { host: this.host, subject, action, ...(missing === undefined ? {} : { missing }) }
  }

  /** Asks the mirrors one after the other, then the registry, with retries; `read` takes the answer within the attempt. */
  async #pull<Value>(
    name: string,
    ask: Omit<Ask, 'path' | 'scopes'> & { path: string },
    read: (answer: Answer, server: Server) => Promise<Value> | Value,
  ): Promise<Value> {
    const { signal } = ask
    const failed: string[] = []
    for (const server of this.#servers) {
      const { prefix, mirror, host } = server.endpoint
      const down = this.#down.get(server)
      if (down !== undefined && down.until > Date.now()) {
        failed.push(down.message)
        continue
      }
      const place = `${prefix}${name}`
      const about = { ...ask.about, host, repository: place }
      const scopes = [`repository:${place}:pull`]
      const attempt = async (): Promise<Value> => {
        const answer = await server.ask({ ...ask, path: `${place}/${ask.path}`, scopes, about })
        try {
          return await read(answer, server)
        } catch (error) {
          throw unreachable(error, about, this.#shared.secrets)
        }
      }
      try {
        // A mirror gets one chance more, and no patience: the registry itself is behind it.
        return await retrying(this.#limits, signal, attempt, mirror ? 2 : this.#limits.attempts)
      } catch (error) {
        signal?.throwIfAborted()
        if (!(error instanceof CaissonError)) throw error
        if (mirror) {
          failed.push(error.message)
          if (error.cause instanceof Unreachable) {
            this.#down.set(server, { until: Date.now() + mirrorRest, message: error.message })
          }
        } else if (failed.length > 0) throw this.#withMirrors(error, failed)
        else throw error
      }
    }
    throw new CaissonError('ERR_INTERNAL', `${this.host} has no server`)
  }

  #withMirrors(error: CaissonError, failed: readonly string[]): CaissonError {
    const message = `${error.message} (before that its mirrors failed: ${failed.join('; ').slice(0, 1024)})`
    return new CaissonError(error.code, message, { stage: error.stage, subject: error.subject, cause: error })
  }

  /**
   * A manifest or an index, by tag or digest.
   * @throws CaissonError ERR_IMAGE_NOT_FOUND, ERR_IMAGE_LIMIT above 4 MiB, ERR_DIGEST, ERR_REGISTRY_AUTH, ERR_REGISTRY.
   */
  async manifest(
    name: string,
    reference: string,
    options: Waiting & { accept?: string } = {},
  ): Promise<Served> {
    const subject = this.#subject(name, reference)
    const { signal, accept = manifestTypes } = options
    const ask = {
      method: 'GET' as const,
      path: `manifests/${reference}`,
      headers: { accept },
      wanted: [200],
      about: this.#about(subject, 'pull', 'ERR_IMAGE_NOT_FOUND'),
      signal,
    }
    return this.#pull(name, ask, async (answer) => {
      const bytes = await this.#document(answer, subject, this.#limits.manifest, signal)
      const digest = native().addon.sha256(bytes)
      if (!isTag(reference) && digest !== reference)
        throw wrongDigest(subject, `its bytes have the digest ${digest}`)
      const mediaType = answer.response.headers['content-type']?.split(';')[0]?.trim().toLowerCase()
      return { bytes, mediaType: mediaType === '' ? undefined : mediaType, digest }
    })
  }

  /**
   * What the registry says the digest of a tag is, without its bytes; undefined where there is no such tag, or it does not say.
   * It is a hint: what is used is checked by its bytes.
   */
  async head(name: string, reference: string, { signal }: Waiting = {}): Promise<string | undefined> {
    const ask = {
      method: 'HEAD' as const,
      path: `manifests/${reference}`,
      headers: { accept: manifestTypes },
      wanted: [200],
      about: this.#about(this.#subject(name, reference), 'pull', 'ERR_IMAGE_NOT_FOUND'),
      signal,
    }
    try {
      return await this.#pull(name, ask, ({ response }) => {
        response.resume()
        const digest = response.headers['docker-content-digest']
        return typeof digest === 'string' && /^sha256:[a-f0-9]{64}$/.test(digest) ? digest : undefined
      })
    } catch (error) {
      if (error instanceof CaissonError && error.code === 'ERR_IMAGE_NOT_FOUND') return undefined
      throw error
    }
  }

  /**
   * A small blob, such as a config, of at most `most` bytes (default 8 MiB).
   * @throws CaissonError ERR_DIGEST for other bytes than the descriptor's, ERR_IMAGE_LIMIT, as {@link manifest}.
   */
  async blob(
    name: string,
    descriptor: BlobDescriptor,
    { signal, most = 8 << 20 }: Waiting & { most?: number } = {},
  ): Promise<Buffer> {
    const { digest, size } = descriptor
    const subject = this.#blobSubject(name, descriptor)
    if (size > most) throw tooLarge(subject, most)
    return this.#pull(name, this.#blobAsk(descriptor, subject, 0, signal), async (answer) => {
      checkLength(answer, subject, size)
      const bytes = await readBody(answer, size, this.#limits.document, signal)
      if (bytes?.length !== size) {
        throw wrongDigest(
          subject,
          bytes === undefined ? `has more than ${size} bytes` : `has ${bytes.length} bytes, not ${size}`,
        )
      }
      const found = native().addon.sha256(bytes)
      if (found !== digest) throw wrongDigest(subject, `its bytes have the digest ${found}`)
      return bytes
    })
  }

  /**
   * Opens a blob for reading from `offset` on. `start` is where the body begins: `offset`, or 0 where the server knows no
   * ranges. Whoever reads it checks size and digest, and begins again at another offset if the body breaks off.
   *
   * @throws CaissonError ERR_DIGEST where the server promises another length than the descriptor's.
   */
  async open(
    name: string,
    descriptor: BlobDescriptor,
    offset: number = 0,
    { signal }: Waiting = {},
  ): Promise<{ body: IncomingMessage; start: number }> {
    const subject = this.#blobSubject(name, descriptor)
    const { size } = descriptor
    if (!Number.isSafeInteger(offset) || offset < 0 || offset > size) {
      throw new CaissonError('ERR_INVALID_OPTION', `offset: ${offset} is not within ${size} bytes`, {
        subject: 'offset',
      })
    }
    // There is no range of nothing.
    const from = offset === size ? 0 : offset
    return this.#pull(name, this.#blobAsk(descriptor, subject, from, signal), (answer) => {
      const { response, status } = answer
      const start = status === 206 ? from : 0
      if (status === 206) checkRange(answer, subject, from, size)
      checkLength(answer, subject, size - start)
      return { body: response, start }
    })
  }

  /**
   * A repository's tags, page after page, the first `limit` of them. Default: all; more than 10,000 are refused.
   * @throws CaissonError ERR_IMAGE_NOT_FOUND, ERR_IMAGE_LIMIT, as {@link manifest}.
   */
  async tags(
    name: string,
    { limit, signal }: Waiting & { limit?: number | undefined } = {},
  ): Promise<string[]> {
    if (limit !== undefined && !(Number.isSafeInteger(limit) && limit > 0 && limit <= this.#limits.tags)) {
      const message = `limit: is no number from 1 to ${this.#limits.tags}`
      throw new CaissonError('ERR_INVALID_OPTION', message, { subject: 'limit' })
    }
    return listTags(this.#upstream(), checkRepository(name), limit, signal)
  }

  /** What refers to a manifest, of one type or of all; none is no error. */
  async referrers(
    name: string,
    digest: string,
    artifactType?: string,
    { signal }: Waiting = {},
  ): Promise<Referrer[]> {
    return listReferrers(this.#upstream(), checkRepository(name), checkDigest(digest), artifactType, signal)
  }

  /**
   * Asks the registry itself whether it is one and takes this login: what `login` does before it keeps one.
   * @throws CaissonError ERR_REGISTRY_AUTH, ERR_REGISTRY.
   */
  async ping({ signal }: Waiting = {}): Promise<void> {
    const { server, limits } = this.#upstream()
    const about = this.#about(this.host, 'pull')
    const { response } = await retrying(limits, signal, () =>
      server.ask({ method: 'GET', path: '', scopes: [], wanted: [200], about, signal }),
    )
    discard(response)
  }

  /** Whether a repository has a blob already. */
  async hasBlob(name: string, digest: string, { signal }: Waiting = {}): Promise<boolean> {
    return this.#push.hasBlob(name, digest, signal)
  }

  /** Takes a blob over from another repository of this registry. False where it has to be uploaded. */
  async mount(name: string, digest: string, from: string, { signal }: Waiting = {}): Promise<boolean> {
    return this.#push.mount(name, digest, from, signal)
  }

  /** Uploads a blob; `open` is called again for each attempt. See {@link Push.upload}. */
  async upload(
    name: string,
    descriptor: BlobDescriptor,
    open: Source,
    options: UploadOptions = {},
  ): Promise<void> {
    return this.#push.upload(name, descriptor, open, options)
  }

  /** Puts a manifest under a tag or its digest; answers its digest. */
  async putManifest(
    name: string,
    reference: string,
    bytes: Buffer,
    mediaType: string,
    { signal }: Waiting = {},
  ): Promise<string> {
    return this.#push.putManifest(name, reference, bytes, mediaType, signal)
  }

  #blobAsk({ digest }: BlobDescriptor, subject: string, from: number, signal: AbortSignal | undefined) {
    return {
      method: 'GET' as const,
      path: `blobs/${digest}`,
      headers: from === 0 ? {} : { range: `bytes=${from}-` },
      wanted: from === 0 ? [200] : [200, 206],
      about: this.#about(subject, 'pull'),
      signal,
    }
  }

  async #document(
    answer: Answer,
    subject: string,
    most: number,
    signal: AbortSignal | undefined,
  ): Promise<Buffer> {
    const bytes = await readBody(answer, most, this.#limits.document, signal)
    if (bytes === undefined) throw tooLarge(subject, most)
    return bytes
  }

  #subject(name: string, reference: string): string {
    checkRepository(name)
    checkReference(reference)
    return `${this.host}/${name}${isTag(reference) ? ':' : '@'}${reference}`
  }

  #blobSubject(name: string, descriptor: BlobDescriptor): string {
    checkRepository(name)
    checkBlob(descriptor)
    return `${this.host}/${name}@${descriptor.digest}`
  }
}

function hide(login: Login | undefined, secrets: Secrets): void {
  if (login?.kind === 'password') secrets.add(login.password, login.username)
  else secrets.add(login?.token, login?.kind === 'identity' ? (login.username ?? '') : undefined)
}
