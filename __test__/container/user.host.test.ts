/** What is a user's own: its ids, what it cannot have, and that it is told so. As root: that there is nothing of it. */
import { statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { hasControllers, hasGroups, hasUsers, isRoot } from '../host/ground.ts'
import { scene } from './scene.ts'

const ids = isRoot ? 'root' : hasUsers ? 'range' : 'single'

test('isolation says which ids there are', async (t) => {
  const { run } = await scene(t)
  const { isolation } = await run(['true'])
  t.is(isolation.ids, ids)
  t.is(isolation.shared.includes('user'), isRoot)
})

test('less than what was asked for is an error', async (t) => {
  const { run } = await scene(t)
  const levels = ['single', 'range', 'full'] as const
  const held = levels.indexOf(hasUsers && hasGroups ? 'full' : 'single')
  for (const [index, minIsolation] of levels.entries()) {
    const asked = run(['true'], { minIsolation })
    if (index <= held) t.is((await asked).exitCode, 0)
    else await t.throwsAsync(asked, { code: 'ERR_ISOLATION', message: new RegExp(minIsolation) })
  }
  await t.throwsAsync(run(['true'], { minIsolation: 'most' as 'full' }), { code: 'ERR_INVALID_OPTION' })
})

test('what its user writes in a volume is this user’s', async (t) => {
  const { sh, dir } = await scene(t)
  const mounts = [{ type: 'bind' as const, source: dir, target: '/v' }]
  writeFileSync(join(dir, 'old'), '', { mode: 0o600 })
  const { stdout } = await sh('touch /v/new && stat -c %u /v/old /v/new', { mounts })
  t.is(stdout, '0\n0\n')
  t.is(statSync(join(dir, 'new')).uid, process.geteuid?.() ?? -1)
})

test('no node can be made that opens a device of the machine', async (t) => {
  const { sh } = await scene(t)
  const { stdout } = await sh('mknod /tmp/d c 1 1; (: </tmp/d) && echo opened; (: </dev/null) && echo null', {
    capAdd: ['ALL'],
  })
  t.is(stdout, 'null\n')
})

if (!hasControllers) {
  test('a limit that cannot be had is refused by its name', async (t) => {
    const { run } = await scene(t)
    const asked = run(['true'], { memory: '64m' })
    await t.throwsAsync(asked, {
      code: 'ERR_NO_CONTROLLER',
      message: hasGroups ? /controller 'memory'/ : /memory.*delegated/,
    })
  })
}

if (!isRoot) {
  test('a device is bound, whole or not at all', async (t) => {
    const { sh, run } = await scene(t)
    const { stdout } = await sh('stat -c %t:%T /dev/other; head -c 1 /dev/other | wc -c', {
      devices: ['/dev/zero:/dev/other'],
    })
    t.is(stdout, '1:5\n1\n')
    await t.throwsAsync(run(['true'], { devices: ['/dev/zero:/dev/other:r'] }), {
      code: 'ERR_INVALID_OPTION',
      message: /devices: 'r' of \/dev\/zero needs root/,
    })
  })

  test('another user than there is', async (t) => {
    const { run } = await scene(t)
    const user = hasUsers ? '70000' : '1234'
    await t.throwsAsync(run(['true'], { user }), {
      code: 'ERR_INVALID_SPEC',
      message: new RegExp(`user ${user}:0, or one of its groups, is not among`),
    })
  })

  test('the network of the machine, with its sysfs read-only', async (t) => {
    const { sh } = await scene(t)
    const { stdout, stderr } = await sh('ls /sys/class/net | grep -c lo; touch /sys/x', { network: 'host' })
    t.is(stdout, '1\n')
    t.regex(stderr, /Read-only file system|Permission denied/)
  })
}
