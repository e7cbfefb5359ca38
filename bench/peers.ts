/**
 * The peers: runc and crun on a bundle that asks for what Caisson gives by default (its own composed spec: namespaces,
 * mounts, masks, capabilities, device rules, and the profile that its filter was compiled from), podman by its flags.
 */
import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { engineFiles, hosts } from '../src/container/defaults.ts'
import { compose } from '../src/container/spec.ts'
import { makeRootfs } from './contest.ts'
import { programs } from './programs.ts'
import type { Spawned } from './spawned.ts'

function boundingSet(): bigint {
  const line = /^CapBnd:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))
  return BigInt(`0x${line?.[1] ?? '0'}`)
}

/** Writes a bundle whose root file system is mounted by whoever starts it. */
function bundle(dir: string, words: readonly string[] = ['/bin/true']): void {
  mkdirSync(join(dir, 'rootfs'), { recursive: true })
  const options = { hostname: 'bench' }
  const spec = compose(words, options, {}, { mounts: [], maskedPaths: [] }, boundingSet())
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

/** One container of each that runs on a root of its own, held by its runtime, and the command that enters it. */
export function heldPeers(
  dir: string,
): Record<'crun' | 'runc', { start: () => void; exec: Spawned; end: () => void }> {
  const one = (name: string, ...more: string[]) => {
    const own = join(dir, name)
    const words = [name, '--root', join(own, 'state'), ...more]
    const act = (...rest: string[]): void => {
      const { status, stderr } = spawnSync(words[0] ?? '', [...words.slice(1), ...rest], {
        stdio: ['ignore', 'ignore', 'pipe'],
        encoding: 'utf8',
      })
      if (status !== 0) throw new Error(`${name} ${rest.join(' ')}: ${stderr}`)
    }
    return {
      start: () => {
        bundle(own, ['/bin/sleep', '100000'])
        makeRootfs(join(own, 'rootfs'))
        // Its stderr would stay open in the container.
        const { status } = spawnSync(
          words[0] ?? '',
          [...words.slice(1), 'run', '--detach', '--bundle', own, 'held'],
          { stdio: 'ignore' },
        )
        if (status !== 0) throw new Error(`${name} run --detach ended with ${status}`)
      },
      exec: { command: [...words, 'exec', 'held', '/bin/true'] },
      end: () => act('delete', '--force', 'held'),
    }
  }
  return { crun: one('crun', '--cgroup-manager=disabled'), runc: one('runc') }
}
