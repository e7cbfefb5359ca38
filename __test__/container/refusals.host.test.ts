/** What is refused, by which code, and that nothing is left of it. */
import { closeSync, existsSync, mkdirSync, openSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { CaissonError, Engine } from '../../src/index.ts'
import type { RunOptions } from '../../src/index.ts'
import { rootfs, scene } from './scene.ts'

test('root file systems that cannot be', async (t) => {
  const { engine, dir } = await scene(t)
  await t.throwsAsync(engine.run({ rootfs: '/no/such/dir' }, ['true']), {
    instanceOf: CaissonError,
    code: 'ERR_MOUNT_SOURCE',
    message: 'source: /no/such/dir: no such file or directory',
  })
  writeFileSync(join(dir, 'file'), '')
  await t.throwsAsync(engine.run({ rootfs: join(dir, 'file') }, ['true']), {
    code: 'ERR_MOUNT_SOURCE',
    message: /is not a directory/,
  })
  for (const wrong of ['', 'a\0b']) {
    await t.throwsAsync(engine.run({ rootfs: wrong }, ['true']), { code: 'ERR_INVALID_OPTION' })
  }
  await t.throwsAsync(engine.run(undefined as unknown as string), {
    code: 'ERR_INVALID_OPTION',
    message: /^image: /,
  })
  await t.throwsAsync(engine.run({} as { rootfs: string }), { code: 'ERR_INVALID_OPTION' })
  await t.throwsAsync(engine.run({ rootfs, readOnly: true } as { rootfs: string }, ['true']), {
    message: "image: unknown field 'readOnly' beside rootfs",
  })
  await t.throwsAsync(engine.run({ rootfs }, ['echo', 1] as unknown as string[]), { message: /^command: / })
  await t.throwsAsync(engine.run({ rootfs }, 'echo hi' as unknown as string[]), { message: /^command: / })
  for (const options of [null, [], 5])
    await t.throwsAsync(engine.run({ rootfs }, ['true'], options as unknown as RunOptions), {
      message: /^options: /,
    })
  t.throws(() => new Engine({ dataRoot: '/x' } as object), { message: 'dataRoot: unknown option' })
  t.throws(() => new Engine({ root: 5 } as object), { code: 'ERR_INVALID_OPTION' })
  mkdirSync(join(dir, 'empty'))
  await t.throwsAsync(engine.run({ rootfs: join(dir, 'empty') }, ['true']), { code: 'ERR_COMMAND_NOT_FOUND' })
  // A path relative to this program's directory, as everywhere in Node.
  await t.throwsAsync(engine.run({ rootfs: 'no/such/dir' }, ['true']), { code: 'ERR_MOUNT_SOURCE' })
})

test('so is a field of one, and a value of the wrong kind in it', async (t) => {
  const { run } = await scene(t)
  const wrong: [string, unknown, RegExp][] = [
    ['mounts', [{ type: 'bind', source: '/tmp', target: '/m', readonly: true }], /unknown field 'readonly'/],
    ['mounts', [{ type: 'bind', source: '/tmp', target: '/m', readOnly: 'true' }], /readOnly: .*boolean/],
    ['mounts', [{ type: 'tmpfs', target: '/m', sizee: '1m' }], /unknown field 'sizee'/],
    ['mounts', [null], /null/],
    ['mounts', ['/a:/b'], /string/],
    ['io', [{ device: '/dev/null', readbps: '1m' }], /unknown field 'readbps'/],
    ['io', [null], /null/],
    ['devices', [{ host: '/dev/null', permission: 'r' }], /unknown field 'permission'/],
    ['devices', [null], /null/],
    ['tmpfs', { '/x': 5 }, /\/x: .*number/],
    ['entrypoint', [1], /number/],
    ['capAdd', [5], /number/],
    ['ulimits', { nofile: null }, /nofile: .*null/],
    ['ulimits', { nofile: { soft: 1, hart: 2 } }, /unknown field 'hart'/],
    ['labels', { a: 1 }, /number/],
    ['size', { columns: '80', rows: 24 }, /columns/],
    ['input', { a: 1 }, /input/],
    ['shmSize', -1, /negative/],
  ]
  for (const [name, value, message] of wrong) {
    const error = await t.throwsAsync(run(['true'], { [name]: value }), {
      code: 'ERR_INVALID_OPTION',
      message,
    })
    t.true(error.message.startsWith(`${name}: `), error.message)
  }
})

test('what is refused for its stdin has not begun', async (t) => {
  const { run, dir } = await scene(t)
  const mounts = [{ type: 'bind', source: dir, target: '/m' }] as const
  for (const options of [
    { stdio: 'ignore', input: 'x' },
    { stdio: ['inherit', 'pipe', 'pipe'], input: 'x' },
  ])
    await t.throwsAsync(run(['touch', '/m/begun'], { ...options, mounts } as RunOptions), {
      code: 'ERR_INVALID_OPTION',
      message: /^input: /,
    })
  await run(['true'])
  t.false(existsSync(join(dir, 'begun')))
})

test('an option that is unknown is refused by name', async (t) => {
  const { run } = await scene(t)
  for (const name of ['memry', 'privileged', 'Memory', '__proto__x', 'cpu']) {
    await t.throwsAsync(run(['true'], { [name]: 1 }), {
      code: 'ERR_INVALID_OPTION',
      message: `${name}: unknown option`,
    })
  }
})

test('values of the wrong kind are refused by name', async (t) => {
  const { run } = await scene(t)
  const wrong: Record<string, unknown> = {
    env: ['A=1'],
    user: {},
    workdir: 1,
    entrypoint: 5,
    hostname: 'a b',
    tty: 'yes',
    maxBuffer: 'lots',
    timeout: 'soon',
    signal: {},
    stopTimeout: -1,
    stopSignal: 'SIGNOPE',
    check: 1,
    init: 'true',
    memory: 'big',
    cpus: 0,
    cpuset: 'all',
    pids: 1.5,
    ulimits: { nofile: 'x' },
    mounts: {},
    tmpfs: [],
    readOnly: 1,
    capAdd: 'ALL',
    devices: '/dev/null',
    sysctls: ['a=1'],
    labels: 'x',
    name: '-x',
    network: 1,
    groups: 5,
    encoding: 'latin1',
    input: 5,
    size: 7,
  }
  for (const [name, value] of Object.entries(wrong)) {
    const error = await t.throwsAsync(run(['true'], { [name]: value }), { code: 'ERR_INVALID_OPTION' }, name)
    t.regex(error.message, new RegExp(`^${name}\\b`), name)
  }
})

test('a specification that cannot be is refused before anything is made', async (t) => {
  const { run } = await scene(t)
  const over = (target: string): RunOptions => ({ tmpfs: { [target]: '' } })
  const refused: [readonly string[], RunOptions, RegExp][] = [
    [['true'], over('/proc'), /'\/proc' would cover the container's \/proc/],
    [['true'], over('/proc/self'), /mounts\[\d+\]\.destination: '\/proc\/self' would cover/],
    [['true'], over('//proc/./sys/kernel'), /would cover/],
    [['true'], { mounts: [{ type: 'bind', source: '/etc', target: '/proc' }] }, /would cover/],
    [['a\0b'], {}, /process\.args: holds a NUL byte/],
    [['a\ud800'], {}, /^command: holds half of a surrogate pair/],
    [['true'], { env: { A: '\udc00' } }, /^env: the value of A/],
    [
      ['true'],
      { env: Object.fromEntries(Array.from({ length: 50 }, (_, n) => [`V${n}`, 'x'.repeat(1e5)])) },
      /4 MiB/,
    ],
  ]
  for (const [command, options, message] of refused) {
    const error = await t.throwsAsync(run(command, options), { instanceOf: CaissonError }, String(message))
    t.regex(error.message, message)
    t.regex(error.code, /^ERR_INVALID_(OPTION|SPEC)$/)
  }
  // Figures of the machine may be covered: tools show a container its own there.
  const own = { mounts: [{ type: 'bind' as const, source: '/etc/hostname', target: '/proc/uptime' }] }
  t.is((await run(['true'], own)).exitCode, 0)
})

test('a program that has no descriptor left is told so', async (t) => {
  const { run, root } = await scene(t)
  await run(['true'])
  const fds: number[] = []
  try {
    for (;;) fds.push(openSync('/dev/null', 'r'))
  } catch (error) {
    t.regex(String(error), /EMFILE/, root)
  }
  for (const fd of fds.splice(-2)) closeSync(fd)
  const error = await t.throwsAsync(run(['true']), { instanceOf: CaissonError, code: 'ERR_LAUNCH' })
  t.regex(error.message, /EMFILE/)
  for (const fd of fds) closeSync(fd)
  t.is((await run(['true'])).exitCode, 0)
})

test('a promise that is refused has the shape of a process', async (t) => {
  const { run } = await scene(t)
  const p = run(['true'], { nope: 1 } as RunOptions)
  t.is(p.pid, undefined)
  t.false(p.kill())
  p.resize({ columns: 1, rows: 1 })
  await p.started
  await p[Symbol.asyncDispose]()
  await t.throwsAsync(p.stats(), { code: 'ERR_INVALID_OPTION' })
  await t.throwsAsync(p)
})

test('roots that cannot be', (t) => {
  t.throws(() => new Engine({ root: 'relative' }), { code: 'ERR_INVALID_OPTION', message: /^root: / })
  t.throws(() => new Engine({ root: '/x', runRoot: 'relative' }), {
    code: 'ERR_INVALID_OPTION',
    message: /^runRoot: /,
  })
})

test('a shim that cannot begin says why', async (t) => {
  const { dir } = await scene(t)
  writeFileSync(join(dir, 'file'), '')
  const engine = new Engine({ root: join(dir, 'file') })
  await t.throwsAsync(engine.run({ rootfs }, ['true']), { instanceOf: CaissonError, message: /file/ })
  await engine.close()
  const other = new Engine({ root: join(dir, 'e'), cgroupParent: '/sys/fs/cgroup/no/such/parent' })
  await t.throwsAsync(other.run({ rootfs }, ['true']), {
    instanceOf: CaissonError,
    message: /no\/such\/parent/,
  })
  await other.close()
})

test('a limit whose controller is not there is refused, with what to do', async (t) => {
  if (process.env.CAISSON_TEST_HOST !== 'private') {
    t.pass()
    return
  }
  const { run } = await scene(t)
  const wanted: [RunOptions, RegExp][] = [
    [{ memory: '64m' }, /memory/],
    [{ pids: 10 }, /pids/],
    [{ cpus: 0.5 }, /cpu/],
    [{ cpuset: '0' }, /cpuset/],
  ]
  for (const [options, said] of wanted) {
    const error = await t.throwsAsync(
      run(['true'], options),
      { code: 'ERR_NO_CONTROLLER' },
      JSON.stringify(options),
    )
    t.regex(error.message, said)
    // Held by version 1, as on hybrid hosts: it says so, and what to do.
    t.regex(error.message, /version 1|v1|cgroup/)
  }
})

test('a closed engine’s runs fail, and it starts anew', async (t) => {
  const { engine } = await scene(t)
  const p = engine.run({ rootfs }, ['sleep', '60'])
  await p.started
  await engine.close()
  await t.throwsAsync(p, { code: 'ERR_SHIM_LOST' })
  t.is((await engine.run({ rootfs }, ['echo', 'again'])).stdout, 'again\n')
})

test('plans do not pile up', async (t) => {
  const { run } = await scene(t)
  const { readdirSync, readlinkSync } = await import('node:fs')
  for (let n = 0; n < 80; n += 1) await run(['true'], { env: { N: String(n) } })
  const plans = readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith('/memfd:caisson-plan')
    } catch {
      return false
    }
  })
  t.true(plans.length <= 32, `${plans.length}`)
})
