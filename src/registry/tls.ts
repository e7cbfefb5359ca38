/** How a connection to a registry is secured. */
// As a whole: a name that Node 22.14 does not have could not be imported there.
import tls from 'node:tls'
import type { SecureContext, SecureContextOptions } from 'node:tls'
import { CaissonError } from '../errors.ts'

/** PEM texts, and whether the other side must prove who it is. */
export interface Tls {
  /** Certificates of authorities, besides those that Node trusts. */
  ca: readonly string[]
  /** The client's certificate and its key. */
  client: { cert: string; key: string } | undefined
  /** False: nothing is verified. */
  verified: boolean
}

export const plainTls: Readonly<Tls> = { ca: [], client: undefined, verified: true }

/** Node's codes for a chain that ends at nobody we know. */
const untrusted: ReadonlySet<string> = new Set([
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
])

export function isUntrusted(code: string | undefined): boolean {
  return code !== undefined && untrusted.has(code)
}

/** Whether this error says that a certificate is not good, in whatever way. */
export function isCertificate(code: string | undefined): boolean {
  return isUntrusted(code) || (code?.startsWith('CERT_') ?? false) || code === 'ERR_TLS_CERT_ALTNAME_INVALID'
}

/**
 * The context of a connection. With `system`, this machine's authorities count too: Node has its own list, and reading the
 * machine's takes a tenth of a second, so it is done when Node's does not suffice.
 * @throws CaissonError ERR_INVALID_OPTION for texts that are no certificates, or a key of another one.
 */
export function context({ ca, client }: Tls, system: boolean): SecureContext {
  const own = client === undefined ? {} : { cert: client.cert, key: client.key }
  if (ca.length === 0 && !system) return made(own)
  // Node 22.15; before it there is Node's list only.
  const known = tls.getCACertificates as typeof tls.getCACertificates | undefined
  const lists =
    known === undefined ? tls.rootCertificates : [...known('default'), ...(system ? known('system') : [])]
  return made({ ...own, ca: [...new Set([...lists, ...ca])] })
}

function made(options: SecureContextOptions): SecureContext {
  try {
    return tls.createSecureContext(options)
  } catch (error) {
    const why = error instanceof Error && 'code' in error ? `: ${String(error.code)}` : ''
    const message = `registries: a certificate or key of its configuration cannot be used${why}`
    throw new CaissonError('ERR_INVALID_OPTION', message, { subject: 'registries' })
  }
}
