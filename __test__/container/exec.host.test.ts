/** Another command in a container that runs. */
import { setTimeout as sleep } from 'node:timers/promises'
import { existsSync, readdirSync } from 'node:fs'
import test from 'ava'
import type { Container, ExecOptions, RunOptions } from '../../src/index.ts'
import { usersTest } from '../host/only.ts'
import { rootfs, scale, scene } from './scene.ts'
import type { Scene } from './scene.ts'

async function hold({ engine }: Scene, options: RunOptions = {}): Promise<Container> {
  return engine.start({ rootfs }, ['sleep', '600'], options)
}

function status(text: string, key: string): string {
  return new RegExp(`^${key}:\t(.*)$`, 'm').exec(text)?.[1] ?? ''
}

test('it is in the container: its processes, files, name, environment, and a cgroup of its own', async (t) => {
  const play = await scene(t)
  await using held = await hold(play, { env: { A: 'a', B: 'b' }, hostname: 'inside', workdir: '/tmp' })
  await held.exec(['sh', '-c', 'echo kept >/tmp/file'])
  const script =
    'cat file; hostname; pwd; echo $A $B $HOSTNAME $HOME; ps -o args; grep ^0: /proc/self/cgroup; ls /proc/self/fd'
  const { stdout, exitCode, cause, isolation } = await held.exec(['sh', '-c', script], {
    env: { B: 'other' },
  })
  const lines = stdout.split('\n')
  t.deepEqual(lines.slice(0, 4), ['kept', 'inside', '/tmp', 'a other inside /root'])
  t.true(lines.includes('sleep 600'))
  t.true(lines.includes('0::/'))
  t.deepEqual(lines.slice(-5), ['0', '1', '2', '3', ''])
  t.deepEqual([exitCode, cause], [0, 'exit'])
  const own = held.isolation
  for (const kind of ['ipc', 'mount', 'network', 'pid', 'user', 'uts'])
    t.is(isolation.namespaces[kind], own?.namespaces[kind], kind)
  t.is<string | undefined, string | undefined>(isolation.ids, own?.ids)
  if (own?.cgroup !== '') t.is(isolation.cgroup, `${own?.cgroup}/x-2`)
})

test('its rights are the container’s, or fewer', async (t) => {
  const play = await scene(t)
  await using held = await hold(play, { capDrop: ['CHOWN'] })
  const keys = ['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb', 'NoNewPrivs', 'Seccomp', 'Seccomp_filters']
  const seen = async (which: string, options?: ExecOptions): Promise<string[]> => {
    const { stdout } = await held.exec(['cat', `/proc/${which}/status`], options)
    return keys.map((key) => status(stdout, key))
  }
  const [main, own] = [await seen('1'), await seen('self')]
  t.deepEqual(own, main)
  const fewer = await seen('self', { capDrop: ['ALL'], noNewPrivileges: true })
  t.deepEqual(fewer.slice(0, 7), ['0', '0', '0', '0', '0'].map((zero) => zero.repeat(16)).concat('1', '2'))
  await t.throwsAsync(held.exec(['true'], { privileged: true } as ExecOptions), {
    code: 'ERR_INVALID_OPTION',
    message: /^privileged: /,
  })
  for (const name of ['capAdd', 'memory', 'network', 'cgroup', 'seccomp'])
    await t.throwsAsync(held.exec(['true'], { [name]: 'x' } as ExecOptions), {
      code: 'ERR_INVALID_OPTION',
      message: `${name}: is of a container, not of a command in it`,
    })
  await using bound = await hold(play, { noNewPrivileges: true })
  t.is(status((await bound.exec(['cat', '/proc/self/status'])).stdout, 'NoNewPrivs'), '1')
  await t.throwsAsync(bound.exec(['true'], { noNewPrivileges: false }), { message: /^noNewPrivileges: / })
})

usersTest('its user is looked up in the container', async (t) => {
  const play = await scene(t)
  await using held = await hold(play, { user: 'daemon', groups: ['audio'] })
  const id = async (options?: ExecOptions): Promise<string> => {
    const { stdout } = await held.exec(['sh', '-c', 'id -u; id -g; id -G; echo $HOME'], options)
    return stdout.replaceAll('\n', ' ').trim()
  }
  t.is(await id(), '1 1 1 29 50 /usr/sbin')
  t.is(await id({ user: 'alice' }), '1000 1000 1000 29 50 /home/alice')
  t.is(await id({ user: '0:staff', groups: ['7'] }), '0 50 50 7 /root')
  await t.throwsAsync(held.exec(['true'], { user: 'nobody' }), { code: 'ERR_USER_NOT_FOUND' })
})

