/** Whether a request goes through a proxy: HTTPS_PROXY, HTTP_PROXY, NO_PROXY, as Node's agents read them. */
import { CaissonError } from '../errors.ts'
import { bare, nearness } from './addresses.ts'
import type { Environment } from './places.ts'

/** Whether this Node's agents know proxies: from 22.21 and 24.5 on. */
export function knowsProxies(version: string = process.versions.node): boolean {
  const [major = 0, minor = 0] = version.split('.').map(Number)
  if (major === 22) return minor >= 21
  return major === 24 ? minor >= 5 : major > 24
}

/** Whether NO_PROXY names this host: itself, a domain that it is in, or `*`; a port must be the port. */
function isExempt(url: URL, list: string): boolean {
  const host = bare(url.hostname)
  const port = url.port === '' ? (url.protocol === 'https:' ? '443' : '80') : url.port
  return list.split(/[\s,]+/).some((word) => {
    if (word === '*') return true
    const [, name = '', only] = /^\*?\.?(.*?)(?::([0-9]+))?$/.exec(word.toLowerCase()) ?? []
    if (name === '' || (only !== undefined && only !== port)) return false
    return host === name || host.endsWith(`.${name}`)
  })
}

/**
 * The proxy for this URL, a URL itself; undefined for none. What is on this machine never needs one.
 * @throws CaissonError ERR_UNSUPPORTED with the variable's name where this Node cannot.
 */
export function proxyOf(url: URL, env: Environment, version?: string): string | undefined {
  const names = url.protocol === 'https:' ? ['https_proxy', 'HTTPS_PROXY'] : ['http_proxy', 'HTTP_PROXY']
  const name = names.find((one) => env[one] !== undefined && env[one] !== '')
  if (name === undefined || nearness(url.hostname) === 'loopback') return undefined
  if (isExempt(url, env.no_proxy ?? env.NO_PROXY ?? '')) return undefined
  if (knowsProxies(version)) return env[name]
  throw new CaissonError(
    'ERR_UNSUPPORTED',
    `${name} is set, but Node ${version ?? process.versions.node} knows no proxies: use 22.21, 24.5 or later, or add ${bare(url.hostname)} to NO_PROXY`,
    { subject: name },
  )
}
