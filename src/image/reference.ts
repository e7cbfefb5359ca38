/**
 * What a person calls an image: `oci:DIR[:TAG]`, an OCI image layout of this machine; else a name in a registry,
 * `[HOST[:PORT]/]PATH[:TAG][@DIGEST]`, as docker reads it. ASCII alone, one default registry, no search list, so that no
 * look-alike names another image (security.md D13).
 */
import { resolve } from 'node:path'
import { CaissonError } from '../errors.ts'
import { checkDigest } from './manifest.ts'

/** An image in a layout. */
export interface LayoutReference {
  /** The layout's directory, absolute. */
  directory: string
  /** The tag; none: the layout's one image. */
  tag: string | undefined
}

/** An image in a registry. */
export interface RegistryReference {
  /** The registry: `docker.io`, `localhost:5000`. */
  domain: string
  /** The repository in it: `library/debian`. */
  path: string
  /** None where a digest decides. */
  tag: string | undefined
  digest: string | undefined
}

const scheme = 'oci:'

/** distribution's tags, and what umoci allows more. */
const layoutTags = /^[A-Za-z0-9_][A-Za-z0-9_.+@-]{0,127}$/
const tags = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/
const domains =
  /^(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?$/
const component = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/
const longestName = 255

const hub = 'docker.io'
/** Where images of no one in particular are on docker.io. */
const library = 'library/'

function refuse(reference: string, message: string): CaissonError {
  const shown = JSON.stringify(reference.slice(0, 300)).slice(1, -1)
  return new CaissonError('ERR_INVALID_OPTION', `image: '${shown}' ${message}`, { subject: 'image' })
}

/** Whether it is a layout's. */
export function isLayout(reference: string): boolean {
  return reference.startsWith(scheme)
}

/**
 * Reads the reference of a layout. The tag is what stands behind the last colon after the last slash, so a directory may
 * have colons in its name if a slash follows: `oci:/images/a:b/`.
 *
 * @throws CaissonError ERR_INVALID_OPTION for a malformed one.
 */
export function parseReference(reference: string): LayoutReference {
  const rest = reference.slice(scheme.length)
  const colon = rest.indexOf(':', rest.lastIndexOf('/') + 1) === -1 ? -1 : rest.lastIndexOf(':')
  const directory = colon === -1 ? rest : rest.slice(0, colon)
  const tag = colon === -1 ? undefined : rest.slice(colon + 1)
  if (directory === '') throw refuse(reference, 'names no directory: oci:DIR[:TAG]')
  if (directory.includes('\0')) throw refuse(reference, 'holds a NUL')
  if (tag !== undefined && !layoutTags.test(tag)) throw refuse(reference, `has no valid tag: '${tag}'`)
  return { directory: resolve(directory), tag }
}

/** The registry and the path in it: docker's rule of what a domain is. */
function split(name: string): { domain: string; path: string } {
  const slash = name.indexOf('/')
  const first = slash === -1 ? '' : name.slice(0, slash)
  if (/[.:A-Z]/.test(first) || first === 'localhost') {
    const domain = first === 'index.docker.io' ? hub : first
    return { domain, path: name.slice(slash + 1) }
  }
  return { domain: hub, path: name }
}

/**
 * Reads a name in a registry. Without a tag and a digest it means `latest`; beside a digest a tag says nothing.
 * @throws CaissonError ERR_INVALID_OPTION for a malformed one.
 */
export function parseName(reference: string): RegistryReference {
  // A program in JavaScript may give anything.
  const value: unknown = reference
  if (typeof value !== 'string')
    throw refuse(String(value), `a value of type string is wanted, not ${typeof value}`)
  const at = reference.indexOf('@')
  const digest = at === -1 ? undefined : reference.slice(at + 1)
  const named = at === -1 ? reference : reference.slice(0, at)
  const colon = named.indexOf(':', named.lastIndexOf('/') + 1)
  const tag = colon === -1 ? undefined : named.slice(colon + 1)
  const name = colon === -1 ? named : named.slice(0, colon)
  if (/^[a-f0-9]{64}$/.test(reference)) throw refuse(reference, 'is an id, no name')
  const { domain, path: given } = split(name)
  const path = domain === hub && !given.includes('/') ? library + given : given
  if (path !== path.toLowerCase()) throw refuse(reference, 'must be lower case')
  if (!domains.test(domain) || !path.split('/').every((part) => component.test(part)))
    throw refuse(reference, 'is no valid name of an image: [HOST[:PORT]/]PATH[:TAG][@DIGEST]')
  if (domain.length + 1 + path.length > longestName) throw refuse(reference, `is longer than ${longestName}`)
  if (tag !== undefined && !tags.test(tag)) throw refuse(reference, 'has no valid tag')
  if (digest !== undefined) checkDigest(digest, `image: '${name}'`)
  return { domain, path, tag: digest === undefined ? (tag ?? 'latest') : undefined, digest }
}

/** The whole name: `docker.io/library/debian:12`. It is the image's name in the store. */
export function fullName({ domain, path, tag, digest }: RegistryReference): string {
  return `${domain}/${path}${digest === undefined ? `:${tag}` : `@${digest}`}`
}

/** The repository, as people write it: `debian`. */
export function familiar({ domain, path }: Pick<RegistryReference, 'domain' | 'path'>): string {
  if (domain !== hub) return `${domain}/${path}`
  return path.startsWith(library) && !path.slice(library.length).includes('/')
    ? path.slice(library.length)
    : path
}

/** `debian:12`, `debian@sha256:…`: a whole name as people write it. */
export function showName(name: string): string {
  const reference = parseName(name)
  return familiar(reference) + (reference.digest === undefined ? `:${reference.tag}` : `@${reference.digest}`)
}
