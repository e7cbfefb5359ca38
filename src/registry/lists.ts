/** What a registry lists: a repository's tags, and what refers to a manifest. Page after page, and bounded. */
import { CaissonError } from '../errors.ts'
import { readBody } from './bodies.ts'
import type { About } from './failure.ts'
import { unreachable } from './failure.ts'
import { isSameOrigin } from './http.ts'
import { field, isObject, parseObject, word } from './json.ts'
import type { Fields } from './json.ts'
import type { Limits } from './limits.ts'
import { isDigest, isTag } from './names.ts'
import type { Answer } from './request.ts'
import { retrying } from './retry.ts'
import type { Secrets } from './said.ts'
import type { Server } from './server.ts'

/** What the list of what refers to a manifest is (OCI distribution spec, listing referrers). */
const indexType = 'application/vnd.oci.image.index.v1+json'

/** The tags that are asked for at a time; registries refuse many more. */
const pageOf = 1000

/** The registry itself, not its mirrors: what they list may be old. */
export interface Upstream {
  host: string
  server: Server
  limits: Limits
  secrets: Secrets
}

/** A manifest that refers to another one: a signature, an attestation, a bill of materials. */
export interface Referrer {
  mediaType: string
  digest: string
  size: number
  artifactType: string | undefined
  annotations: Readonly<Record<string, string>>
}

/** The URL of the next page, by the Link headers (RFC 8288). */
export function nextLink(headers: readonly string[]): string | undefined {
  for (const header of headers) {
    for (const [, url, parameters = ''] of header.matchAll(/<([^<>]*)>([^<]*)/g)) {
      if (/;\s*rel\s*=\s*(?:"(?:[^"]*\s)?next(?:\s[^"]*)?"|next\b)/i.test(parameters)) return url
    }
  }
  return undefined
}

/** The documents of a list. @throws CaissonError ERR_IMAGE_LIMIT for too many pages, ERR_REGISTRY for a page elsewhere. */
async function* pages(
  { server, limits, secrets }: Upstream,
  first: string,
  about: About & { repository: string },
  options: { accept: string; wanted: readonly number[]; signal: AbortSignal | undefined },
): AsyncGenerator<{ fields: Fields; answer: Answer }> {
  const { signal, wanted } = options
  const scopes = [`repository:${about.repository}:pull`]
  let path: string | URL = first
  for (let count = 0; count < limits.pages; count += 1) {
    const asked: string | URL = path
    const { answer, bytes } = await retrying(limits, signal, async () => {
      // Debian's registry answers 404 to who does not say that he takes an index.
      const headers = { accept: options.accept }
      const got = await server.ask({ method: 'GET', path: asked, headers, scopes, wanted, about, signal })
      try {
        return { answer: got, bytes: await readBody(got, limits.page, limits.document, signal) }
      } catch (error) {
        throw unreachable(error, about, secrets)
      }
    })
    const details = { stage: 'resolve', subject: about.subject }
    if (bytes === undefined) {
      const message = `${about.subject}: a page of its list is larger than ${limits.page} bytes`
      throw new CaissonError('ERR_IMAGE_LIMIT', message, details)
    }
    const fields = parseObject(bytes)
    if (fields === undefined && answer.status === 200)
      throw new CaissonError('ERR_REGISTRY', `${about.subject}: its list is not JSON`, details)
    yield { fields: fields ?? {}, answer }
    const link = nextLink(answer.response.headersDistinct.link ?? [])
    if (link === undefined || answer.status !== 200) return
    path = server.lead(answer.url, link)
    // What is shown to the registry is for its API.
    if (!isSameOrigin(path, server.origin) || !path.pathname.startsWith('/v2/')) {
      throw new CaissonError(
        'ERR_REGISTRY',
        `${about.subject}: the next page of its list is elsewhere`,
        details,
      )
    }
  }
  const message = `${about.subject}: its list has more than ${limits.pages} pages`
  throw new CaissonError('ERR_IMAGE_LIMIT', message, { stage: 'resolve', subject: about.subject })
}

