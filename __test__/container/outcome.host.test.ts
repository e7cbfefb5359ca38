/** How a run ends, who ended it, and what its result says. */
import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import test from 'ava'
import { CaissonError } from '../../src/index.ts'
import type { Result } from '../../src/index.ts'
import { hasGroups, hasUsers, isRoot } from '../host/ground.ts'
import { rootfs, scene } from './scene.ts'

test('an exit code is a result', async (t) => {
  const { sh } = await scene(t)
  for (const code of [0, 1, 42, 125, 126, 127, 137, 255]) {
    const { exitCode, signal, cause } = await sh(`exit ${code}`)
    t.deepEqual({ exitCode, signal, cause }, { exitCode: code, signal: null, cause: 'exit' })
  }
})

test('a signal from inside is one from the kernel', async (t) => {
  const { sh } = await scene(t)
  // Pid 1 is deaf to signals of its own namespace that it does not handle, so a fault must kill it.
  const { exitCode, signal, cause } = await sh('ulimit -t 1; while :; do :; done', {
    ulimits: { cpu: { soft: 1, hard: 1 } },
  })
  t.is(exitCode, null)
  t.is(signal, 'SIGKILL')
  t.is(cause, 'signal')
})

test('kill sends to the main process, by name and by number; its default is SIGTERM', async (t) => {
  const { sh } = await scene(t)
  for (const [sent, code] of [
    [undefined, 15],
    ['SIGUSR1', 10],
    [2, 2],
  ] as const) {
    const p = sh('for s in 2 10 15; do trap "exit $s" $s; done; echo up; while :; do sleep .01; done')
    for await (const line of p.stdout?.lines() ?? []) {
      t.is(line, 'up')
      t.true(p.kill(sent))
    }
    const { exitCode, signal, cause } = await p
    // The payload chose its own end: an exit, whatever asked for it.
    t.deepEqual({ exitCode, signal, cause }, { exitCode: code, signal: null, cause: 'exit' })
    t.false(p.kill())
  }
})

test('a signal that did not end it is not the cause', async (t) => {
  const { sh } = await scene(t)
  const p = sh('trap : USR1; echo up; read a; kill -9 $$; ulimit -t 1; while :; do :; done', {
    ulimits: { cpu: { soft: 1, hard: 1 } },
  })
  for await (const line of p.stdout?.lines() ?? []) {
    t.is(line, 'up')
    p.kill('SIGUSR1')
    p.stdin?.end()
  }
  const { signal, cause } = await p
  t.is(signal, 'SIGKILL')
  t.is(cause, 'signal')
})

test('SIGKILL ends the whole container', async (t) => {
  const { sh } = await scene(t)
  const p = sh('sleep 60 & sleep 60')
  await p.started
  t.true(p.kill('SIGKILL'))
  const { exitCode, signal, cause } = await p
  t.deepEqual({ exitCode, signal, cause }, { exitCode: null, signal: 'SIGKILL', cause: 'killed' })
})

test('a kill right after the call is not lost', async (t) => {
  const { sh } = await scene(t)
  const p = sh('sleep 60')
  t.true(p.kill('SIGKILL'))
  t.is((await p).cause, 'killed')
})

test('what is no signal is refused by name', async (t) => {
  const { sh } = await scene(t)
  const p = sh('sleep 60')
  t.throws(() => p.kill('SIGNOPE' as NodeJS.Signals), { code: 'ERR_INVALID_OPTION', message: /^signal: / })
  t.throws(() => p.kill(0), { code: 'ERR_INVALID_OPTION' })
  p.kill('SIGKILL')
  await p
})

test('a timeout kills everything at once, and says so', async (t) => {
  const { sh } = await scene(t)
  const began = performance.now()
  const { signal, cause, stdout } = await sh('trap "" TERM; echo up; sleep 60 & sleep 60', {
    timeout: '200ms',
  })
  t.is(signal, 'SIGKILL')
  t.is(cause, 'timeout')
  t.is(stdout, 'up\n')
  const took = performance.now() - began
  t.true(took >= 200 && took < 1500, `${took} ms`)
})

test('a payload that ends in time has no timeout', async (t) => {
  const { sh } = await scene(t)
  t.is((await sh('exit 3', { timeout: 5000 })).cause, 'exit')
})

