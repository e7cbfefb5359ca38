/** `caisson run` where there are limits. */
import { spawnSync } from 'node:child_process'
import test from 'ava'
import { rootfs, scene } from '../container/scene.ts'
import { main } from './program.ts'

test('one that runs out of its memory ends with 137, and is told why', async (t) => {
  const { root } = await scene(t)
  const words = [
    'run',
    '--rm',
    '-m',
    '32m',
    '--memory-swap',
    '32m',
    '--rootfs',
    rootfs,
    'sh',
    '-c',
    'tail /dev/zero',
  ]
  const { status, stderr } = spawnSync(process.execPath, [main, ...words], {
    env: { CAISSON_ROOT: root },
    encoding: 'utf8',
  })
  t.is(status, 137, stderr)
  t.regex(stderr, /OOM killer.*memory limit 32m/)
})
