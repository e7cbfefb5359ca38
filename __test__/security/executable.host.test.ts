/** The executable: out of reach for containers, and for other users of this machine. */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  chmodSync,
  chownSync,
  cpSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { makeRoot, rootfs, scene } from '../container/scene.ts'
import { row } from './row.ts'

const checkout = fileURLToPath(new URL('../..', import.meta.url))
const digest = (path: string): string => createHash('sha256').update(readFileSync(path)).digest('hex')

row('A1', 'what a container sees of the engine is not the installed file', async (t) => {
  const { engine, sh, dir } = await scene(t)
  const path = engine.runtimePath
  const before = digest(path)
  const { stdout } = await sh(
    'stat -Lc "%d:%i %h" /proc/1/exe; readlink /proc/1/exe; (: >/proc/1/exe) 2>/dev/null && echo WRITTEN; (: <>/proc/1/exe) 2>/dev/null && echo OPENED; sha256sum /proc/1/exe',
    { init: true, capAdd: ['SYS_PTRACE'] },
  )
  const [inode = '', name = ''] = stdout.split('\n')
  const { dev, ino } = statSync(path)
  t.false(inode.startsWith(`${dev}:${ino} `), stdout)
  t.false(/WRITTEN|OPENED/.test(stdout), stdout)
  t.regex(inode, / 0$/)
  t.regex(name, /^\/memfd:caisson-runtime \(deleted\)$/)
  // A copy, of this very file.
  t.true(stdout.includes(before), stdout)

  // A command that leads back to whoever executes it.
  const root = join(dir, 'root')
  makeRoot(root)
  rmSync(join(root, 'bin/sh'))
  symlinkSync('/proc/self/exe', join(root, 'bin/sh'))
  await engine.run({ rootfs: root }, ['sh', '-c', 'true']).catch(() => {})
  t.is(digest(path), before)
})

row('A1', 'a payload that opens every executable it sees, while others start', async (t) => {
  const { engine, sh, run } = await scene(t)
  const before = digest(engine.runtimePath)
  const attack = sh(
    'while :; do for p in /proc/[0-9]*; do (: <>$p/exe) 2>/dev/null && readlink $p/exe; done; done',
    { init: true, capAdd: ['SYS_PTRACE'], timeout: 3000, maxBuffer: '64k' },
  )
  await attack.started
  for (let n = 0; n < 100; n += 1) await run(['true'], { init: n % 2 === 0 })
  attack.kill('SIGKILL')
  const { stdout } = await attack
  t.is(stdout, '')
  t.is(digest(engine.runtimePath), before)
  // Seen from inside, the engine is nobody's installed file.
  const { stdout: seen } = await sh('stat -Lc "%d:%i" /proc/1/exe', { init: true, capAdd: ['SYS_PTRACE'] })
  const { dev, ino } = statSync(engine.runtimePath)
  t.not(seen.trim(), `${dev}:${ino}`)
})

/** A copy of what a program imports, with the addon and the executable beside it. */
function install(dir: string): string {
  const place = join(dir, 'package')
  mkdirSync(place)
  for (const name of ['src', 'index.js', 'package.json', 'caisson.linux-x64-gnu.node', 'caisson-runtime']) {
    cpSync(join(checkout, name), join(place, name), { recursive: true })
  }
  return place
}

function start(place: string, root: string): string {
  const program = `
    import { Engine } from '${place}/src/index.ts'
    const engine = new Engine({ root: ${JSON.stringify(root)} })
    try { console.log((await engine.run({ rootfs: ${JSON.stringify(rootfs)} }, ['echo', 'ran'])).stdout.trim()) }
    catch (error) { console.log(error.code, error.message) }
    await engine.close()
  `
  const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module-typescript', '-e', program], {
    encoding: 'utf8',
  })
  return stdout.trim() || stderr
}

row(
  'E8',
  'an executable that somebody else may change is not run by root',
  async (t) => {
    const { dir, root } = await scene(t)
    const place = install(dir)
    const runtime = join(place, 'caisson-runtime')
    t.is(start(place, root), 'ran')

    chownSync(runtime, 1000, 1000)
    t.regex(start(place, root), /^ERR_UNSAFE_INSTALL .*caisson-runtime belongs to user 1000/)
    chownSync(runtime, 0, 0)
    chmodSync(runtime, 0o757)
    t.regex(start(place, root), /^ERR_UNSAFE_INSTALL .*can be written by others/)
    chmodSync(runtime, 0o775)
    chownSync(runtime, 0, 1000)
    t.regex(start(place, root), /^ERR_UNSAFE_INSTALL/)
    chownSync(runtime, 0, 0)
    chmodSync(runtime, 0o755)
    t.is(start(place, root), 'ran')

    chownSync(place, 1000, 1000)
    t.regex(start(place, root), /^ERR_UNSAFE_INSTALL .*package belongs to user 1000/)
    chownSync(place, 0, 0)
    chmodSync(dir, 0o777)
    t.regex(start(place, root), /^ERR_UNSAFE_INSTALL/)
    chmodSync(dir, 0o1777)
    t.is(start(place, root), 'ran')
    chmodSync(dir, 0o755)

    // A link to it does not hide where it is.
    const other = join(dir, 'other')
    mkdirSync(other)
    cpSync(runtime, join(other, 'real'))
    chownSync(other, 1000, 1000)
    rmSync(runtime)
    symlinkSync(join(other, 'real'), runtime)
    t.regex(start(place, root), /^ERR_UNSAFE_INSTALL .*other belongs to user 1000/)
  },
  'root',
)

