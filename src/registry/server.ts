/** One server of a registry: its connections, what it wants to be shown, and whether it speaks TLS. */
import type { OutgoingHttpHeaders } from 'node:http'
import { CaissonError } from '../errors.ts'
import { Authorizer } from './auth.ts'
import type { Scope } from './auth.ts'
import { discard } from './bodies.ts'
import type { Found } from './credentials.ts'
import { Passing, refusal, unreachable } from './failure.ts'
import type { About } from './failure.ts'
import type { Endpoint } from './hosts.ts'
import { Client, isSameOrigin } from './http.ts'
import type { Answer, Method, Request } from './request.ts'
import type { Limits } from './limits.ts'
import type { Login } from './login.ts'
import type { Environment } from './places.ts'
import type { Secrets } from './said.ts'
import { Unreachable } from './unreachable.ts'

/** A request to the registry's API. */
export interface Ask {
  method: Method
  /** Behind `/v2/`, or a URL that the registry gave for an upload or a next page. */
  path: string | URL
  headers?: OutgoingHttpHeaders
  body?: Request['body']
  scopes: readonly Scope[]
  /** The answers that are wanted; all others are thrown as errors. */
  wanted: readonly number[]
  about: About
  signal?: AbortSignal | undefined
  idle?: number
}

/** What all servers of a registry share. */
export interface Shared {
  limits: Limits
  secrets: Secrets
  env: Environment
  /** Whose rights are used at a host, and why none were found, if that is to be told. */
  find: (host: string, repository: string | undefined, signal?: AbortSignal) => Promise<Found>
}

/** Node's errors where the other side answers a TLS greeting with something else. */
function speaksNoTls({ code, message }: Unreachable, origin: URL): boolean {
  // Without a port the two are different servers.
  if (code === 'ECONNREFUSED') return origin.port === ''
  return /wrong version number|packet length too long|WRONG_VERSION_NUMBER|PACKET_LENGTH_TOO_LONG/.test(
    `${code} ${message}`,
  )
}

export class Server {
  readonly endpoint: Endpoint
  readonly #shared: Shared
  #origin: URL
  #client: Client
  #authorizer: Authorizer
  /** Whether it ever answered: from then on its scheme stays. */
  #answered = false
  #trouble: string | undefined

  constructor(endpoint: Endpoint, shared: Shared) {
    this.endpoint = endpoint
    this.#shared = shared
    this.#origin = new URL(endpoint.origin)
    ;[this.#client, this.#authorizer] = this.#connect()
  }

  /** Its scheme, host and port, as it turned out. */
  get origin(): URL {
    return this.#origin
  }

  close(): void {
    this.#client.close()
  }

  #connect(): [Client, Authorizer] {
    const { secrets, env } = this.#shared
    const { host, tls, idle = this.#shared.limits.idle } = this.endpoint
    const limits = { ...this.#shared.limits, idle }
    const client = new Client(this.#origin, tls, limits, env)
    return [
      client,
      new Authorizer({
        host,
        client,
        limits,
        secrets,
        login: (repository, signal) => this.#login(repository, signal),
      }),
    ]
  }

  async #login(repository: string | undefined, signal: AbortSignal | undefined): Promise<Login | undefined> {
    const { login, trouble } = await this.#shared.find(this.endpoint.host, repository, signal)
    this.#trouble = trouble
    return login
  }

  /** Where a server's Location leads. @throws CaissonError ERR_REGISTRY for a place that it may not lead to. */
  lead(from: URL, location: string): URL {
    return this.#client.lead(from, location)
  }

  #url(path: string | URL): URL {
    if (path instanceof URL) return path
    const url = new URL(`/v2/${path}`, this.#origin)
    if (this.endpoint.namespace !== undefined) url.searchParams.set('ns', this.endpoint.namespace)
    return url
  }

  /**
   * One request, with what the server wants to be shown. Its answer is one of those wanted; its body is not read yet.
   * @throws CaissonError; {@link Passing} for what may pass; the signal's reason.
   */
  async ask(ask: Ask): Promise<Answer> {
    const { wanted, about, signal } = ask
    const { limits, secrets } = this.#shared
    try {
      const answer = await this.#shown(ask)
      if (wanted.includes(answer.status)) {
        const { 'content-encoding': encoding = 'identity' } = answer.response.headers
        if (encoding === 'identity' || encoding === '') return answer
        answer.response.destroy()
        const details = { stage: 'resolve', subject: about.subject }
        const message = `${about.subject}: ${about.host} compressed its answer, though it was told not to`
        throw new CaissonError('ERR_REGISTRY', message, details)
      }
      throw await refusal(answer, { ...about, trouble: this.#trouble }, limits, secrets)
    } catch (error) {
      signal?.throwIfAborted()
      throw unreachable(error, about, secrets)
    }
  }

  async #shown(ask: Ask): Promise<Answer> {
    const { scopes, about, signal } = ask
    // A token that was kept may have run out, and a wider one may be wanted: two more, and no more.
    let shown = await this.#header(ask)
    for (let tries = 0; ; tries += 1) {
      const answer = await this.#send(ask, shown)
      if (answer.status !== 401 || tries === 2 || !isSameOrigin(answer.url, this.#origin)) return answer
      const next = await this.#authorizer.answer(answer, scopes, shown, about, signal)
      if (next === undefined) return answer
      if (ask.body === undefined || Buffer.isBuffer(ask.body)) discard(answer.response)
      else {
        answer.response.destroy()
        const message = `${about.subject}: ${about.host} wanted to be shown rights again while it was sent to`
        throw new Passing(
          new CaissonError('ERR_REGISTRY_AUTH', message, { stage: 'push', subject: about.subject }),
          0,
        )
      }
      shown = next
    }
  }

  async #header({ path, scopes, about, signal }: Ask): Promise<string | undefined> {
    // Where an upload was led elsewhere, what is for the registry is not shown.
    if (path instanceof URL && !isSameOrigin(path, this.#origin)) return undefined
    return this.#authorizer.header(scopes, about, signal)
  }

  async #send(ask: Ask, shown: string | undefined): Promise<Answer> {
    const { method, path, headers, body, signal, idle } = ask
    const request = (): Request => ({
      method,
      url: this.#url(path),
      headers: { ...headers, ...(shown === undefined ? {} : { authorization: shown }) },
      signal,
      ...(body === undefined ? {} : { body }),
      ...(idle === undefined ? {} : { idle }),
    })
    try {
      const answer = await this.#client.exchange(request())
      this.#answered = true
      return answer
    } catch (error) {
      const mayFall = this.endpoint.plain && !this.#answered && this.#origin.protocol === 'https:'
      if (!mayFall || !(error instanceof Unreachable) || !speaksNoTls(error, this.#origin)) throw error
      this.#client.close()
      this.#origin = new URL(this.endpoint.origin.replace('https:', 'http:'))
      ;[this.#client, this.#authorizer] = this.#connect()
      return this.#client.exchange(request())
    }
  }
}