test('what cannot start says why, and leaves nothing', async (t) => {
  const play = await scene(t)
  await using held = await hold(play)
  await t.throwsAsync(held.exec(['none']), { code: 'ERR_COMMAND_NOT_FOUND' })
  await t.throwsAsync(held.exec(['/etc/passwd']), { code: 'ERR_COMMAND_NOT_EXECUTABLE' })
  await t.throwsAsync(held.exec(['true'], { workdir: '/none' }), {
    code: 'ERR_LAUNCH',
    message: /cwd: \/none: /,
  })
  await t.throwsAsync(held.exec(['true'], { workdir: 'x' }), { message: /^workdir: / })
  await t.throwsAsync(held.exec([]), { message: /^command: / })
  await t.throwsAsync(held.exec(['true'], { timeout: -1 }), { message: /^timeout: / })
  const cgroup = held.isolation?.cgroup ?? ''
  if (cgroup !== '')
    t.deepEqual(
      readdirSync(cgroup).filter((name) => name.startsWith('x-')),
      [],
    )
  await held.stop({ timeout: 0 })
  await t.throwsAsync(held.exec(['true']), { code: 'ERR_NOT_RUNNING' })
})

test('stdio: bytes in and out, a terminal, lines', async (t) => {
  const play = await scene(t)
  await using held = await hold(play)
  const big = 'x'.repeat(1 << 20)
  t.is((await held.exec(['cat'], { input: big })).stdout, big)
  const both = await held.exec(['sh', '-c', 'echo out; echo err >&2; exit 3'])
  t.deepEqual([both.stdout, both.stderr, both.exitCode], ['out\n', 'err\n', 3])
  const { stdout } = await held.exec(
    ['sh', '-c', 'tty; stty size; echo typed >/dev/tty; ps -o pid,args | grep -c sh'],
    {
      tty: true,
      size: { columns: 100, rows: 30 },
    },
  )
  t.regex(stdout, /^\/dev\/pts\/\d+\r\n30 100\r\ntyped\r\n/)
  const counted = held.exec(['sh', '-c', 'for i in 1 2 3; do echo $i; done; sleep 60'])
  const lines: string[] = []
  for await (const line of counted.stdout?.lines() ?? []) {
    lines.push(line)
    if (lines.length === 3) break
  }
  t.deepEqual(lines, ['1', '2', '3'])
  t.true(counted.kill('SIGKILL'))
  t.is((await counted).cause, 'killed')
  t.false(counted.kill())
})

test('timeout, abort and kill end it with all its children, and nothing else', async (t) => {
  const play = await scene(t)
  await using held = await hold(play)
  const other = held.exec(['sleep', '600'])
  await other.started
  const family = '(sleep 601 & sleep 602 &) ; (setsid sh -c "sleep 603 & sleep 604" &); sleep 605'
  const alive = async (): Promise<string[]> => {
    const { stdout } = await held.exec(['ps', '-o', 'args'])
    return [...stdout.matchAll(/^sleep (\d+)$/gm)].map((match) => match[1] ?? '').toSorted()
  }
  const all = ['600', '600', '601', '602', '603', '604', '605']
  const controller = new AbortController()
  const ways: [string, ExecOptions, (() => void) | undefined][] = [
    ['timeout', { timeout: 1500 * scale ** 0.5 }, undefined],
    ['aborted', { signal: controller.signal }, () => controller.abort()],
    ['killed', {}, undefined],
  ]
  for (const [cause, options, end] of ways) {
    const command = held.exec(['sh', '-c', family], options)
    for (let look = 0; look < 200 && (await alive()).length < all.length; look += 1) await sleep(10)
    if (cause !== 'timeout') t.deepEqual(await alive(), all)
    end?.()
    if (cause === 'killed') command.kill('SIGKILL')
    t.is<string, string>((await command).cause, cause)
    t.deepEqual(await alive(), ['600', '600'])
  }
  t.is(
    (await held
      .exec(['true'], { signal: AbortSignal.abort() })
      .catch((error: Error) => error.name)) as unknown,
    'AbortError',
  )
  other.kill()
  t.is((await other).signal, 'SIGTERM')
})

