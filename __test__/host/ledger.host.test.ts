/** Each kind of leak, seen by the ledger, and seen to be gone. */
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdirSync, openSync, rmdirSync, rmSync, writeFileSync } from 'node:fs'
import test from 'ava'
import { runtime } from './ground.ts'
import { rootTest } from './only.ts'
import { diff, leavesNothing, settled, take } from './ledger.ts'

const scratch = `${runtime}/ledger`

test.beforeEach(() => {
  mkdirSync(scratch)
})
test.afterEach.always(() => {
  rmSync(scratch, { recursive: true, force: true })
})

test('nothing happened, nothing is said', async (t) => {
  t.is(await settled(take([scratch]), [scratch]), '')
})

rootTest('a mount', (t) => {
  const before = take()
  execFileSync('mount', ['-t', 'tmpfs', 'leak', scratch])
  t.is(diff(before, take()), `+ mount ${scratch} (tmpfs leak)`)
  execFileSync('mount', ['-t', 'tmpfs', 'leak', scratch])
  t.is(diff(before, take()).split('\n').length, 2)
  execFileSync('umount', [scratch])
  execFileSync('umount', [scratch])
  t.is(diff(before, take()), '')
})

rootTest('a cgroup, however deep', (t) => {
  const before = take()
  mkdirSync('/sys/fs/cgroup/leak/deep', { recursive: true })
  t.is(diff(before, take()), '+ cgroup /sys/fs/cgroup/leak\n+ cgroup /sys/fs/cgroup/leak/deep')
  rmdirSync('/sys/fs/cgroup/leak/deep')
  rmdirSync('/sys/fs/cgroup/leak')
  t.is(diff(before, take()), '')
})

test('a process, and what it became', async (t) => {
  const before = take()
  const child = spawn('sleep', ['60'], { stdio: 'ignore' })
  await once(child, 'spawn')
  t.regex(
    await settled(before, [], 100),
    new RegExp(`^\\+ process ${child.pid} sleep \\(started \\d+\\)$`, 'm'),
  )
  child.kill('SIGKILL')
  await once(child, 'exit')
  t.is(await settled(before), '')
})

test('a zombie that nobody waits for', async (t) => {
  const before = take()
  // exec keeps the child of the shell, and sleep never waits.
  const child = spawn('sh', ['-c', 'true & exec sleep 60'], { stdio: 'ignore' })
  await once(child, 'spawn')
  t.regex(await settled(before, [], 300), /^\+ process \d+ (sh|true), a zombie/m)
  child.kill('SIGKILL')
  await once(child, 'exit')
  t.is(await settled(before), '')
})

test('a descriptor', (t) => {
  const before = take()
  const fd = openSync('/dev/null', 'r')
  t.is(diff(before, take()), `+ descriptor ${fd} -> /dev/null`)
  closeSync(fd)
  t.is(diff(before, take()), '')
})

rootTest('a namespace, kept by a process and kept by a mount', async (t) => {
  const before = take()
  const child = spawn('unshare', ['--net', 'sleep', '60'], { stdio: 'ignore' })
  await once(child, 'spawn')
  t.regex(await settled(before, [], 300), /^\+ namespace net:\[\d+\]$/m)
  writeFileSync(`${scratch}/net`, '')
  execFileSync('mount', ['--bind', `/proc/${child.pid}/ns/net`, `${scratch}/net`])
  child.kill('SIGKILL')
  await once(child, 'exit')
  t.regex(await settled(before, [], 100), /^\+ mount \/run\/ledger\/net \(nsfs nsfs\)$/)
  execFileSync('umount', [`${scratch}/net`])
  t.is(await settled(before), '')
})

rootTest('a network interface', (t) => {
  const before = take()
  execFileSync('ip', ['link', 'add', 'leak0', 'type', 'veth', 'peer', 'leak1'])
  t.deepEqual(diff(before, take()).split('\n').toSorted(), ['+ link leak0', '+ link leak1'])
  execFileSync('ip', ['link', 'del', 'leak0'])
  t.is(diff(before, take()), '')
})

test('a file, and one that went', (t) => {
  writeFileSync(`${scratch}/old`, '')
  const before = take([scratch])
  mkdirSync(`${scratch}/dir`)
  writeFileSync(`${scratch}/dir/new`, '')
  rmSync(`${scratch}/old`)
  t.is(
    diff(before, take([scratch])),
    [`- file ${scratch}/old`, `+ file ${scratch}/dir/`, `+ file ${scratch}/dir/new`].join('\n'),
  )
})

test('leavesNothing fails a test that leaves something', async (t) => {
  let check: (() => unknown) | undefined
  const teardown = (run: () => unknown): void => {
    check = run
  }
  leavesNothing({ ...t, teardown }, scratch)
  writeFileSync(`${scratch}/left`, '')
  const error = await t.throwsAsync(async () => check?.())
  t.is(error.message, `left behind:\n+ file ${scratch}/left`)
})