test('with a stop time the stop signal comes first', async (t) => {
  const { sh } = await scene(t)
  const script = 'trap "echo bye; exit 9" INT; echo up; while :; do sleep .01; done'
  const polite = await sh(script, { timeout: 300, stopTimeout: '5s', stopSignal: 'SIGINT' })
  t.is(polite.exitCode, 9)
  t.is(polite.cause, 'timeout')
  t.is(polite.stdout, 'up\nbye\n')
  const deaf = await sh('trap "" INT; while :; do sleep .01; done', {
    timeout: 200,
    stopTimeout: 200,
    stopSignal: 'INT',
  })
  t.is(deaf.signal, 'SIGKILL')
  t.is(deaf.cause, 'timeout')
})

test('an abort kills everything, and is the cause', async (t) => {
  const { sh } = await scene(t)
  const stop = new AbortController()
  const p = sh('echo up; sleep 60 & sleep 60', { signal: stop.signal })
  for await (const line of p.stdout?.lines() ?? []) {
    t.is(line, 'up')
    stop.abort()
  }
  const { signal, cause } = await p
  t.is(signal, 'SIGKILL')
  t.is(cause, 'aborted')
  // Nothing listens on the signal any more.
  stop.abort()
})

test('an abort that came before starts nothing', async (t) => {
  const { sh } = await scene(t)
  const p = sh('true', { signal: AbortSignal.abort() })
  await t.throwsAsync(p, { name: 'AbortError' })
})

test('an abort in the tick of the call', async (t) => {
  const { sh } = await scene(t)
  const stop = new AbortController()
  const p = sh('sleep 60', { signal: stop.signal })
  stop.abort()
  t.is((await p).cause, 'aborted')
})

test('a signal of AbortSignal.timeout is an abort', async (t) => {
  const { sh } = await scene(t)
  t.is((await sh('sleep 60', { signal: AbortSignal.timeout(100) })).cause, 'aborted')
})

test('an abort with a stop time lets the payload end by itself', async (t) => {
  const { sh } = await scene(t)
  const stop = new AbortController()
  const p = sh('trap "exit 4" TERM; echo up; while :; do sleep .01; done', {
    signal: stop.signal,
    stopTimeout: 5000,
  })
  for await (const _ of p.stdout?.lines() ?? []) stop.abort()
  const { exitCode, cause } = await p
  t.is(exitCode, 4)
  t.is(cause, 'aborted')
})

test('check makes a failure of a bad end, with the result in it', async (t) => {
  const { sh } = await scene(t)
  const error = await t.throwsAsync(sh('echo out; echo err >&2; exit 3', { check: true }), {
    instanceOf: CaissonError,
    code: 'ERR_COMMAND_FAILED',
    message: 'the command ended with exit code 3 (exit)',
  })
  const { result } = error as CaissonError & { result: Result }
  t.is(result.exitCode, 3)
  t.is(result.stdout, 'out\n')
  t.is(result.stderr, 'err\n')
  await t.throwsAsync(sh('sleep 60', { check: true, timeout: 50 }), {
    code: 'ERR_COMMAND_FAILED',
    message: 'the command ended with SIGKILL (timeout)',
  })
  t.is((await sh('true', { check: true })).exitCode, 0)
})

test('a block that owns a process ends it', async (t) => {
  const { sh } = await scene(t)
  let pid = 0
  {
    await using p = sh('sleep 60')
    await p.started
    pid = p.pid ?? 0
    t.true(pid > 0)
    t.notThrows(() => process.kill(pid, 0))
  }
  t.throws(() => process.kill(pid, 0), { code: 'ESRCH' })
})

test('the process knows itself', async (t) => {
  const { sh } = await scene(t)
  const p = sh('sleep 60', { name: 'one', labels: { a: 'b' } })
  t.regex(p.id, /^[0-9a-f]{64}$/)
  t.is(p.name, 'one')
  t.deepEqual(p.labels, { a: 'b' })
  t.is(p.pid, undefined)
  await p.started
  t.true((p.pid ?? 0) > 0)
  p.kill('SIGKILL')
  await p
})

