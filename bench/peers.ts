/**
 * The peers: runc and crun on a bundle that asks for what Caisson gives by default (its own composed spec: namespaces,
 * mounts, masks, capabilities, device rules, and the profile that its filter was compiled from), podman by its flags.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { engineFiles, hosts } from '../src/container/defaults.ts'
import { compose } from '../src/container/spec.ts'
import { programs } from './programs.ts'
import type { Spawned } from './spawned.ts'

function boundingSet(): bigint {
  const line = /^CapBnd:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))
  return BigInt(`0x${line?.[1] ?? '0'}`)
}

/** Writes a bundle whose root file system is mounted by whoever starts it. */
function bundle(dir: string): void {
  mkdirSync(join(dir, 'rootfs'), { recursive: true })
  const options = { hostname: 'bench' }
  const spec = compose(['/bin/true'], options, {}, { mounts: [], maskedPaths: [] }, boundingSet())
  // The newest version that all peers read; nothing in it is newer.
  spec.ociVersion = '1.0.2'
  spec.linux.seccomp = JSON.parse(readFileSync(programs().profile, 'utf8'))
  writeFileSync(join(dir, 'config.json'), JSON.stringify(spec, null, 2))
  for (const name of engineFiles) {
    writeFileSync(join(dir, name), name === 'hosts' ? hosts : name === 'hostname' ? 'bench\n' : '')
  }
}

/** The peers' commands by name. `dir` is theirs; `lanes` of each can run at the same time. */
export function peers(
  dir: string,
  rootfs: string,
  lanes: number,
): Record<'crun' | 'runc' | 'podman', Spawned> {
  for (let lane = 0; lane < lanes; lane += 1) bundle(join(dir, `bundle-${lane}`))
  const overlay = { rootfs, scratch: join(dir, 'layers'), target: join(dir, 'bundle-%/rootfs') }
  const onBundle = ['run', '--bundle', join(dir, 'bundle-%'), 'bench-%']
  const podman = [
    '--root',
    join(dir, 'pod'),
    '--runroot',
    join(dir, 'pod-run'),
    '--cgroup-manager=cgroupfs',
    '--runtime',
    'runc',
  ]
  // What it sets by default needs controllers and CAP_SYS_RESOURCE, which this host does not have.
  const without = ['--pids-limit=-1', '--ulimit', 'nofile=1024:1024', '--ulimit', 'nproc=1000:1000']
  const onRootfs = ['--security-opt', `seccomp=${programs().profile}`, '--rootfs', `${rootfs}:O`, '/bin/true']
  return {
    crun: {
      command: ['crun', '--root', join(dir, 'crun'), '--cgroup-manager=disabled', ...onBundle],
      overlay,
    },
    runc: { command: ['runc', '--root', join(dir, 'runc'), ...onBundle], overlay },
    podman: {
      command: ['podman', ...podman, 'run', '--rm', '--network', 'none', ...without, ...onRootfs],
    },
  }
}
