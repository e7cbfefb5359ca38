/** Names that become part of a URL: checked before they do, whoever gave them. */
import { CaissonError } from '../errors.ts'
import { said } from './said.ts'

/** What a request is about: a blob's name and its exact size in bytes. */
export interface BlobDescriptor {
  /** `sha256:` and 64 lower-case hex digits. */
  digest: string
  size: number
}

/** Components of a repository's name, as distribution-spec has them. Each takes at least one character: no backtracking. */
const repository = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:\/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$/
const tag = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/
const digest = /^(?:sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128})$/
const host = /^(?:\[[0-9a-f:.]{2,45}\]|[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?)(?::([0-9]{1,5}))?$/i

function refused(what: string, name: string, why: string): CaissonError {
  return new CaissonError('ERR_INVALID_OPTION', `image: '${said(name, 300)}' ${why}`, { subject: what })
}

/** A registry's name: `HOST[:PORT]`, lower case from here on. The names of Docker's Hub are all `docker.io`. */
export function checkHost(name: string): string {
  const port = host.exec(name)
  if (port === null || Number(port[1] ?? 1) > 65_535 || name.includes('..')) {
    throw refused('registry', name, 'is no registry: HOST[:PORT]')
  }
  const lower = name.toLowerCase()
  return lower === 'index.docker.io' || lower === 'registry-1.docker.io' ? 'docker.io' : lower
}

/** @throws CaissonError ERR_INVALID_OPTION for what is no repository's name. */
export function checkRepository(name: string): string {
  if (name.length > 255 || !repository.test(name)) {
    throw refused('name', name, 'is no name of a repository: lower-case words with . _ - between, and /')
  }
  return name
}

/** A digest that this client can verify. @throws CaissonError ERR_DIGEST, ERR_UNSUPPORTED for SHA-512. */
export function checkDigest(name: string): string {
  if (name.startsWith('sha512:') && digest.test(name)) {
    throw new CaissonError('ERR_UNSUPPORTED', 'SHA-512 digests are not supported yet', { subject: 'digest' })
  }
  if (digest.test(name)) return name
  throw new CaissonError('ERR_DIGEST', `'${said(name, 100)}' is no digest`, { subject: 'digest' })
}

/** A tag, or a digest. @throws CaissonError ERR_INVALID_OPTION, ERR_DIGEST, ERR_UNSUPPORTED. */
export function checkReference(name: string): string {
  if (isTag(name)) return name
  if (name.includes(':')) return checkDigest(name)
  throw refused('tag', name, 'is no tag')
}

export function isTag(name: string): boolean {
  return tag.test(name)
}

/** @throws CaissonError ERR_DIGEST for a malformed digest, ERR_INVALID_OPTION for what is no number of bytes. */
export function checkBlob({ digest: name, size }: BlobDescriptor): void {
  checkDigest(name)
  if (!Number.isSafeInteger(size) || size < 0) throw refused('size', String(size), 'is no number of bytes')
}

export function isDigest(name: string): boolean {
  return digest.test(name)
}
