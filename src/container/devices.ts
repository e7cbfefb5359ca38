/** Devices of this machine in a container: a node, and a rule that lets it be opened. */
import { statSync } from 'node:fs'
import type { Stats } from 'node:fs'
import { idMap } from '../state/ids.ts'
import type { SpecMount } from './defaults.ts'
import { refuse } from '../errors.ts'
import { bare } from './options.ts'
import type { DeviceOption, RunOptions } from './options.ts'

/** A device's numbers, as st_rdev packs them (gnu_dev_major(3)). */
export function deviceNumbers(rdev: number): { major: number; minor: number } {
  const packed = BigInt(rdev)
  const major = ((packed >> 8n) & 0xfffn) | ((packed >> 32n) & 0xfffff000n)
  const minor = (packed & 0xffn) | ((packed >> 12n) & 0xffffff00n)
  return { major: Number(major), minor: Number(minor) }
}

/** `host[:container[:permissions]]`, or `host:permissions`. */
function parse(word: string): DeviceOption {
  const [host = '', second, third, ...more] = word.split(':')
  if (more.length > 0) throw refuse('devices', `'${word}' has too many colons`)
  if (second !== undefined && third === undefined && /^[rwm]+$/.test(second))
    return { host, permissions: second }
  return {
    host,
    ...(second !== undefined && { container: second }),
    ...(third !== undefined && { permissions: third }),
  }
}

/** A device by its path. */
export function device(
  option: string,
  path: string,
): { stats: Stats; type: 'b' | 'c'; major: number; minor: number } {
  let stats: Stats
  try {
    stats = statSync(path)
  } catch (error) {
    throw refuse(
      option,
      `${path}: ${error instanceof Error && 'code' in error ? String(error.code) : 'cannot be read'}`,
    )
  }
  if (!stats.isBlockDevice() && !stats.isCharacterDevice()) throw refuse(option, `${path} is not a device`)
  return { stats, type: stats.isBlockDevice() ? 'b' : 'c', ...deviceNumbers(stats.rdev) }
}

/** Nodes and rules; or for a user, who can make no node, mounts. */
export function deviceNodes(options: RunOptions): { nodes: object[]; rules: object[]; bound: SpecMount[] } {
  const nodes: object[] = []
  const rules: object[] = []
  const bound: SpecMount[] = []
  const mapped = idMap().kind !== 'root'
  for (const given of options.devices ?? []) {
    const {
      host,
      container = host,
      permissions = 'rwm',
    } = typeof given === 'string' ? bare(parse(given)) : given
    if (!/^[rwm]+$/.test(permissions)) throw refuse('devices', `'${permissions}' is not made of r, w and m`)
    const { stats, type, major, minor } = device('devices', host)
    if (mapped) {
      if (!permissions.includes('r') || !permissions.includes('w'))
        throw refuse(
          'devices',
          `'${permissions}' of ${host} needs root: a user's container has rw, or nothing`,
        )
      bound.push({
        destination: container,
        type: 'bind',
        source: host,
        options: ['bind', 'rprivate', 'nosuid', 'noexec'],
      })
      continue
    }
    nodes.push({
      path: container,
      type,
      major,
      minor,
      fileMode: stats.mode & 0o777,
      uid: stats.uid,
      gid: stats.gid,
    })
    rules.push({ allow: true, type, major, minor, access: permissions })
  }
  return { nodes, rules, bound }
}
