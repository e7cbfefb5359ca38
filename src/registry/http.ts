/** One exchange with a server, over node:http and node:https: deadlines, redirects, proxies. It knows no registries. */
import http from 'node:http'
import https from 'node:https'
import type { IncomingMessage } from 'node:http'
import { CaissonError } from '../errors.ts'
import { discard, feed } from './bodies.ts'
import { guardedLookup, mayLead, nearness, NearError } from './addresses.ts'
import type { Nearness } from './addresses.ts'
import type { Limits } from './limits.ts'
import type { Environment } from './places.ts'
import { proxyOf } from './proxy.ts'
import type { Answer, Request } from './request.ts'
import { place } from './said.ts'
import { context, isUntrusted } from './tls.ts'
import type { Tls } from './tls.ts'
import { codeOf, Unreachable } from './unreachable.ts'

const followed: ReadonlySet<number> = new Set([301, 302, 303, 307, 308])

/** Same scheme, host and port: what a header with a secret is for. */
export function isSameOrigin(one: URL, other: URL): boolean {
  return one.protocol === other.protocol && one.host === other.host
}

/** The connections to one server, and to where it leads. Idle ones keep no program alive. */
export class Client {
  readonly #home: URL
  readonly #tls: Tls
  readonly #limits: Limits
  readonly #env: Environment
  readonly #agents = new Map<string, http.Agent>()
  /** How near the server itself is; known from its name, or once it was connected to. */
  #nearness: Nearness
  /** Whether this machine's own authorities count: once Node's list did not suffice. */
  #system = false

  /** @param home the server that was asked for: what it leads to is held against it. */
  constructor(home: URL, tls: Tls, limits: Limits, env: Environment) {
    this.#home = home
    this.#tls = tls
    this.#limits = limits
    this.#env = env
    this.#nearness = nearness(home.hostname)
  }

  /** The server that was asked for. */
  get home(): URL {
    return this.#home
  }

  /** How near the server is, as far as that is known. */
  get nearness(): Nearness {
    return this.#nearness
  }

