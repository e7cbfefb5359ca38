/** What a registry is shown so that it answers: Basic, or a token of its token service. */
import { CaissonError } from '../errors.ts'
import { mayLead, nearness } from './addresses.ts'
import { parseChallenges } from './challenge.ts'
import type { Login } from './login.ts'
import { refusal, unreachable, words } from './failure.ts'
import type { About, Passing } from './failure.ts'
import { discard, readBody } from './bodies.ts'
import type { Client } from './http.ts'
import type { Answer } from './request.ts'
import { field, parseObject, word } from './json.ts'
import type { Limits } from './limits.ts'
import { place } from './said.ts'
import type { Secrets } from './said.ts'
import { Shared } from './shared.ts'

/** What a token is for: `repository:NAME:pull,push`. */
export type Scope = string

interface Token {
  value: string
  /** By this process's clock, in milliseconds: the server's may be wrong. */
  expires: number
}

/** Where tokens come from, as the registry said. */
interface Service {
  realm: URL
  service: string | undefined
}

/** The most tokens that are kept for one registry. */
const mostTokens = 256
const mostTokenLength = 64 << 10

/** What the authorizer needs to know of its registry. */
export interface Frame {
  /** The registry as errors and `caisson login` call it. */
  host: string
  client: Client
  limits: Limits
  secrets: Secrets
  /** Whose rights are used; undefined: nobody's. Asked for when a server wants to see them. */
  login: (repository: string | undefined, signal?: AbortSignal) => Promise<Login | undefined>
}

/** Shows a registry what it wants to see. One for each server: what is for one is shown to no other. */
export class Authorizer {
  readonly #frame: Frame
  #service: Service | undefined
  #basic = false
  readonly #tokens = new Map<string, Shared<Token>>()

  constructor(frame: Frame) {
    this.#frame = frame
  }

  /** The Authorization header for a request, as far as it is known what the registry wants. */
  async header(scopes: readonly Scope[], about: About, signal?: AbortSignal): Promise<string | undefined> {
    if (this.#service !== undefined) return this.#bearer(this.#service, scopes, about, signal)
    if (this.#basic) return this.#passwordHeader(await this.#frame.login(about.repository, signal))
    return undefined
  }

  /**
   * The header for a request that was answered 401; undefined if there is none that could change the answer.
   * @param shown what that request had shown.
   * @throws CaissonError ERR_REGISTRY_AUTH for a token service that may not be asked, or refuses.
   */
  async answer(
    { response, url }: Answer,
    scopes: readonly Scope[],
    shown: string | undefined,
    about: About,
    signal?: AbortSignal,
  ): Promise<string | undefined> {
    const challenges = parseChallenges(response.headersDistinct['www-authenticate'] ?? [])
    const bearer = challenges.find(({ scheme }) => scheme === 'bearer')
    if (bearer !== undefined) {
      const login = await this.#frame.login(about.repository, signal)
      const ready = login?.kind === 'registry' ? `Bearer ${login.token}` : undefined
      if (ready !== undefined) return ready === shown ? undefined : ready
      const service = {
        realm: this.#realm(bearer.parameters.get('realm'), url),
        service: bearer.parameters.get('service'),
      }
      this.#service = service
      const asked = bearer.parameters.get('scope')
      const wanted =
        asked === undefined || asked === '' ? scopes : [...new Set([...scopes, ...asked.split(' ')])]
      // What was shown did not do: it is not shown again, unless a wider one is asked for.
      if (shown !== undefined) this.#forget(shown)
      return this.#bearer(service, wanted, about, signal)
    }
    if (challenges.some(({ scheme }) => scheme === 'basic')) {
      this.#basic = true
      const header = this.#passwordHeader(await this.#frame.login(about.repository, signal))
      return header === shown ? undefined : header
    }
    return undefined
  }

  #denied(message: string): CaissonError {
    const { host } = this.#frame
    return new CaissonError('ERR_REGISTRY_AUTH', `${host}: ${message}`, { stage: 'resolve', subject: host })
  }

  /** The token service that a registry names, if it may name it. */
  #realm(text: string | undefined, registry: URL): URL {
    if (text === undefined || !URL.canParse(text)) throw this.#denied('names no token service')
    const realm = new URL(text)
    realm.hash = ''
    const where = `its token service ${place(realm)}`
    if (realm.protocol !== 'https:' && !(realm.protocol === 'http:' && registry.protocol === 'http:')) {
      throw this.#denied(`${where} has no TLS: nothing is sent there`)
    }
    if (realm.username !== '' || realm.password !== '')
      throw this.#denied(`${where} has a password in its URL`)
    if (!mayLead(this.#frame.client.nearness, nearness(realm.hostname))) {
      throw this.#denied(`${where} is an address of this machine's own network: nothing is sent there`)
    }
    return realm
  }

  #passwordHeader(login: Login | undefined): string | undefined {
    if (login?.kind !== 'password') return undefined
    return `Basic ${Buffer.from(`${login.username}:${login.password}`).toString('base64')}`
  }

