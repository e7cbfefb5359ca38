/** `{ rootfs }`: a directory, or with `/` the machine itself, as a throwaway copy-on-write view. */
import { existsSync, readFileSync, realpathSync, statSync } from 'node:fs'
import { homedir } from 'node:os'
import { isAbsolute, join, resolve } from 'node:path'
import type { Roots } from '../state/roots.ts'
import type { SpecMount } from './defaults.ts'
import { refuse } from './options.ts'
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

/** The directories of the machine where another file system is mounted, topmost mounts only. */
function mountedDirectories(): string[] {
  const points = new Set<string>()
  for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n')) {
    const [left = '', right = ''] = line.split(' - ')
    const point = unescape(left.split(' ')[4] ?? '')
    const type = right.split(' ')[0] ?? ''
    if (point === '' || point === '/' || below(point, fresh)) continue
    if (kernelTypes.has(type)) points.delete(point)
    else points.add(point)
  }
  return [...points].filter((point) => {
    try {
      return statSync(point).isDirectory()
    } catch {
      // Covered by a later mount, or of a file system that does not answer: not part of the view.
      return false
    }
  })
}

function machine(roots: Roots): RootFilesystem {
  const own = [roots.data, roots.run].filter((path) => existsSync(path)).map((path) => realpathSync(path))
  const points = mountedDirectories().filter((point) => !below(point, own))
  const layers = ['/', ...points.toSorted()].map((target) => ({ target, lowers: [target] }))
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
  return { layers, extras: { mounts: [run], maskedPaths: maskedPaths.filter((path) => !below(path, fresh)) } }
}

/** The root file system for `{ rootfs }`. */
export function rootFilesystem(rootfs: string, roots: Roots): RootFilesystem {
  if (typeof rootfs !== 'string' || rootfs === '' || rootfs.includes('\0'))
    throw refuse('rootfs', 'is no path')
  const path = isAbsolute(rootfs) ? resolve(rootfs) : resolve(process.cwd(), rootfs)
  if (path === '/') return machine(roots)
  return { layers: [{ target: '/', lowers: [path] }], extras: { mounts: [], maskedPaths: [] } }
}
