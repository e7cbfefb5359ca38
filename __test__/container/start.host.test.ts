/** A container that is held for longer than a command. */
import test from 'ava'
import { hasGroups } from '../host/ground.ts'
import { rootfs, scene } from './scene.ts'

const deaf = 'trap "" TERM; echo up; while :; do sleep .05; done'

test('it runs when it is given, says what it is, and ends with its block', async (t) => {
  const { engine } = await scene(t)
  let main
  {
    await using held = await engine.start({ rootfs }, ['sleep', '60'], { name: 'db', labels: { of: 'test' } })
    t.true((held.main.pid ?? 0) > 0)
    t.is(held.id, held.main.id)
    t.is(held.name, 'db')
    t.deepEqual({ ...held.labels }, { of: 'test' })
    t.true(held.isolation?.seccomp)
    t.is(held.isolation?.cgroup !== '', hasGroups)
    if (hasGroups) t.true(((await held.stats()).cpu.system ?? -1) >= 0)
    main = held.main
  }
  const { cause, signal } = await main
  t.deepEqual([cause, signal], ['killed', 'SIGKILL'])
})

test('stop asks first: its signal, the image’s, one of the call', async (t) => {
  const { engine } = await scene(t)
  const script =
    'for s in USR1 TERM INT; do trap "echo $s; exit 3" $s; done; echo up; while :; do sleep .01; done'
  for (const [options, stop, seen] of [
    [{}, {}, 'TERM\n'],
    [{ stopSignal: 'SIGUSR1' }, {}, 'USR1\n'],
    [{ stopSignal: 'SIGUSR1' }, { signal: 'SIGINT' }, 'INT\n'],
  ] as const) {
    const held = await engine.start({ rootfs }, ['sh', '-c', script], options)
    for await (const line of held.main.stdout?.lines() ?? []) {
      t.is(line, 'up')
      break
    }
    const { exitCode, cause, stdout } = await held.stop(stop)
    t.deepEqual([exitCode, cause, stdout], [3, 'exit', `up\n${seen}`])
  }
})

test('stop makes one end that does not want to', async (t) => {
  const { engine } = await scene(t)
  const held = await engine.start({ rootfs }, ['sh', '-c', deaf])
  for await (const _ of held.main.stdout?.lines() ?? []) break
  const began = performance.now()
  const { cause, signal } = await held.stop({ timeout: 200 })
  t.deepEqual([cause, signal], ['killed', 'SIGKILL'])
  t.true(performance.now() - began >= 190)
  t.is((await held.stop()).signal, 'SIGKILL')
  t.false(held.kill())
  await t.throwsAsync(held.stats(), { code: 'ERR_NOT_RUNNING' })
})

test('a command that is over at once was a container', async (t) => {
  const { engine } = await scene(t)
  const held = await engine.start({ rootfs }, ['sh', '-c', 'echo done; exit 4'])
  const { exitCode, stdout } = await held.wait()
  t.deepEqual([exitCode, stdout], [4, 'done\n'])
  t.true(held.isolation?.seccomp)
})

test('a start that fails is a start that fails', async (t) => {
  const { engine } = await scene(t)
  await t.throwsAsync(engine.start({ rootfs }, ['nonsense']), { code: 'ERR_COMMAND_NOT_FOUND' })
  await t.throwsAsync(engine.start({ rootfs }, ['true'], { memroy: '1m' } as object), {
    code: 'ERR_INVALID_OPTION',
  })
  await t.throwsAsync(engine.start({ rootfs: '/nowhere/at/all' }), { code: 'ERR_INVALID_OPTION' })
})

test('stdin is empty, unless it is asked for', async (t) => {
  const { engine } = await scene(t)
  t.is((await (await engine.start({ rootfs }, ['cat'])).wait()).stdout, '')
  const held = await engine.start({ rootfs }, ['cat'], { stdio: 'pipe' })
  held.main.stdin?.end('typed')
  t.is((await held.wait()).stdout, 'typed')
})

test('lines are those from the beginning, whoever asks, and when', async (t) => {
  const { engine } = await scene(t)
  const held = await engine.start(
    { rootfs },
    ['sh', '-c', 'echo one; echo two; cat; echo three; sleep .2; printf end'],
    {
      stdio: 'pipe',
    },
  )
  const first = async (): Promise<string | undefined> => {
    for await (const line of held.main.stdout?.lines() ?? []) return line
    return undefined
  }
  await new Promise((resolve) => setTimeout(resolve, 100))
  t.deepEqual([await first(), await first()], ['one', 'one'])
  held.main.stdin?.end('typed\n')
  const all: string[] = []
  for await (const line of held.main.stdout?.lines() ?? []) all.push(line)
  t.deepEqual(all, ['one', 'two', 'typed', 'three', 'end'])
  t.is((await held.wait()).stdout, 'one\ntwo\ntyped\nthree\nend')
  t.is(await first(), 'one')
})
