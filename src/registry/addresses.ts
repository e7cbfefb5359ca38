/** Addresses that are near: this machine's own services, which no registry elsewhere may send us to (security.md D10). */
import { lookup as resolve } from 'node:dns'
import type { LookupAddress, LookupOptions } from 'node:dns'
import { BlockList, isIP } from 'node:net'

/** How near an address is: nearer ones are for registries that are there themselves. */
export type Nearness = 'loopback' | 'link-local' | 'far'

const loopback = new BlockList()
loopback.addSubnet('127.0.0.0', 8, 'ipv4')
// "This host": Linux connects it to loopback.
loopback.addSubnet('0.0.0.0', 8, 'ipv4')
loopback.addAddress('::1', 'ipv6')
loopback.addAddress('::', 'ipv6')
const linkLocal = new BlockList()
linkLocal.addSubnet('169.254.0.0', 16, 'ipv4')
linkLocal.addSubnet('fe80::', 10, 'ipv6')
// Not link-local, but the same thing: where a cloud hands out its machines' credentials.
linkLocal.addAddress('fd00:ec2::254', 'ipv6')

/** A host of a URL without an IPv6 address's brackets. */
export function bare(hostname: string): string {
  return hostname.startsWith('[') ? hostname.slice(1, -1) : hostname
}

/** How near a host is, as far as its name says: names other than `localhost` are far until they are resolved. */
export function nearness(hostname: string): Nearness {
  const host = bare(hostname)
  const family = isIP(host)
  if (family === 0) return /^(?:.*\.)?localhost\.?$/i.test(host) ? 'loopback' : 'far'
  const kind = family === 4 ? 'ipv4' : 'ipv6'
  // An IPv4 address in IPv6's clothes is checked by the rules for IPv4 too.
  if (loopback.check(host, kind)) return 'loopback'
  return linkLocal.check(host, kind) ? 'link-local' : 'far'
}

/** Whether somebody at `from` may send us to `to`. */
export function mayLead(from: Nearness, to: Nearness): boolean {
  return to === 'far' || from === to
}

type Answer = (error: Error | null, address: string | LookupAddress[], family?: number) => void

/**
 * A resolver for places that a registry chose: what resolves to an address nearer than `from` allows is not connected to.
 * The check is on the very addresses that are connected to, so a name that changes its mind gains nothing.
 */
export function guardedLookup(from: Nearness) {
  return (hostname: string, options: LookupOptions, answer: Answer): void => {
    resolve(hostname, options, (error, address: string | LookupAddress[], family) => {
      if (error !== null) {
        answer(error, '')
        return
      }
      const all = typeof address === 'string' ? [address] : address.map((one) => one.address)
      const wrong = all.find((one) => !mayLead(from, nearness(one)))
      if (wrong === undefined) answer(null, address, family)
      else answer(new NearError(hostname, wrong), '')
    })
  }
}

/** A place that a registry chose is nearer than it may be. */
export class NearError extends Error {
  constructor(hostname: string, address: string) {
    super(`${bare(hostname)} is ${address}, an address of this machine's own network: not followed there`)
  }
}
