/** `{ rootfs }`: a directory, or with `/` the machine itself, as a throwaway copy-on-write view. */
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
} from 'node:fs'
import { homedir } from 'node:os'
import { isAbsolute, join, resolve } from 'node:path'
import { idMap } from '../state/ids.ts'
import { roots } from '../state/roots.ts'
import type { Roots } from '../state/roots.ts'
import type { SpecMount } from './defaults.ts'
import { refuse } from '../errors.ts'
import type { RootExtras } from './spec.ts'

/** One overlay of a root file system. */
export interface Layered {
  target: string
  lowers: string[]
}

/** What a root file system is made of. */
export interface RootFilesystem {
  layers: Layered[]
  extras: RootExtras
}

/** File systems of the kernel's own, which a container gets fresh or not at all. */
const kernelTypes = new Set(
  (
    'autofs binfmt_misc bpf cgroup cgroup2 configfs debugfs devpts devtmpfs efivarfs fusectl hugetlbfs mqueue nsfs ' +
    'proc pstore ramfs rpc_pipefs securityfs selinuxfs sysfs tracefs'
  ).split(' '),
)

/** What is fresh in every container, whatever the machine has there. /run holds the sockets of the machine's services. */
const fresh = ['/proc', '/sys', '/dev', '/run']

/** Places of secrets, below a home. */
const secrets = [
  '.ssh',
  '.aws',
  '.docker',
  '.gnupg',
  '.config/gcloud',
  '.kube',
  '.netrc',
  '.npmrc',
  '.git-credentials',
]

function unescape(path: string): string {
  return path.replaceAll(/\\(\d{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)))
}

function below(path: string, dirs: readonly string[]): boolean {
  return dirs.some((dir) => path === dir || path.startsWith(`${dir}/`))
}

/** The places of the machine where another file system is mounted, topmost mounts only. */
function mountPoints(): string[] {
  const points = new Set<string>()
  for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n')) {
    const [left = '', right = ''] = line.split(' - ')
    const point = unescape(left.split(' ')[4] ?? '')
    const type = right.split(' ')[0] ?? ''
    if (point === '' || point === '/' || below(point, fresh)) continue
    if (kernelTypes.has(type)) points.delete(point)
    else points.add(point)
  }
  return [...points]
}

function isDirectory(path: string): boolean {
  try {
    return statSync(path).isDirectory()
  } catch {
    // Covered by a later mount, or of a file system that does not answer: not part of the view.
    return false
  }
}

/** More overlays than this are a machine that is not for this. */
const mostParts = 600

/**
 * The parts of a user's view. One overlay cannot have a lower with mounts of the host's below it, which are locked there
 * (mount_namespaces(7)): a directory is a part if nothing is mounted below it, else its entries are looked at.
 */
function userParts(
  points: readonly string[],
  own: readonly string[],
): { layers: Layered[]; bound: SpecMount[] } {
  const layers: Layered[] = []
  const bound: SpecMount[] = []
  const look = (directory: string): void => {
    for (const entry of readdirSync(directory, { withFileTypes: true })) {
      const path = join(directory, entry.name)
      if (below(path, fresh) || own.includes(path)) continue
      if (entry.isDirectory()) {
        const open = points.some((point) => point.startsWith(`${path}/`))
        if (open) look(path)
        else layers.push({ target: path, lowers: [path] })
      } else if (entry.isFile() && directory !== '/') {
        bound.push({ destination: path, type: 'bind', source: path, options: ['bind', 'rprivate', 'ro'] })
      }
      if (layers.length + bound.length > mostParts)
        throw refuse('rootfs', `'/' has too many mounts of its own on this machine for a user's view of it`)
    }
  }
  look('/')
  return { layers, bound }
}

/** What stands at the top beside directories: links, as /bin. They are a layer of Caisson's own. */
function links({ data }: Roots): string {
  const place = join(data, 'machine')
  mkdirSync(place, { recursive: true, mode: 0o755 })
  for (const entry of readdirSync('/', { withFileTypes: true }).filter((one) => one.isSymbolicLink())) {
    const target = readlinkSync(join('/', entry.name))
    const link = join(place, entry.name)
    if (linkAt(link) === target) continue
    rmSync(link, { force: true })
    symlinkSync(target, link)
  }
  return place
}

function linkAt(path: string): string | undefined {
  try {
    return readlinkSync(path)
  } catch {
    return undefined
  }
}

/** The places of state that this program knows: what others run is not a container's to see. */
const known = new Set<string>()

function ownPlaces(given: Roots): string[] {
  for (const each of [given, roots({}, {}), roots()])
    for (const path of [each.data, each.run]) known.add(path)
  // They will be made at the first start, which is this one.
  for (const path of [given.data, given.run]) mkdirSync(path, { recursive: true, mode: 0o700 })
  return [...known].filter((path) => existsSync(path)).map((path) => realpathSync(path))
}

function machine(given: Roots): RootFilesystem {
  const own = ownPlaces(given)
  const points = mountPoints().filter((point) => !below(point, own))
  const whole = idMap().kind === 'root'
  const parts = whole
    ? {
        layers: points
          .filter(isDirectory)
          .toSorted()
          .map((target) => ({ target, lowers: [target] })),
        bound: [],
      }
    : userParts(points, own)
  const layers = [{ target: '/', lowers: [whole ? '/' : links(given)] }, ...parts.layers]
  const agent = process.env.SSH_AUTH_SOCK
  const homes = [...new Set([homedir(), '/root'])]
  const hidden = [
    ...own,
    ...homes.flatMap((home) => secrets.map((name) => join(home, name))),
    ...(agent === undefined ? [] : [agent]),
  ]
  // A mask follows no link, so it is given the place itself.
  const maskedPaths = hidden.filter((path) => existsSync(path)).map((path) => realpathSync(path))
  const run: SpecMount = {
    destination: '/run',
    type: 'tmpfs',
    source: 'tmpfs',
    options: ['nosuid', 'nodev', 'mode=755'],
  }
  const mounts = [run, ...parts.bound]
  return { layers, extras: { mounts, maskedPaths: maskedPaths.filter((path) => !below(path, fresh)) } }
}

/** The root file system for `{ rootfs }`. */
export function rootFilesystem(rootfs: string, given: Roots): RootFilesystem {
  if (typeof rootfs !== 'string' || rootfs === '' || rootfs.includes('\0'))
    throw refuse('rootfs', 'is no path')
  const path = isAbsolute(rootfs) ? resolve(rootfs) : resolve(process.cwd(), rootfs)
  if (path === '/') return machine(given)
  return { layers: [{ target: '/', lowers: [path] }], extras: { mounts: [], maskedPaths: [] } }
}