test('figures of a running container, and none of one that ended', async (t) => {
  const { sh } = await scene(t)
  const p = sh('i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo up; sleep 60')
  for await (const _ of p.stdout?.lines() ?? []) {
    const [one, two] = await Promise.all([p.stats(), p.stats()])
    for (const { cpu } of [one, two]) {
      // A user's container may have no cgroup, and then no figures.
      if (hasGroups) t.true((cpu.user ?? 0) + (cpu.system ?? 0) > 0)
      else t.is(cpu.user, undefined)
    }
    p.kill('SIGKILL')
  }
  await p
  await t.throwsAsync(p.stats(), { code: 'ERR_NOT_RUNNING' })
})

test('the receipt: usage, timing, isolation', async (t) => {
  const { sh } = await scene(t)
  const { usage, timing, isolation } = await sh('i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep .05')
  t.true(usage.cpu.user + usage.cpu.system > 1)
  t.is(usage.estimate, !hasGroups)
  const { total, ...stages } = timing
  for (const [name, ms] of Object.entries(stages)) t.true(ms >= 0 && ms <= total, `${name} ${ms}`)
  t.true(stages.payload >= 50)
  const sum = Object.values(stages).reduce((all, ms) => all + ms, 0)
  t.true(Math.abs(sum - total) < 0.01, `${sum} of ${total}`)
  t.is(isolation.ids, isRoot ? 'root' : hasUsers ? 'range' : 'single')
  t.is(isolation.capabilities, '00000000a80425fb')
  t.true(isolation.seccomp)
  t.false(isolation.noNewPrivileges)
  t.false(isolation.shared.some((name) => ['mount', 'pid', 'network', 'ipc', 'uts', 'cgroup'].includes(name)))
})

test('a main process that ends takes the rest along', async (t) => {
  const { sh } = await scene(t)
  const began = performance.now()
  const { exitCode } = await sh('sleep 60 & (setsid sleep 60 &) ; exit 5')
  t.is(exitCode, 5)
  t.true(performance.now() - began < 1500)
})

test('the loop is free while containers start', async (t) => {
  const { sh } = await scene(t)
  await sh('true')
  let last = performance.now()
  let worst = 0
  const tick = setInterval(() => {
    worst = Math.max(worst, performance.now() - last)
    last = performance.now()
  }, 1)
  const runs = Array.from({ length: 20 }, () => sh('true'))
  await sleep(0)
  await Promise.all(runs)
  clearInterval(tick)
  t.true(worst < 150, `${worst} ms between two ticks of 1 ms`)
})

test('a command that is too long is a failure, of itself alone', async (t) => {
  const { run, sh } = await scene(t)
  const neighbour = sh('sleep 1; echo fine')
  await neighbour.started
  for (const length of [110_000, 140_000]) {
    const error = await t.throwsAsync(run(['x'.repeat(length)]), { code: 'ERR_COMMAND_NOT_EXECUTABLE' })
    t.true(error.message.length < 3000)
  }
  const source = `/${'a'.repeat(100_000)}`
  await t.throwsAsync(run(['true'], { mounts: [{ type: 'bind', source, target: '/x' }] }), {
    code: 'ERR_MOUNT_SOURCE',
  })
  t.is((await neighbour).stdout, 'fine\n')
})

test('times of weeks are no times of nothing', async (t) => {
  const { engine, sh } = await scene(t)
  t.is((await sh('sleep .3', { timeout: '1000h', stopTimeout: '1s' })).cause, 'exit')
  t.is((await sh('sleep .3', { timeout: '1000h' })).cause, 'exit')
  const script = 'trap "sleep .3; exit 7" TERM; echo up; while :; do sleep .01; done'
  const held = await engine.start({ rootfs }, ['sh', '-c', script])
  for await (const line of held.main.stdout?.lines() ?? []) if (line === 'up') break
  t.is((await held.stop({ timeout: '1000h' })).exitCode, 7)
})

test('with an init it is known who ended the command', async (t) => {
  const { run } = await scene(t)
  const ended = run(['sleep', '600'], { init: true })
  await ended.started
  ended.kill()
  const { exitCode, cause } = await ended
  t.deepEqual([exitCode, cause], [143, 'killed'])
})

test('a stdin that fails is one that ends', async (t) => {
  const { run } = await scene(t)
  const source = new Readable({ read: () => {} })
  const copied = run(['cat'], { stdio: [source, 'pipe', 'pipe'] })
  source.push('some')
  await copied.started
  source.once('error', () => {})
  source.destroy(new Error('gone'))
  t.is((await copied).stdout, 'some')
})