  /** Ends all connections. */
  close(): void {
    for (const agent of this.#agents.values()) agent.destroy()
    this.#agents.clear()
  }

  /** The agent for a place. What was configured for the server itself is for its host alone, but for authorities to trust. */
  #agent(url: URL): http.Agent {
    const own = url.hostname === this.#home.hostname
    const proxy = proxyOf(url, this.#env)
    const key = `${url.protocol} ${own} ${this.#system} ${proxy ?? ''}`
    let agent = this.#agents.get(key)
    if (agent === undefined) {
      // Who is exempt was decided already: the agent is told of this proxy and of nothing else.
      const proxyEnv = { [url.protocol === 'http:' ? 'HTTP_PROXY' : 'HTTPS_PROXY']: proxy }
      const options = { keepAlive: true, maxFreeSockets: 8, ...(proxy === undefined ? {} : { proxyEnv }) }
      const tls: Tls = own ? this.#tls : { ca: this.#tls.ca, client: undefined, verified: true }
      agent =
        url.protocol === 'http:'
          ? new http.Agent(options)
          : new https.Agent({
              ...options,
              secureContext: context(tls, this.#system),
              rejectUnauthorized: tls.verified,
            })
      this.#agents.set(key, agent)
    }
    return agent
  }

  /**
   * One request and its answer's head. Follows redirects of GET and HEAD.
   * @throws Unreachable, the signal's reason, CaissonError ERR_REGISTRY for a redirect that is not followed.
   */
  async exchange(request: Request): Promise<Answer> {
    let { url } = request
    let headers = { ...request.headers }
    for (let redirects = 0; ; redirects += 1) {
      const response = await this.#trusted({ ...request, url, headers })
      const status = response.statusCode ?? 0
      const { location } = response.headers
      if (!followed.has(status) || location === undefined) return { response, url, status }
      discard(response)
      const next = this.lead(url, location)
      if (request.method !== 'GET' && request.method !== 'HEAD') {
        throw this.#astray(url, `redirects an upload to ${place(next)}: name that registry instead`)
      }
      if (redirects === this.#limits.redirects) {
        throw this.#astray(url, `redirects more than ${this.#limits.redirects} times`)
      }
      // Lower case here, so that no spelling of it gets through; and it does not come back.
      if (!isSameOrigin(url, next)) {
        headers = Object.fromEntries(
          Object.entries(headers).filter(([name]) => name.toLowerCase() !== 'authorization'),
        )
      }
      url = next
    }
  }

  /**
   * Where a server at `from` leads to by `location`.
   * @throws CaissonError ERR_REGISTRY for a place that it may not lead to.
   */
  lead(from: URL, location: string): URL {
    if (!URL.canParse(location, from.href)) throw this.#astray(from, 'redirects to what is no URL')
    const next = new URL(location, from)
    next.hash = ''
    const where = place(next)
    if (next.protocol !== 'https:' && next.protocol !== 'http:') {
      throw this.#astray(from, `redirects to ${where}, which is neither http nor https`)
    }
    if (next.username !== '' || next.password !== '') {
      throw this.#astray(from, `redirects to ${where} with a password in the URL`)
    }
    if (from.protocol === 'https:' && next.protocol === 'http:') {
      throw this.#astray(from, `redirects to ${where}, without TLS: not followed`)
    }
    if (!mayLead(this.#nearness, nearness(next.hostname))) {
      throw this.#astray(
        from,
        `redirects to ${where}, an address of this machine's own network: not followed`,
      )
    }
    return next
  }

  #astray(from: URL, message: string): CaissonError {
    return new CaissonError('ERR_REGISTRY', `${from.host}: ${message}`, {
      stage: 'resolve',
      subject: from.host,
    })
  }

  /** As {@link #send}; with the machine's authorities as well, once Node's do not suffice. */
  async #trusted(request: Request): Promise<IncomingMessage> {
    try {
      return await this.#send(request)
    } catch (error) {
      const stream = request.body !== undefined && !Buffer.isBuffer(request.body)
      if (this.#system || stream || !(error instanceof Unreachable) || !isUntrusted(error.code)) throw error
      this.#system = true
      return this.#send(request)
    }
  }

  #send({ method, url, headers, body, signal, idle = this.#limits.idle }: Request): Promise<IncomingMessage> {
    signal?.throwIfAborted()
    const own = url.host === this.#home.host
    const agent = this.#agent(url)
    const direct = proxyOf(url, this.#env) === undefined
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>()
    const stream = body === undefined || Buffer.isBuffer(body) ? undefined : body
    const length = Buffer.isBuffer(body) ? body.length : stream?.length
    const sent = (url.protocol === 'http:' ? http : https).request(url, {
      method,
      agent,
      headers: {
        'user-agent': 'caisson',
        'accept-encoding': 'identity',
        ...headers,
        ...(length === undefined ? {} : { 'content-length': length }),
      },
      // What was asked for by name may be anywhere; what a server leads to may not.
      ...(own || !direct ? {} : { lookup: guardedLookup(this.#nearness) }),
    })
    const connecting = setTimeout(
      () =>
        sent.destroy(
          new Unreachable(`no connection within ${this.#limits.connect / 1000} s`, 'ETIMEDOUT', undefined),
        ),
      this.#limits.connect,
    )
    let answered: IncomingMessage | undefined
    const abort = (): void => void (answered ?? sent).destroy(signal?.reason as Error)
    signal?.addEventListener('abort', abort, { once: true })

    sent.on('socket', (socket) => {
      const connected = (): void => {
        clearTimeout(connecting)
        const { remoteAddress } = socket
        if (own && direct && remoteAddress !== undefined) this.#nearness = nearness(remoteAddress)
      }
      if (socket.connecting) socket.once(url.protocol === 'http:' ? 'connect' : 'secureConnect', connected)
      else connected()
      const idled = (): void => {
        // Who does not read is slow, not the server; nor is it when we have nothing to send yet.
        const ours =
          answered === undefined
            ? !sent.writableEnded && !sent.writableNeedDrain
            : answered.readableLength > 0
        if (ours) {
          socket.setTimeout(idle)
          return
        }
        const silent = new Unreachable(`nothing came for ${idle / 1000} s`, 'ETIMEDOUT', undefined)
        if (answered === undefined) sent.destroy(silent)
        else answered.destroy(silent)
      }
      socket.setTimeout(idle)
      socket.on('timeout', idled)
      sent.once('close', () => {
        socket.off('timeout', idled)
        socket.setTimeout(0)
      })
    })
    sent.once('response', (response) => {
      clearTimeout(connecting)
      answered = response
      // What is not listened to is thrown at the program.
      response.on('error', () => undefined)
      // Who answers before all was sent gets no more, and the connection is of no use.
      response.once('end', () => {
        if (!sent.writableEnded) sent.destroy()
      })
      resolve(response)
    })
    // Connections of other protocols are nobody's.
    sent.once('upgrade', (_, socket) => void socket.destroy())
    sent.on('error', (error) => {
      if (signal?.aborted === true) reject(signal.reason)
      else if (error instanceof Unreachable) reject(error)
      else if (error instanceof NearError) reject(this.#astray(url, error.message))
      else reject(new Unreachable(error.message, codeOf(error), error))
    })
    sent.once('close', () => {
      clearTimeout(connecting)
      signal?.removeEventListener('abort', abort)
      stream?.stream.destroy()
      reject(new Unreachable('the connection was closed without an answer', 'ECONNRESET', undefined))
    })
    if (stream === undefined) sent.end(body)
    else
      void feed(sent, stream).catch((error: unknown) => {
        // Our own source failed: that is said as it is.
        reject(error)
        sent.destroy()
      })
    return promise
  }
}
