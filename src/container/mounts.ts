/** The mounts of a container: its own, the engine's files, the caller's. */
import { engineFiles, shmSize, defaultMounts } from './defaults.ts'
import type { SpecMount } from './defaults.ts'
import { idMap } from '../state/ids.ts'
import { refuse } from '../errors.ts'
import { bare } from './options.ts'
import type { MountOption, RunOptions } from './options.ts'
import { bytes } from '../state/sizes.ts'
import { constant } from './constant.ts'

/** An absolute path without `.`, `..` and doubled slashes. */
function clean(option: string, path: unknown): string {
  if (typeof path !== 'string' || !path.startsWith('/'))
    throw refuse(option, `'${String(path)}' is not an absolute path`)
  const parts: string[] = []
  for (const part of path.split('/')) {
    if (part === '..') parts.pop()
    else if (part !== '' && part !== '.') parts.push(part)
  }
  if (parts.length === 0) throw refuse(option, "destination can't be '/'")
  return `/${parts.join('/')}`
}

const propagations = new Set(['private', 'rprivate', 'slave', 'rslave', 'shared', 'rshared'])

function ofOption(mount: MountOption): SpecMount {
  const destination = clean('mounts', mount.target)
  if (mount.type === 'tmpfs') {
    if (mount.source !== undefined) throw refuse('mounts', 'a tmpfs has no source')
    const mode = (mount.mode ?? 0o1777).toString(8)
    const size = mount.size === undefined ? [] : [`size=${bytes('mounts', mount.size)}`]
    const options = [
      'nosuid',
      'nodev',
      'noexec',
      `mode=${mode}`,
      ...size,
      ...(mount.readOnly === true ? ['ro'] : []),
    ]
    return { destination, type: 'tmpfs', source: 'tmpfs', options }
  }
  const type: string = mount.type
  if (type !== 'bind') throw refuse('mounts', `'${type}' is neither bind nor tmpfs`)
  if (mount.size !== undefined || mount.mode !== undefined)
    throw refuse('mounts', 'size and mode are a tmpfs’s')
  if (mount.source === undefined || !mount.source.startsWith('/')) {
    throw refuse('mounts', `'${mount.source ?? ''}' is not an absolute path`)
  }
  const propagation = mount.propagation ?? 'rprivate'
  if (!propagations.has(propagation)) throw refuse('mounts', `'${propagation}' is no propagation`)
  const options = [mount.recursive === false ? 'bind' : 'rbind', propagation]
  // Recursive read-only: what is mounted below the source is read-only too, unlike docker before 25.
  if (mount.readOnly === true) options.push('ro', ...(mount.recursive === false ? [] : ['rro']))
  return { destination, type: 'bind', source: mount.source, options }
}

/** Docker's text of a tmpfs: mount options, the last wins over nosuid, nodev and noexec. */
function ofTmpfs(target: string, text: string): SpecMount {
  const given = text.split(',').filter((option) => option !== '')
  const options = given.map((option) => {
    const [key, value] = option.split('=', 2)
    return key === 'size' && value !== undefined && !value.endsWith('%')
      ? `size=${bytes('tmpfs', value)}`
      : option
  })
  const mode = options.some((option) => option.startsWith('mode=')) ? [] : ['mode=1777']
  return {
    destination: clean('tmpfs', target),
    type: 'tmpfs',
    source: 'tmpfs',
    options: ['nosuid', 'nodev', 'noexec', ...mode, ...options],
  }
}

function depth(mount: SpecMount): number {
  return mount.destination.split('/').length
}

/**
 * All mounts in the order in which they are made. A mount of the caller's replaces the container's own at the same place;
 * one at /dev all of those below it.
 */
export function mounts(options: RunOptions, rootMounts: readonly SpecMount[]): readonly SpecMount[] {
  const { mounts: bound, tmpfs, readOnly, shmSize: size, network } = options
  const plain =
    bound === undefined &&
    tmpfs === undefined &&
    readOnly !== true &&
    size === undefined &&
    network !== 'host'
  if (!plain || rootMounts.length > 0) return arranged(options, rootMounts)
  unchanged ??= constant(arranged(bare({}), []))
  return unchanged
}

/** Those of most runs: equal objects are made once, and written once (constant.ts). */
let unchanged: readonly SpecMount[] | undefined

/** A user cannot mount the sysfs of the host's network (sysfs(5)): there it is the host's own, read-only. */
function containerMounts(size: number, options: RunOptions): SpecMount[] {
  const ids = idMap().kind
  const fresh = defaultMounts(size, ids)
  if (ids === 'root' || options.network !== 'host') return fresh
  const bound = ['rbind', 'rprivate', 'nosuid', 'noexec', 'nodev', 'ro', 'rro']
  return fresh.map((mount) =>
    mount.type === 'sysfs' ? { ...mount, type: 'bind', source: '/sys', options: bound } : mount,
  )
}

function arranged(options: RunOptions, rootMounts: readonly SpecMount[]): readonly SpecMount[] {
  const user = [
    ...(options.mounts ?? []).map(ofOption),
    ...Object.entries(options.tmpfs ?? {}).map(([target, text]) => ofTmpfs(target, text)),
  ]
  const places = new Set<string>()
  for (const { destination } of user) {
    if (places.has(destination)) throw refuse('mounts', `Duplicate mount point: ${destination}`)
    places.add(destination)
  }
  const replaced = (destination: string): boolean =>
    places.has(destination) || (places.has('/dev') && destination.startsWith('/dev/'))
  const readOnly = options.readOnly === true
  const engine = engineFiles.map((name) => ({
    destination: `/etc/${name}`,
    type: 'bind',
    source: name,
    options: ['rbind', 'rprivate', ...(readOnly ? ['ro'] : [])],
  }))
  // Docker's 0 is the default.
  const size = bytes('shmSize', options.shmSize ?? 0) || shmSize
  if (size < 0) throw refuse('shmSize', 'is negative')
  const own = [...rootMounts, ...containerMounts(size, options), ...engine]
  return [
    ...own.filter(({ destination }) => !replaced(destination)),
    ...user.toSorted((left, right) => depth(left) - depth(right)),
  ]
}
