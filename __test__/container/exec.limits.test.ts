/** Commands in a container that has limits: theirs are the container's, their figures their own. */
import test from 'ava'
import { rootfs, scene } from './scene.ts'

const eat = (megabytes: number): string[] => [
  'dd',
  'if=/dev/zero',
  'of=/dev/null',
  `bs=${megabytes}M`,
  'count=1',
]

test('limits hold for each, figures are each one’s own', async (t) => {
  const { engine } = await scene(t)
  await using held = await engine.start({ rootfs }, ['sleep', '600'], { memory: '64m', pids: 20, cpus: 0.5 })
  const { isolation } = await held.exec(['true'])
  t.is(isolation.limits['memory.max'], String(64 << 20))
  t.is(isolation.limits['pids.max'], '20')
  t.is(isolation.limits['cpu.max'], '50000 100000')
  const [small, large] = [await held.exec(eat(1)), await held.exec(eat(30))]
  t.deepEqual([small.exitCode, large.exitCode], [0, 0])
  t.true((large.usage.memory.peak ?? 0) > 30 << 20, String(large.usage.memory.peak))
  t.true((small.usage.memory.peak ?? 0) < 20 << 20, String(small.usage.memory.peak))
  t.deepEqual(large.usage.missing.includes('memory.peak'), false)
})

test('one that runs out of memory ends alone, and it is said', async (t) => {
  const { engine } = await scene(t)
  await using held = await engine.start({ rootfs }, ['sleep', '600'], { memory: '48m' })
  const { cause, signal, usage } = await held.exec(eat(200))
  t.deepEqual([cause, signal], ['oom', 'SIGKILL'])
  t.is(usage.oomKills, 1)
  t.is((await held.exec(['echo', 'alive'])).stdout, 'alive\n')
  const { cause: other } = await held.exec(['sh', '-c', 'kill -9 $$'])
  t.is(other, 'signal')
})

test('a fork bomb of one holds the container’s number', async (t) => {
  const { engine } = await scene(t)
  // With an init: the dead count until somebody takes their end.
  await using held = await engine.start({ rootfs }, ['sleep', '600'], { pids: 20, init: true })
  const bomb = held.exec(['sh', '-c', 'f() { f | f & }; (f) & exec sleep 60'], { timeout: 3000 })
  await bomb.started
  t.true(((await held.stats()).pids.current ?? 0) <= 20)
  t.is((await bomb).cause, 'timeout')
  t.is((await held.exec(['echo', 'fine'])).stdout, 'fine\n')
})

test('without limits there are figures, too', async (t) => {
  const { engine } = await scene(t)
  await using limited = await engine.start({ rootfs }, ['sleep', '600'], { memory: '64m', pids: 20 })
  t.truthy(limited.id)
  // The parent hands the controllers down from here on; this container has asked for none.
  await using held = await engine.start({ rootfs }, ['sleep', '600'])
  const { usage } = await held.exec(eat(20))
  t.true((usage.memory.peak ?? 0) > 20 << 20, String(usage.memory.peak))
  t.true((usage.pids.peak ?? 0) >= 1)
})