/** A repository's tags, in the registry's order, at most `limit`; what is no tag is left out. */
export async function listTags(
  upstream: Upstream,
  name: string,
  limit: number | undefined,
  signal: AbortSignal | undefined,
): Promise<string[]> {
  const { host, limits } = upstream
  const subject = `${host}/${name}`
  const about: About & { repository: string } = {
    host,
    subject,
    repository: name,
    action: 'pull',
    missing: 'ERR_IMAGE_NOT_FOUND',
  }
  const tags: string[] = []
  const first = `${name}/tags/list${limit === undefined ? '' : `?n=${Math.min(limit, pageOf)}`}`
  for await (const { fields } of pages(upstream, first, about, {
    accept: 'application/json',
    wanted: [200],
    signal,
  })) {
    const listed = field(fields, 'tags') ?? []
    if (!Array.isArray(listed)) {
      throw new CaissonError('ERR_REGISTRY', `${subject}: ${host} lists no tags`, {
        stage: 'resolve',
        subject,
      })
    }
    for (const tag of listed as unknown[]) if (typeof tag === 'string' && isTag(tag)) tags.push(tag)
    // Some registries do not look at what is asked for.
    if (limit !== undefined && tags.length >= limit) return tags.slice(0, limit)
    if (tags.length > limits.tags) {
      const message = `${subject}: has more than ${limits.tags} tags`
      throw new CaissonError('ERR_IMAGE_LIMIT', message, { stage: 'resolve', subject })
    }
  }
  return tags
}

function referrer(value: unknown): Referrer | undefined {
  if (!isObject(value)) return undefined
  const [mediaType, digest, size] = [word(value, 'mediaType'), word(value, 'digest'), field(value, 'size')]
  if (mediaType === undefined || digest === undefined || !isDigest(digest)) return undefined
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) return undefined
  const given = field(value, 'annotations')
  const pairs = Object.entries(isObject(given) ? given : {}).filter((pair) => typeof pair[1] === 'string')
  const annotations = Object.fromEntries(pairs) as Record<string, string>
  return { mediaType, digest, size, artifactType: word(value, 'artifactType'), annotations }
}

/**
 * What refers to a manifest. A registry without that list has it as an index under a tag, `sha256-HEX`.
 * What is no descriptor is left out; none is no error.
 */
export async function listReferrers(
  upstream: Upstream,
  name: string,
  digest: string,
  artifactType: string | undefined,
  signal: AbortSignal | undefined,
): Promise<Referrer[]> {
  const { host, limits } = upstream
  const about: About & { repository: string } = {
    host,
    subject: `${host}/${name}@${digest}`,
    repository: name,
    action: 'pull',
  }
  const query = artifactType === undefined ? '' : `?artifactType=${encodeURIComponent(artifactType)}`
  const options = { accept: `${indexType}, application/json`, wanted: [200, 404], signal }
  let found: Referrer[] = []
  for (const path of [`referrers/${digest}${query}`, `manifests/${digest.replace(':', '-')}`]) {
    let missing = false
    found = []
    for await (const { fields, answer } of pages(upstream, `${name}/${path}`, about, options)) {
      missing = answer.status === 404
      const listed = field(fields, 'manifests')
      for (const one of missing || !Array.isArray(listed) ? [] : (listed as unknown[])) {
        const entry = referrer(one)
        if (entry !== undefined) found.push(entry)
      }
      if (found.length > limits.tags) {
        const message = `${about.subject}: more than ${limits.tags} manifests refer to it`
        throw new CaissonError('ERR_IMAGE_LIMIT', message, { stage: 'resolve', subject: about.subject })
      }
    }
    if (!missing) break
  }
  // Whether the server looked at the filter or not.
  return artifactType === undefined ? found : found.filter((one) => one.artifactType === artifactType)
}
