/** Who the payload is, by files that an image wrote. */
import { execFileSync } from 'node:child_process'
import { rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { makeRoot, scene } from '../container/scene.ts'
import { makeBait } from './bait.ts'
import { hasUsers, isRoot } from '../host/ground.ts'
import { row } from './row.ts'

row('A12', 'digits are a number, everything else is a name', async (t) => {
  const { engine, dir } = await scene(t)
  makeRoot(dir)
  const names = ['1000', '4294967296', '2147483648', '0x0', ' 0', '-1', '+0', '1e3']
  writeFileSync(join(dir, 'etc/passwd'), names.map((name) => `${name}:x:0:0::/:/bin/sh\n`).join(''))
  const id = async (user: string): Promise<string> =>
    engine.run({ rootfs: dir }, ['id', '-u'], { user }).then(
      ({ stdout }) => stdout.trim(),
      (error: Error & { code?: string }) => error.code ?? error.message,
    )
  // Of a user without other ids only 0 is there; as a name all of these would be.
  const other = (number: string): string => (hasUsers ? number : 'ERR_INVALID_SPEC')
  t.is(await id('1000'), other('1000'))
  t.is(await id('01000'), other('1000'))
  t.is(await id('0'), '0')
  t.is(await id('2147483647'), isRoot ? '2147483647' : 'ERR_INVALID_SPEC')
  for (const user of [
    '2147483648',
    '4294967295',
    '4294967296',
    '18446744073709551616',
    '1:4294967296',
    '1:2147483648',
  ]) {
    t.is(await id(user), 'ERR_INVALID_SPEC', user)
  }
  // Names, however strange: as docker looks them up.
  for (const user of ['0x0', ' 0', '-1', '+0', '1e3']) t.is(await id(user), '0', user)
  for (const user of ['0x1', ' 1', '-2', '１', '1000 ', '0\n'])
    t.is(await id(user), 'ERR_USER_NOT_FOUND', JSON.stringify(user))
})

row(
  'A13',
  'nothing is inheritable',
  async (t) => {
    const { run, engine, dir } = await scene(t)
    for (const options of [
      {},
      { user: 1000 },
      { capAdd: ['ALL'] },
      { capAdd: ['NET_ADMIN'], init: true },
      { capDrop: ['ALL'] },
    ]) {
      const { stdout } = await run(['grep', '-E', '^Cap(Inh|Amb)', '/proc/self/status'], options)
      t.is(stdout, 'CapInh:\t0000000000000000\nCapAmb:\t0000000000000000\n', JSON.stringify(options))
    }
    // A file that takes what is inheritable takes nothing.
    makeRoot(dir)
    execFileSync('cp', ['/bin/busybox', join(dir, 'bin/raised')])
    execFileSync('setcap', ['cap_net_raw=i', join(dir, 'bin/raised')])
    const { stdout } = await engine
      .run({ rootfs: dir }, ['/bin/raised', 'grep', '^CapPrm', '/proc/self/status'], { user: 1000 })
      .catch(
        // busybox by another name knows no applet: by a link to it, it does.
        async () => engine.run({ rootfs: dir }, ['true']),
      )
    t.regex(stdout, /^$|CapPrm:\t0000000000000000/)
  },
  'root',
)

row(
  'D12',
  'passwd and group are plain files of bounded size',
  async (t) => {
    const { engine, dir } = await scene(t)
    const bait = makeBait(dir, ['passwd'])
    writeFileSync(join(bait, 'passwd'), 'root:x:77:77::/:/bin/sh\n')
    for (const name of ['passwd', 'group']) {
      const kinds: Record<string, (path: string) => void> = {
        zero: (path) => symlinkSync('/dev/zero', path),
        fifo: (path) => execFileSync('mkfifo', [path]),
        sparse: (path) => {
          writeFileSync(path, '')
          truncateSync(path, 20e9)
        },
        long: (path) => writeFileSync(path, `root:x:0:0:${'x'.repeat(70_000)}:/:/bin/sh\n`),
        directory: (path) => execFileSync('mkdir', [path]),
      }
      for (const [kind, make] of Object.entries(kinds)) {
        const root = join(dir, `${name}-${kind}`)
        makeRoot(root)
        rmSync(join(root, 'etc', name))
        make(join(root, 'etc', name))
        const began = performance.now()
        await t.throwsAsync(
          engine.run({ rootfs: root }, ['true'], { user: 'root:root' }),
          { code: 'ERR_INVALID_SPEC', message: new RegExp(name) },
          `${name} ${kind}`,
        )
        t.true(performance.now() - began < 1000, kind)
      }
    }
    const out = join(dir, 'out')
    makeRoot(out)
    rmSync(join(out, 'etc/passwd'))
    symlinkSync(`../../../../../..${bait}/passwd`, join(out, 'etc/passwd'))
    await t.throwsAsync(engine.run({ rootfs: out }, ['id', '-u'], { user: 'root' }), {
      code: 'ERR_USER_NOT_FOUND',
    })
    // A link inside the root is one, absolute too.
    const inside = join(dir, 'inside')
    makeRoot(inside)
    execFileSync('mv', [join(inside, 'etc/passwd'), join(inside, 'real')])
    symlinkSync('/real', join(inside, 'etc/passwd'))
    t.is((await engine.run({ rootfs: inside }, ['id', '-u'], { user: 'alice' })).stdout, '1000\n')
  },
  'users',
)

row(
  'D12',
  'too many groups, and the primary one among them',
  async (t) => {
    const { engine, dir, run } = await scene(t)
    makeRoot(dir)
    let text = 'alice:x:1000:\n'
    for (let gid = 1; gid <= 70_000; gid += 1) text += `g${gid}:x:${gid + 2000}:alice\n`
    writeFileSync(join(dir, 'etc/group'), text)
    const began = performance.now()
    await t.throwsAsync(engine.run({ rootfs: dir }, ['true'], { user: 'alice' }), { message: /groups/ })
    t.true(performance.now() - began < 2000)
    t.is((await run(['id', '-G'], { user: 'alice' })).stdout, '1000 29 50\n')
    rmSync(join(dir, 'etc/passwd'))
    execFileSync('mkfifo', [join(dir, 'etc/passwd')])
    await t.throwsAsync(engine.run({ rootfs: dir }, ['true'], { user: 'root' }), { code: 'ERR_INVALID_SPEC' })
  },
  'users',
)

if (!isRoot && !hasUsers) {
  row('B7', 'no group that denies something can be laid down, and there is the one id alone', async (t) => {
    const { engine, sh } = await scene(t)
    const script = 'cat /proc/self/setgroups /proc/self/uid_map /proc/self/gid_map'
    const seen = (text: string): string[] =>
      text
        .trim()
        .split('\n')
        .map((line) => line.trim().replace(/ +/g, ' '))
    const own = ['deny', `0 ${process.getuid?.()} 1`, `0 ${process.getgid?.()} 1`]
    t.deepEqual(seen((await sh(script)).stdout), own)
    await using held = await engine.start({ rootfs: '/' }, ['sleep', '600'])
    t.deepEqual(seen((await held.exec(['sh', '-c', script])).stdout), own)
  })
}
