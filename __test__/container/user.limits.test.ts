/** Limits of an ordinary user, where a cgroup was handed to it, as systemd does. */
import { execFileSync, spawnSync } from 'node:child_process'
import { chownSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { cgroupMount } from '../host/cage.ts'
import { makeRoot, scene } from './scene.ts'

const api = new URL('../../src/index.ts', import.meta.url).href
const uid = 4321

/** A group of the user's, and a session below it in which its program runs. */
function delegate(): { group: string; session: string } {
  const group = join(cgroupMount(), 'delegated')
  const session = join(group, 'session')
  writeFileSync(join(cgroupMount(), 'cgroup.subtree_control'), '+cpu +memory +pids')
  mkdirSync(session, { recursive: true })
  for (const place of [group, session]) {
    chownSync(place, uid, uid)
    for (const file of ['procs', 'threads', 'subtree_control'])
      chownSync(join(place, `cgroup.${file}`), uid, uid)
  }
  return { group, session }
}

test('a user’s limits are in force, and what went over them is told', async (t) => {
  t.timeout(120_000)
  const { dir } = await scene(t)
  const { group, session } = delegate()
  t.teardown(() => {
    rmdirSync(session)
    rmdirSync(group)
  })
  const own = join(dir, 'own')
  const root = join(own, 'rootfs')
  makeRoot(root)
  execFileSync('chown', ['-Rh', `${uid}:${uid}`, own])
  const program = `
    import { Engine } from '${api}'
    const engine = new Engine({ root: ${JSON.stringify(own)} })
    const limits = { memory: '32m', cpus: 0.5, pids: 20 }
    const image = { rootfs: ${JSON.stringify(root)} }
    const told = await engine.run(image, ['sh', '-c', 'cat /sys/fs/cgroup/memory.max /proc/self/cgroup'], limits)
    const eaten = await engine.run(image, ['sh', '-c', 'exec tail /dev/zero'], limits)
    console.log(JSON.stringify([told, eaten]))
    await engine.close()
  `
  const words = [process.execPath, '--input-type=module-typescript', '-e', program]
  const enter = `echo $$ >${session}/cgroup.procs; exec setpriv --reuid ${uid} --regid ${uid} --clear-groups "$@"`
  const { stdout, stderr } = spawnSync('bash', ['-c', enter, 'bash', ...words], { encoding: 'utf8' })
  t.truthy(stdout, stderr)
  const [told, eaten] = JSON.parse(stdout) as {
    stdout: string
    cause: string
    isolation: { ids: string; cgroup: string; limits: Record<string, string> }
  }[]
  t.is(told?.stdout, `${32 << 20}\n0::/\n`)
  t.is(told?.isolation.ids, 'single')
  t.true(told?.isolation.cgroup.startsWith(join(group, 'caisson/')), told?.isolation.cgroup)
  t.like(told?.isolation.limits, {
    'memory.max': String(32 << 20),
    'cpu.max': '50000 100000',
    'pids.max': '20',
  })
  t.is(eaten?.cause, 'oom')
  t.regex(readFileSync(join(group, 'cgroup.subtree_control'), 'utf8'), /memory/)
})