test('a signal that comes before the command does is not lost', async (t) => {
  const play = await scene(t)
  await using held = await hold(play)
  for (let round = 0; round < 20; round += 1) {
    const command = held.exec(['sleep', '60'])
    if (round % 2 === 1) await sleep(round / 10)
    t.true(command.kill())
    const { cause, signal } = await command
    t.deepEqual([cause, signal], ['killed', 'SIGTERM'])
  }
})

test('a container whose first process is an init is entered, too', async (t) => {
  const play = await scene(t)
  await using held = await play.engine.start({ rootfs }, ['sleep', '600'], { init: true })
  const { stdout } = await held.exec(['ps', '-o', 'pid,args'])
  t.regex(stdout, /^ +1 .*caisson-runtime init \d+$/m)
  await t.throwsAsync(held.dial(9), { code: 'ERR_DIAL', message: /ECONNREFUSED/ })
  t.is((await held.stop()).exitCode, 143)
})

test('what it leaves behind lives on, and ends with the container', async (t) => {
  const play = await scene(t)
  const held = await hold(play)
  const { exitCode } = await held.exec(['sh', '-c', 'sleep 600 >/dev/null 2>&1 &'])
  t.is(exitCode, 0)
  t.is((await held.exec(['sh', '-c', 'pidof sleep | wc -w'])).stdout, '2\n')
  const cgroup = held.isolation?.cgroup ?? ''
  if (cgroup !== '') {
    await held.exec(['sh', '-c', 'sleep .2 >/dev/null 2>&1 &'])
    const groups = (): number => readdirSync(cgroup).filter((name) => name.startsWith('x-')).length
    t.is(groups(), 2)
    for (let look = 0; look < 50 && groups() > 1; look += 1) await sleep(100)
    t.is(groups(), 1)
  }
  await held[Symbol.asyncDispose]()
})

test('the container’s end is theirs', async (t) => {
  const play = await scene(t)
  const held = await hold(play)
  const commands = Array.from({ length: 5 }, () => held.exec(['sleep', '600']))
  await Promise.all(commands.map(async (one) => one.started))
  const late = Array.from({ length: 5 }, () => held.exec(['sleep', '600']))
  await held.stop({ timeout: 0 })
  for (const one of commands) t.deepEqual([(await one).signal, (await one).cause], ['SIGKILL', 'signal'])
  for (const one of late) {
    const outcome = await one.then(
      ({ signal }) => signal,
      (error: { code?: string }) => error.code,
    )
    t.true(outcome === 'ERR_NOT_RUNNING' || outcome === 'SIGKILL', outcome ?? '')
  }
})

test('a container that is killed while commands come in ends all the same', async (t) => {
  const play = await scene(t)
  for (let round = 0; round < 100 / scale; round += 1) {
    const held = await hold(play)
    const commands = Array.from({ length: 4 }, async () => held.exec(['true']).catch(() => {}))
    await sleep(Math.random() * 4)
    held.kill()
    t.is((await held.wait()).cause, 'killed')
    await Promise.all(commands)
  }
})

test('many at once, each with its own figures', async (t) => {
  const play = await scene(t)
  await using held = await hold(play)
  const total = 200 / scale
  const results: number[] = []
  let next = 0
  await Promise.all(
    Array.from({ length: 20 }, async () => {
      while (next < total) {
        const number = (next += 1)
        const busy = number % 50 === 0 ? 'i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done;' : ''
        const { stdout, usage } = await held.exec(['sh', '-c', `${busy} echo ${number}`])
        t.is(stdout, `${number}\n`)
        results[number] = usage.cpu.user + usage.cpu.system
      }
    }),
  )
  const heavy = results.filter((_, number) => number % 50 === 0)
  const light = results.filter((_, number) => number % 50 !== 0).toSorted((a, b) => a - b)
  const median = light[light.length >> 1] ?? 0
  for (const cpu of heavy) t.true(cpu > median, `${cpu} > ${median}`)
  const cgroup = held.isolation?.cgroup ?? ''
  if (cgroup !== '' && existsSync(cgroup))
    t.deepEqual(
      readdirSync(cgroup).filter((name) => name.startsWith('x-')),
      [],
    )
})