  #forget(header: string): void {
    for (const [key, token] of this.#tokens) {
      const kept = token.settled
      if (kept !== undefined && `Bearer ${kept.value}` === header) this.#tokens.delete(key)
    }
  }

  async #bearer(
    { realm, service }: Service,
    scopes: readonly Scope[],
    about: About,
    signal: AbortSignal | undefined,
  ): Promise<string> {
    const login = await this.#frame.login(about.repository, signal)
    if (login?.kind === 'registry') return `Bearer ${login.token}`
    const key = JSON.stringify([realm.href, service, scopes.toSorted()])
    let token = this.#tokens.get(key)
    const kept = token?.settled
    if (token === undefined || token.failed || (kept !== undefined && kept.expires <= Date.now())) {
      if (this.#tokens.size >= mostTokens) this.#tokens.clear()
      token = new Shared((ended) => this.#fetch({ realm, service }, scopes, login, about, ended))
      this.#tokens.set(key, token)
    }
    const { value } = await token.wait(signal)
    return `Bearer ${value}`
  }

  async #fetch(
    service: Service,
    scopes: readonly Scope[],
    login: Login | undefined,
    about: About,
    ended: AbortSignal,
  ): Promise<Token> {
    const { limits, client, secrets, host } = this.#frame
    const { realm } = service
    // Without TLS a password goes to the registry's own host at most, where it would go anyway.
    if (login !== undefined && realm.protocol === 'http:' && realm.hostname !== client.home.hostname) {
      throw this.#denied(
        `its token service ${place(realm)} is another host, without TLS: no password is sent there`,
      )
    }
    const late = new AbortController()
    const timer = setTimeout(() => late.abort(), limits.token)
    const signal = AbortSignal.any([ended, late.signal])
    try {
      const answer =
        (login?.kind === 'identity' ? await this.#post(service, scopes, login, signal) : undefined) ??
        (await this.#get(service, scopes, login, signal))
      if (answer.status !== 200) throw await this.#refused(answer, login, about)
      const bytes = await readBody(answer, limits.tokenBody, limits.token, signal)
      if (bytes === undefined)
        throw this.#denied(`its token service's answer is larger than ${limits.tokenBody} bytes`)
      return this.#read(bytes, realm)
    } catch (error) {
      ended.throwIfAborted()
      if (late.signal.aborted) {
        throw this.#denied(`its token service ${place(realm)} did not answer within ${limits.token / 1000} s`)
      }
      throw unreachable(error, { ...about, host: `${host}'s token service ${realm.host}` }, secrets)
    } finally {
      clearTimeout(timer)
    }
  }

  async #refused(answer: Answer, login: Login | undefined, about: About): Promise<CaissonError | Passing> {
    const { limits, secrets, host } = this.#frame
    if (login === undefined || (answer.status !== 401 && answer.status !== 403)) {
      return refusal(answer, about, limits, secrets)
    }
    const own = await words(answer, limits, secrets)
    return this.#denied(
      `its token service does not take the user name, password or token${own === '' ? '' : `: ${own}`}; 'caisson login ${host}' renews it`,
    )
  }

  /** The OAuth form. Undefined where the service does not know it: then the other form is asked. */
  async #post(
    { realm, service }: Service,
    scopes: readonly Scope[],
    login: Login & { kind: 'identity' },
    signal: AbortSignal,
  ): Promise<Answer | undefined> {
    const form = new URLSearchParams({ grant_type: 'refresh_token', client_id: 'caisson' })
    if (service !== undefined) form.set('service', service)
    if (scopes.length > 0) form.set('scope', scopes.join(' '))
    form.set('refresh_token', login.token)
    const answer = await this.#frame.client.exchange({
      method: 'POST',
      url: realm,
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
      body: Buffer.from(form.toString()),
      signal,
    })
    if (![400, 401, 404, 405].includes(answer.status)) return answer
    discard(answer.response)
    return undefined
  }

  async #get(
    { realm, service }: Service,
    scopes: readonly Scope[],
    login: Login | undefined,
    signal: AbortSignal,
  ): Promise<Answer> {
    const url = new URL(realm)
    if (service !== undefined) url.searchParams.set('service', service)
    for (const scope of scopes) url.searchParams.append('scope', scope)
    const headers: Record<string, string> = {}
    if (login?.kind === 'password') {
      url.searchParams.set('account', login.username)
      headers.authorization = this.#passwordHeader(login) ?? ''
    } else if (login?.kind === 'identity') {
      headers.authorization = `Basic ${Buffer.from(`${login.username ?? ''}:${login.token}`).toString('base64')}`
    }
    return this.#frame.client.exchange({ method: 'GET', url, headers, signal })
  }

  #read(bytes: Buffer, realm: URL): Token {
    const fields = parseObject(bytes) ?? {}
    const value = word(fields, 'token') ?? word(fields, 'access_token')
    // It goes into a header: visible ASCII.
    if (value === undefined || value.length > mostTokenLength || !/^[\x21-\x7e]+$/.test(value)) {
      throw this.#denied(`its token service ${place(realm)} answered without a token`)
    }
    this.#frame.secrets.add(value)
    this.#frame.secrets.add(word(fields, 'refresh_token'))
    const lasts = field(fields, 'expires_in')
    // Below 60 s it means 60 (distribution's documentation of token authentication); a little less, for the way.
    const seconds = typeof lasts === 'number' && lasts > 60 ? Math.min(lasts, 86_400) : 60
    return { value, expires: Date.now() + seconds * 900 }
  }
}