row(
  'E8',
  'the owner of the package’s own code is trusted: it runs already',
  async (t) => {
    const { dir, root } = await scene(t)
    const place = install(dir)
    for (const name of ['', 'caisson-runtime', 'caisson.linux-x64-gnu.node', 'src', 'src/native.ts'])
      chownSync(join(place, name), 1000, 1000)
    t.is(start(place, root), 'ran')
    chmodSync(join(place, 'caisson-runtime'), 0o777)
    t.regex(start(place, root), /^ERR_UNSAFE_INSTALL/)
  },
  'root',
)

row(
  'E8',
  'a file that is swapped after the first start is not run',
  async (t) => {
    const { dir, root } = await scene(t)
    const place = install(dir)
    writeFileSync(join(dir, 'evil'), '#!/bin/sh\ntouch /run/caisson-evil\n', { mode: 0o755 })
    const program = `
    import { Engine } from '${place}/src/index.ts'
    import { renameSync } from 'node:fs'
    for (let n = 0; n < 20; n += 1) {
      const engine = new Engine({ root: ${JSON.stringify(root)} })
      console.log((await engine.run({ rootfs: ${JSON.stringify(rootfs)} }, ['echo', 'ran'])).stdout.trim())
      await engine.close()
      if (n === 0) renameSync('${dir}/evil', '${place}/caisson-runtime')
    }
  `
    const { stdout, stderr } = spawnSync(
      process.execPath,
      ['--input-type=module-typescript', '-e', program],
      {
        encoding: 'utf8',
      },
    )
    t.is(stdout, 'ran\n'.repeat(20), stderr)
    t.throws(() => statSync('/run/caisson-evil'))
    // What stands there now is another user's for the next one.
    chownSync(join(place, 'caisson-runtime'), 1000, 1000)
    t.regex(start(place, root), /^ERR_UNSAFE_INSTALL/)
  },
  'root',
)

row(
  'E8',
  'what somebody put on Object.prototype is no option',
  async (t) => {
    const { dir, root } = await scene(t)
    const program = `
    import { Engine } from '${checkout}src/index.ts'
    const bad = {
      privileged: true, capAdd: ['ALL'], mounts: [{ type: 'bind', source: '/', target: '/host' }], env: { EVIL: '1' },
      user: 1000, seccomp: 'unconfined', network: 'host', readOnly: true, recursive: false, propagation: 'shared',
      cgroupParent: '/sys/fs/cgroup/evil', runRoot: '/run/evil', container: '/dev/evil', permissions: 'r', tty: true,
      size: '1m', mode: 0, devices: ['/dev/kmsg'], entrypoint: 'false', soft: 1, hard: 1, init: true,
    }
    Object.assign(Object.prototype, bad)
    const engine = new Engine({ root: ${JSON.stringify(root)} })
    const { stdout, isolation } = await engine.run({ rootfs: ${JSON.stringify(rootfs)} }, ['sh', '-c',
      'grep CapEff /proc/self/status; id -u; env | grep -c EVIL; ls -d /host /dev/kmsg; touch /v/x /y && echo wrote; ls /sys/class/net; cat /proc/1/comm; ls -l /dev/fuller'],
      { __proto__: null, mounts: [{ type: 'bind', source: ${JSON.stringify(dir)}, target: '/v' }], devices: [{ host: '/dev/full', container: '/dev/fuller' }], stdio: ['pipe', 'pipe', 'pipe'] })
    console.log(stdout + isolation.cgroup)
    for (const name of Object.keys(bad)) delete Object.prototype[name]
    await engine.close()
  `
    const { stdout, stderr } = spawnSync(
      process.execPath,
      ['--input-type=module-typescript', '-e', program],
      {
        encoding: 'utf8',
      },
    )
    t.regex(
      stdout,
      /^CapEff:\t00000000a80425fb\n0\n0\nwrote\nlo\nsh\ncrw.* \/dev\/fuller\n\/sys\/fs\/cgroup\/caisson\/[0-9a-f]{64}\n$/,
      stderr,
    )
    t.is(statSync(join(dir, 'x')).uid, 0)
    // Of the check itself, so that its control fails here too.
    const place = install(dir)
    chownSync(dirname(join(place, 'caisson-runtime')), 1000, 1000)
    t.regex(start(place, root), /^ERR_UNSAFE_INSTALL/)
  },
  'root',
)
