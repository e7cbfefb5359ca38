/** What the payload is: its words, environment, user, directory, limits, rights. */
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { runtime } from '../host/ground.ts'
import { usersTest } from '../host/only.ts'
import { makeRoot, rootfs, scene } from './scene.ts'

test('the environment is docker’s, and nothing of this program’s', async (t) => {
  const { run } = await scene(t)
  const p = run(['/bin/busybox', 'env'], { env: { A: '1', EMPTY: '', B: 'x=y z' } })
  const lines = (await p).stdout.trim().split('\n').toSorted()
  t.deepEqual(
    lines,
    [
      'A=1',
      'B=x=y z',
      'EMPTY=',
      'HOME=/root',
      `HOSTNAME=${p.id.slice(0, 12)}`,
      'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    ].toSorted(),
  )
})

test('the caller’s variables win, and undefined leaves a name out', async (t) => {
  const { run } = await scene(t)
  const env = { PATH: '/bin', HOME: '/x', HOSTNAME: 'mine', TERM: undefined }
  const { stdout } = await run(['/bin/busybox', 'env'], { env, hostname: 'other' })
  t.deepEqual(stdout.trim().split('\n').toSorted(), ['HOME=/x', 'HOSTNAME=mine', 'PATH=/bin'])
  const without = await run(['/bin/busybox', 'env'], { env: { HOSTNAME: undefined, PATH: undefined } })
  t.deepEqual(without.stdout.trim().split('\n'), ['HOME=/root'])
})

test('names and values that cannot be are refused', async (t) => {
  const { run } = await scene(t)
  for (const env of [{ '': 'x' }, { 'a=b': 'x' }, { 'a\0b': 'x' }, { a: 1 as unknown as string }]) {
    await t.throwsAsync(run(['true'], { env }), { code: 'ERR_INVALID_OPTION', message: /^env: / })
  }
  await t.throwsAsync(run(['true'], { env: { a: 'x\0y' } }), { message: /NUL/ })
})

test('a host name: the id’s first digits, or one of choice', async (t) => {
  const { sh } = await scene(t)
  const p = sh('hostname; cat /etc/hostname')
  const short = p.id.slice(0, 12)
  t.is((await p).stdout, `${short}\n${short}\n`)
  const named = await sh('hostname; cat /etc/hostname; echo $HOSTNAME', { hostname: 'db-1.test' })
  t.is(named.stdout, 'db-1.test\ndb-1.test\ndb-1.test\n')
})

test('the working directory: /, or made', async (t) => {
  const { sh } = await scene(t)
  t.is((await sh('pwd')).stdout, '/\n')
  t.is((await sh('pwd', { workdir: '/home/alice' })).stdout, '/home/alice\n')
  const made = await sh('pwd; stat -c "%a %u:%g" .', { workdir: '/a/b/c' })
  t.is(made.stdout, '/a/b/c\n755 0:0\n')
  t.is((await sh('pwd', { workdir: '/a/../b/./c' })).stdout, '/b/c\n')
  await t.throwsAsync(sh('true', { workdir: 'relative' }), {
    code: 'ERR_INVALID_OPTION',
    message: /^workdir: /,
  })
  await t.throwsAsync(sh('true', { workdir: '/bin/busybox' }), { message: /^cwd: \/bin\/busybox: / })
})

test('an entrypoint goes before the command', async (t) => {
  const { run } = await scene(t)
  t.is((await run(['a', 'b'], { entrypoint: 'echo' })).stdout, 'a b\n')
  t.is((await run(['a'], { entrypoint: ['echo', 'x'] })).stdout, 'x a\n')
  t.is((await run(['echo', 'a'], { entrypoint: '' })).stdout, 'a\n')
})

test('words reach the payload as they are', async (t) => {
  const { run } = await scene(t)
  const words = ['', ' ', '$HOME', "'", '"', '\n', '-n', 'ä€😀', '*']
  const { stdout } = await run(['sh', '-c', 'printf "<%s>" "$@"', 'sh', ...words])
  t.is(stdout, words.map((word) => `<${word}>`).join(''))
})

usersTest('a user by name and by number, with groups', async (t) => {
  const { run } = await scene(t)
  const id = async (user: string | number, groups?: string[]): Promise<string> => {
    const script = 'echo $(id -u) $(id -g) $(grep ^Groups /proc/self/status | cut -f2) $HOME'
    return (await run(['sh', '-c', script], { user, ...(groups !== undefined && { groups }) })).stdout.trim()
  }
  t.is(await id('alice'), '1000 1000 29 50 1000 /home/alice')
  t.is(await id('1000'), '1000 1000 29 50 1000 /home/alice')
  t.is(await id(1000), '1000 1000 29 50 1000 /home/alice')
  t.is(await id('alice:audio'), '1000 29 29 /home/alice')
  t.is(await id('alice:77'), '1000 77 77 /home/alice')
  t.is(await id('4242'), '4242 0 0 /')
  t.is(await id('4242:4343'), '4242 4343 4343 /')
  t.is(await id(''), '0 0 0 /root')
  t.is(await id('root', ['7', '8']), '0 0 0 7 8 /root')
  t.is(await id('root', ['audio']), '0 0 0 29 /root')
})

test('users that are not there', async (t) => {
  const { run } = await scene(t)
  await t.throwsAsync(run(['true'], { user: 'nobody-here' }), {
    code: 'ERR_USER_NOT_FOUND',
    message: 'unable to find user nobody-here: no matching entries in passwd file',
  })
  await t.throwsAsync(run(['true'], { user: 'alice:nogroup-here' }), {
    code: 'ERR_USER_NOT_FOUND',
    message: 'unable to find group nogroup-here: no matching entries in group file',
  })
})

usersTest('a root without passwd or group has numbers only', async (t) => {
  const { engine, dir } = await scene(t)
  makeRoot(dir)
  const bare = { rootfs: dir }
  await engine.run(bare, ['true'])
  const { rmSync } = await import('node:fs')
  rmSync(join(dir, 'etc/passwd'))
  rmSync(join(dir, 'etc/group'))
  t.is((await engine.run(bare, ['id', '-u'], { user: 5 })).stdout, '5\n')
  t.is((await engine.run(bare, ['sh', '-c', 'echo $HOME'])).stdout, '/\n')
  await t.throwsAsync(engine.run(bare, ['true'], { user: 'root' }), { code: 'ERR_USER_NOT_FOUND' })
})

test('resource limits', async (t) => {
  const { sh } = await scene(t)
  const limits = async (ulimits?: Record<string, number | { soft: number; hard: number }>): Promise<string> =>
    (await sh('cat /proc/self/limits', ulimits && { ulimits })).stdout
  // Node has raised its own; nobody asked for that.
  t.regex(await limits(), /^Max open files +1024 +\d+/m)
  t.regex(await limits({ nofile: { soft: 64, hard: 128 } }), /^Max open files +64 +128 /m)
  // Fewer than init itself needs.
  t.regex(await limits({ nofile: { soft: 5, hard: 8 } }), /^Max open files +5 +8 /m)
  t.regex(await limits({ core: 0 }), /^Max core file size +0 +0 /m)
  t.regex(await limits({ fsize: { soft: 4096, hard: -1 } }), /^Max file size +4096 +unlimited /m)
  await t.throwsAsync(sh('true', { ulimits: { nope: 1 } }), { code: 'ERR_INVALID_OPTION', message: /nope/ })
  await t.throwsAsync(sh('true', { ulimits: { nofile: { soft: 2, hard: 1 } } }), {
    code: 'ERR_INVALID_OPTION',
  })
})

/** The five sets of 2.1. */
async function capabilities(
  run: Awaited<ReturnType<typeof scene>>['run'],
  options: Parameters<typeof run>[1],
): Promise<string[]> {
  const { stdout } = await run(['grep', '^Cap', '/proc/self/status'], options)
  return [...stdout.matchAll(/:\s+([0-9a-f]+)/g)].map((match) => (match[1] ?? '').replace(/^0+(?=.)/, ''))
}

usersTest('the table of capabilities', async (t) => {
  const { run } = await scene(t)
  const zero = '0'
  t.deepEqual(await capabilities(run, {}), [zero, 'a80425fb', 'a80425fb', 'a80425fb', zero])
  t.deepEqual(await capabilities(run, { user: 1000 }), [zero, zero, zero, 'a80425fb', zero])
  for (const name of ['NET_ADMIN', 'net_admin', 'CAP_NET_ADMIN', 'cap_net_admin']) {
    const more = ['a80435fb', 'a80435fb', 'a80435fb']
    t.deepEqual(await capabilities(run, { capAdd: [name] }), [zero, ...more, zero], name)
  }
  t.deepEqual(await capabilities(run, { capDrop: ['ALL'] }), [zero, zero, zero, zero, zero])
  t.deepEqual(await capabilities(run, { capDrop: ['ALL'], capAdd: ['CHOWN'] }), [zero, '1', '1', '1', zero])
  t.deepEqual(await capabilities(run, { capDrop: ['CHOWN'] }), [
    zero,
    'a80425fa',
    'a80425fa',
    'a80425fa',
    zero,
  ])
  // ALL is what this program holds itself, whatever the kernel knows.
  const { readFileSync } = await import('node:fs')
  const held = /^CapBnd:\s+0*(\w+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? ''
  t.deepEqual(await capabilities(run, { capAdd: ['ALL'] }), [zero, held, held, held, zero])
  const without = (BigInt(`0x${held}`) & ~(1n << 12n)).toString(16)
  const dropped = await capabilities(run, { capAdd: ['ALL'], capDrop: ['NET_ADMIN'] })
  t.deepEqual(dropped, [zero, without, without, without, zero])
  await t.throwsAsync(run(['true'], { capAdd: ['NOPE'] }), {
    code: 'ERR_INVALID_OPTION',
    message: /^capAdd: .*NOPE/,
  })
  await t.throwsAsync(run(['true'], { capDrop: ['NOPE'] }), {
    code: 'ERR_INVALID_OPTION',
    message: /^capDrop: .*NOPE/,
  })
})

usersTest('no new privileges, on demand', async (t) => {
  const { sh } = await scene(t)
  const script = 'grep -E "^(NoNewPrivs|Seccomp)" /proc/self/status'
  t.is((await sh(script)).stdout, 'NoNewPrivs:\t0\nSeccomp:\t2\nSeccomp_filters:\t1\n')
  const { stdout, isolation } = await sh(script, { noNewPrivileges: true, user: 1000 })
  t.is(stdout, 'NoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n')
  t.true(isolation.noNewPrivileges)
})

test('system calls: the default filter, none, one’s own', async (t) => {
  const { sh } = await scene(t)
  // unshare(2) needs SYS_ADMIN by the default filter; keyctl is never allowed.
  t.regex((await sh('unshare -u true')).stderr, /Operation not permitted/)
  const free = await sh('grep ^Seccomp /proc/self/status; unshare -U true && echo made', {
    seccomp: 'unconfined',
  })
  t.is(free.stdout, 'Seccomp:\t0\nSeccomp_filters:\t0\nmade\n')
  t.false(free.isolation.seccomp)
  const own = await sh('mkdir /tmp/x; echo $?', {
    seccomp: {
      defaultAction: 'SCMP_ACT_ALLOW',
      syscalls: [{ names: ['mkdir', 'mkdirat'], action: 'SCMP_ACT_ERRNO', errnoRet: 38 }],
    },
  })
  t.regex(own.stderr, /Function not implemented/)
  t.is(own.stdout, '1\n')
  // Docker's form, as text: what it says depends on the container.
  const docker = JSON.stringify({
    defaultAction: 'SCMP_ACT_ALLOW',
    archMap: [{ architecture: 'SCMP_ARCH_X86_64', subArchitectures: ['SCMP_ARCH_X86'] }],
    syscalls: [
      {
        names: ['mkdir', 'mkdirat'],
        action: 'SCMP_ACT_ERRNO',
        errnoRet: 38,
        excludes: { caps: ['CAP_SYS_ADMIN'] },
      },
    ],
  }) as '{}'
  t.regex((await sh('mkdir /tmp/x', { seccomp: docker })).stderr, /Function not implemented/)
  t.is((await sh('mkdir /tmp/x', { seccomp: docker, capAdd: ['SYS_ADMIN'] })).exitCode, 0)
  await t.throwsAsync(sh('true', { seccomp: { defaultAction: 1n } }), { code: 'ERR_INVALID_OPTION' })
  await t.throwsAsync(sh('true', { seccomp: 'lax' as 'default' }), {
    code: 'ERR_INVALID_OPTION',
    message: /^seccomp: /,
  })
  await t.throwsAsync(sh('true', { seccomp: { defaultAction: 'SCMP_ACT_MAYBE' } }), {
    message: /SCMP_ACT_MAYBE|seccomp/,
  })
})

/** It executes itself anew beside the command, which may be the quicker of the two. */
const settledInit =
  'n=0; until grep -q caisson-init /proc/1/comm || [ $n = 500 ]; do n=$((n+1)); sleep .01; done; '

test('init reaps orphans and passes signals on', async (t) => {
  const { sh, run } = await scene(t)
  const { stdout } = await sh(`${settledInit} cat /proc/1/comm; echo $$`, { init: true })
  t.regex(stdout, /^caisson-init\n[2-9]\n$/)
  // Orphans: the middle process ends, its child becomes pid 1's, and ends in turn.
  const script =
    'for i in 1 2 3 4 5; do sh -c "sleep .01 &"; done; sleep .3; grep -l "State:.Z" /proc/[0-9]*/status; echo done'
  t.is((await sh(script, { init: true })).stdout, 'done\n')
  // Without one, the payload is pid 1 and does not.
  t.regex((await run(['sh', '-c', `exec sh -c '${script}'`], { init: false })).stdout, /done\n$/)
  const p = sh('trap "exit 8" TERM; echo up; while :; do sleep .01; done', { init: true })
  for await (const _ of p.stdout?.lines() ?? []) p.kill('SIGTERM')
  t.is((await p).exitCode, 8)
  const died = await sh('kill -SEGV $$', { init: true })
  t.is(died.exitCode, 139)
  await t.throwsAsync(run(['/nope'], { init: true }), { code: 'ERR_COMMAND_NOT_FOUND' })
})

test('init and a terminal', async (t) => {
  const { sh } = await scene(t)
  const { stdout } = await sh(`${settledInit} tty; : >/dev/tty && echo opened; cat /proc/1/comm`, {
    init: true,
    tty: true,
  })
  t.is(stdout, '/dev/pts/0\r\nopened\r\ncaisson-init\r\n')
})

test('a script without an interpreter, and one with', async (t) => {
  const { engine, dir } = await scene(t)
  makeRoot(dir)
  writeFileSync(join(dir, 'bin/hello'), '#!/bin/sh\necho hello "$@"\n', { mode: 0o755 })
  writeFileSync(join(dir, 'bin/bare'), 'echo bare\n', { mode: 0o755 })
  mkdirSync(join(dir, 'opt'))
  symlinkSync('/bin/hello', join(dir, 'opt/link'))
  t.is((await engine.run({ rootfs: dir }, ['hello', 'x'])).stdout, 'hello x\n')
  t.is((await engine.run({ rootfs: dir }, ['/opt/link'])).stdout, 'hello\n')
  await t.throwsAsync(engine.run({ rootfs: dir }, ['bare']), {
    code: 'ERR_COMMAND_NOT_EXECUTABLE',
    message: /exec format error/,
  })
})

test('commands that cannot be', async (t) => {
  const { run } = await scene(t)
  await t.throwsAsync(run(['nope']), {
    code: 'ERR_COMMAND_NOT_FOUND',
    message: 'exec: "nope": executable file not found in $PATH',
  })
  await t.throwsAsync(run(['/nope']), {
    code: 'ERR_COMMAND_NOT_FOUND',
    message: 'exec: "/nope": no such file or directory',
  })
  await t.throwsAsync(run(['/etc/passwd']), {
    code: 'ERR_COMMAND_NOT_EXECUTABLE',
    message: 'exec: "/etc/passwd": permission denied',
  })
  await t.throwsAsync(run(['/etc']), { code: 'ERR_COMMAND_NOT_EXECUTABLE' })
  await t.throwsAsync(run(['']), { code: 'ERR_COMMAND_NOT_FOUND' })
  await t.throwsAsync(run(['/bin/busybox/x']), { code: 'ERR_COMMAND_NOT_FOUND' })
  await t.throwsAsync(run([]), { code: 'ERR_INVALID_OPTION', message: /^command: / })
  await t.throwsAsync(run(['a\0b']), { code: 'ERR_INVALID_SPEC' })
  t.true(rootfs.startsWith(runtime))
})
