/** What a registry's refusals become: one error, with its own words made harmless and what to do. */
import { CaissonError } from '../errors.ts'
import { readBody } from './bodies.ts'
import type { Answer } from './request.ts'
import { field, isObject, parseObject, word } from './json.ts'
import type { Limits } from './limits.ts'
import type { Secrets } from './said.ts'
import { isCertificate, isUntrusted } from './tls.ts'
import { Unreachable } from './unreachable.ts'

/** What an error is about. */
export interface About {
  /** The registry: `HOST[:PORT]`. */
  host: string
  /** The repository, image or blob: what the error's `subject` is. */
  subject: string
  /** The repository on this server: whose login is looked for. */
  repository?: string
  /** Why no login was found that might be there. */
  trouble?: string | undefined
  /** `pull` or `push`: what was refused. */
  action: 'pull' | 'push'
  /** The error's code where the answer is 404. Default ERR_REGISTRY. */
  missing?: 'ERR_IMAGE_NOT_FOUND'
}

/** A failure that may pass if one waits. `error` is what is thrown if it does not. */
export class Passing extends Error {
  readonly error: CaissonError
  /** What the server said one should wait, in milliseconds. */
  readonly after: number | undefined
  constructor(error: CaissonError, after?: number) {
    super(error.message, { cause: error })
    this.error = error
    this.after = after
  }
}

/** What the registry says in its error body (distribution-spec, "Error Codes"): codes and messages, or nothing. */
export async function words(answer: Answer, limits: Limits, secrets: Secrets): Promise<string> {
  let bytes: Buffer | undefined
  try {
    bytes = await readBody(answer, limits.errorBody, 5000)
  } catch {
    return ''
  }
  const errors = bytes && field(parseObject(bytes) ?? {}, 'errors')
  if (!Array.isArray(errors)) return ''
  const lines = errors.slice(0, 5).flatMap((one: unknown) => {
    if (!isObject(one)) return []
    const [code, message] = [word(one, 'code')?.toLowerCase(), word(one, 'message')]
    return [[code, message].filter((text) => text !== undefined && text !== '').join(': ')]
  })
  return secrets.redact(lines.join('; '))
}

/** Milliseconds of a Retry-After header: seconds, or a date. */
export function retryAfter(header: string | undefined, now: number = Date.now()): number | undefined {
  if (header === undefined) return undefined
  if (/^[0-9]{1,9}$/.test(header)) return Number(header) * 1000
  const date = Date.parse(header)
  return Number.isNaN(date) ? undefined : Math.max(0, date - now)
}

/**
 * The error for an answer that is none of those that were wanted. Reads its body to the end or destroys it.
 * @returns CaissonError, or {@link Passing} for what may pass: 408, 429, 5xx.
 */
export async function refusal(
  answer: Answer,
  about: About,
  limits: Limits,
  secrets: Secrets,
): Promise<CaissonError | Passing> {
  const { status, response } = answer
  const { host, subject, action } = about
  const after = retryAfter(response.headers['retry-after'])
  const own = await words(answer, limits, secrets)
  const tail = own === '' ? '' : `: ${own}`
  const details = { stage: action === 'push' ? 'push' : 'resolve', subject }
  if (status === 401 || status === 403) {
    const message = `${subject}: ${action} access denied (${status})${tail}; it does not exist, or needs 'caisson login ${host}'${about.trouble === undefined ? '' : ` (${secrets.redact(about.trouble)})`}`
    return new CaissonError('ERR_REGISTRY_AUTH', message, details)
  }
  if (status === 404 && about.missing !== undefined) {
    return new CaissonError(about.missing, `${subject}: not found in ${host}${tail}`, details)
  }
  if (status === 429) {
    const wait = after === undefined ? 'later' : `in ${Math.ceil(after / 1000)} s`
    const message = `${subject}: too many requests (429)${tail}; try again ${wait}, or log in: caisson login ${host}`
    return new Passing(new CaissonError('ERR_REGISTRY', message, details), after)
  }
  const error = new CaissonError('ERR_REGISTRY', `${subject}: ${host} answered ${status}${tail}`, details)
  return status === 408 || status >= 500 ? new Passing(error, after) : error
}

const passing: ReadonlySet<string> = new Set([
  'ECONNRESET',
  'ECONNREFUSED',
  'ECONNABORTED',
  'EPIPE',
  'ETIMEDOUT',
  'EAI_AGAIN',
  'ENETUNREACH',
  'EHOSTUNREACH',
])

/** The error for no answer at all; anything that is no {@link Unreachable} as it is. */
export function unreachable(error: unknown, about: About, secrets: Secrets): unknown {
  if (!(error instanceof Unreachable)) return error
  const { host, subject, action } = about
  const why = secrets.redact(error.message)
  // Not the error itself: Node's own names a proxy with its password.
  const cause = new Unreachable(why, error.code, undefined)
  const details = { stage: action === 'push' ? 'push' : 'resolve', subject, cause }
  if (isCertificate(error.code)) {
    const advice = isUntrusted(error.code)
      ? `; if its authority is yours, put it into /etc/docker/certs.d/${host}/ca.crt, or name it as "ca" in registries.json`
      : ''
    const message = `${subject}: the certificate of ${host} is not good: ${why}${advice}`
    return new CaissonError('ERR_REGISTRY', message, details)
  }
  const failure = new CaissonError('ERR_REGISTRY', `${subject}: ${host} cannot be reached: ${why}`, details)
  return error.code !== undefined && passing.has(error.code) ? new Passing(failure) : failure
}
