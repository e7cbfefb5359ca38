/** /dev, what lies over masked files, and what stdio may become. */
import {
  chownSync,
  closeSync,
  mkdirSync,
  openSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { makeRoot, rootfs, scene } from '../container/scene.ts'
import { isRoot } from '../host/ground.ts'
import { makeBait, safe } from './bait.ts'
import { row } from './row.ts'

row('A6', 'masks are never the container’s own /dev/null', async (t) => {
  const { engine, dir } = await scene(t)
  const root = join(dir, 'root')
  const dev = join(dir, 'dev')
  makeRoot(root)
  mkdirSync(dev)
  // The caller’s own /dev, in which null is a link to a file of the container.
  symlinkSync('/t', join(dev, 'null'))
  writeFileSync(join(root, 't'), 'secret\n')
  const { stdout } = await engine.run(
    { rootfs: root },
    [
      'sh',
      '-c',
      'cat /proc/keys /proc/timer_list /proc/interrupts; for f in /proc/keys /proc/interrupts; do (echo x >$f) && echo WRITTEN; done; cat /t; grep -E " /proc/(keys|interrupts) " /proc/self/mountinfo',
    ],
    { mounts: [{ type: 'bind', source: dev, target: '/dev' }] },
  )
  const [first, ...rest] = stdout.trim().split('\n')
  t.is(first, 'secret')
  for (const line of rest) t.regex(line, / \/file \/proc\/\w+ ro,nosuid,nodev,noexec,relatime .*- tmpfs /)
  t.true(rest.length > 0)
  // The caller’s directory is the caller’s: no node was made in it.
  t.true(statSync(dev).isDirectory())
})

row('A7', 'a console that is a link', async (t) => {
  const { engine, dir } = await scene(t)
  const root = join(dir, 'root')
  const dev = join(dir, 'dev')
  makeRoot(root)
  mkdirSync(join(dev, 'pts'), { recursive: true })
  symlinkSync('/t', join(dev, 'console'))
  writeFileSync(join(root, 't'), 'content\n')
  // The caller’s own /dev, with a devpts in it: a console by the link would lie over /t.
  const run = engine.run({ rootfs: root }, ['sh', '-c', 'cat /t; grep -c " /t " /proc/self/mountinfo'], {
    tty: true,
    mounts: [
      { type: 'bind', source: dev, target: '/dev' },
      { type: 'bind', source: '/dev/pts', target: '/dev/pts' },
    ],
  })
  await t.throwsAsync(run, { message: isRoot ? /^terminal: process\.terminal: / : /^terminal: / })
  t.is(readFileSync(join(root, 't'), 'utf8'), 'content\n')

  // With a /dev of Caisson’s own and a devpts, as always, the image’s link is covered.
  const own = join(dir, 'own')
  makeRoot(own)
  mkdirSync(join(own, 'dev'))
  symlinkSync('/t', join(own, 'dev/console'))
  writeFileSync(join(own, 't'), 'content\n')
  const { stdout } = await engine.run({ rootfs: own }, ['sh', '-c', 'cat /t; ls -l /dev/console'], {
    tty: true,
  })
  t.regex(stdout, /^content\r\ncrw.* 136, +0 .*\/dev\/console\r\n$/)
})

row('A9', '/dev of an image is a link to a directory of the host', async (t) => {
  const { engine, dir } = await scene(t)
  const bait = makeBait(dir)
  for (const link of [bait, `../../../../../..${bait}`]) {
    const root = join(dir, `root${link.length}`)
    makeRoot(root)
    symlinkSync(link, join(root, 'dev'))
    await safe(t, bait, async () => {
      for (const tty of [false, true]) await engine.run({ rootfs: root }, ['true'], { tty }).catch(() => {})
    })
  }
})

row(
  'A10',
  'only what Caisson made is given to the user',
  async (t) => {
    const { run, dir } = await scene(t)
    writeFileSync(join(dir, 'f'), 'content\n')
    chownSync(join(dir, 'f'), 1234, 1234)
    const file = openSync(join(dir, 'f'), 'r+')
    const { stdout } = await run(['sh', '-c', 'stat -Lc "%u %F" /proc/self/fd/0 /proc/self/fd/1'], {
      user: 1000,
      stdio: [file, 'pipe', file],
    })
    closeSync(file)
    t.is(stdout, '1234 regular file\n1000 fifo\n')
    t.is(statSync(join(dir, 'f')).uid, 1234)
    const none = await run(['stat', '-Lc', '%t:%T %F', '/proc/self/fd/0'], {
      user: 1000,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    t.is(none.stdout, '1:3 character special file\n')
    t.is(statSync('/dev/null').uid, 0)
  },
  'root',
)

row(
  'B5',
  'a node that was made opens nothing',
  async (t) => {
    const { sh } = await scene(t)
    const script = `
    mknod /tmp/mem c 1 1 && (: </tmp/mem) 2>/dev/null && echo OPENED mem
    mknod /tmp/kmsg c 1 11 && (: </tmp/kmsg) 2>/dev/null && echo OPENED kmsg
    mknod /tmp/loop b 7 0 && (: </tmp/loop) 2>/dev/null && echo OPENED loop
    mknod /tmp/null c 1 3 && echo >/tmp/null && echo null
  `
    for (const options of [
      {},
      { capAdd: ['SYS_ADMIN', 'SYSLOG', 'SYS_RAWIO'] },
      { init: true, capAdd: ['SYSLOG'] },
    ]) {
      t.is((await sh(script, options)).stdout, 'null\n')
    }
    // In a group below its own, too.
    const deep = await sh(
      `mkdir -p /cg && mount -t cgroup2 c /cg && mkdir /cg/deep && echo $$ >/cg/deep/cgroup.procs && ${script.trim()}`,
      {
        capAdd: ['SYS_ADMIN', 'SYSLOG'],
        seccomp: 'unconfined',
      },
    )
    t.is(deep.stdout.replace(/^$/, 'null\n'), 'null\n')
    t.is(rootfs.length > 0, true)
  },
  'root',
)
