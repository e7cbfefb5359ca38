/** Limits that the kernel holds: memory, pids, processors, devices. On a machine whose controllers are version 2's. */
import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { scene } from './scene.ts'

const controllers = new Set(readFileSync('/sys/fs/cgroup/cgroup.controllers', 'utf8').trim().split(' '))

/** Takes memory until there is none: tail keeps a last line that never ends. */
const hog = 'tail /dev/zero'

test('out of memory is a cause of its own', async (t) => {
  const { run } = await scene(t)
  const { exitCode, signal, cause, usage, isolation } = await run(['tail', '/dev/zero'], {
    memory: '20m',
    memorySwap: '20m',
  })
  t.deepEqual({ exitCode, signal, cause }, { exitCode: null, signal: 'SIGKILL', cause: 'oom' })
  t.true((usage.oomKills ?? 0) >= 1)
  t.is(isolation.limits['memory.max'], String(20 << 20))
  const peak = usage.memory.peak
  if (peak === undefined) t.true(usage.missing.includes('memory.peak'))
  else t.true(peak > 10 << 20 && peak <= 21 << 20, String(peak))
})

test('a child that the OOM killer takes counts, and is no cause', async (t) => {
  const { sh } = await scene(t)
  const { exitCode, signal, cause, usage, stdout } = await sh(`${hog}; echo "it ended with $?"; exit 5`, {
    memory: '20m',
    memorySwap: '20m',
  })
  t.is(stdout, 'it ended with 137\n')
  t.deepEqual({ exitCode, signal, cause }, { exitCode: 5, signal: null, cause: 'exit' })
  t.is(usage.oomKills, 1)
})

test('an OOM under --init', async (t) => {
  const { run } = await scene(t)
  const { exitCode, usage } = await run(['tail', '/dev/zero'], {
    memory: '20m',
    memorySwap: '20m',
    init: true,
  })
  t.is(exitCode, 137)
  t.true((usage.oomKills ?? 0) >= 1)
})

test('one out of memory leaves its neighbours alone', async (t) => {
  const { run, sh } = await scene(t)
  const neighbour = sh('echo up; read line; echo "$line"')
  for await (const line of neighbour.stdout?.lines() ?? []) {
    if (line !== 'up') break
    t.is((await run(['tail', '/dev/zero'], { memory: '16m', memorySwap: '16m' })).cause, 'oom')
    neighbour.stdin?.end('fine\n')
  }
  t.is((await neighbour).exitCode, 0)
})

test('a container sees its own limits', async (t) => {
  const { sh } = await scene(t)
  const script =
    'cd /sys/fs/cgroup; for f in memory.max memory.low memory.swap.max pids.max cpu.max cpu.weight; do [ -e $f ] && echo "$f $(cat $f)"; done'
  const { stdout, isolation } = await sh(script, {
    memory: '64m',
    memorySwap: '96m',
    memoryReservation: '32m',
    pids: 33,
    cpus: 0.5,
    cpuShares: 512,
  })
  const seen = Object.fromEntries(
    stdout
      .trim()
      .split('\n')
      .map((line) => [line.slice(0, line.indexOf(' ')), line.slice(line.indexOf(' ') + 1)]),
  )
  t.is(seen['memory.max'], String(64 << 20))
  t.is(seen['memory.low'], String(32 << 20))
  t.is(seen['pids.max'], '33')
  t.is(seen['cpu.max'], '50000 100000')
  if ('memory.swap.max' in seen) t.is(seen['memory.swap.max'], String(32 << 20))
  for (const [file, value] of Object.entries(isolation.limits)) t.is(seen[file] ?? value, value, file)
  t.is(isolation.limits['pids.max'], '33')
})

test('twice the memory is memory and swap together, by default', async (t) => {
  const { sh } = await scene(t)
  const { stdout } = await sh('cat /sys/fs/cgroup/memory.swap.max 2>/dev/null || echo none', {
    memory: '64m',
  })
  t.regex(stdout, new RegExp(`^(${64 << 20}|none)\n$`))
  const free = await sh('cat /sys/fs/cgroup/memory.swap.max 2>/dev/null || echo none', {
    memory: '64m',
    memorySwap: -1,
  })
  t.regex(free.stdout, /^(max|none)\n$/)
})

test('a fork bomb stays in its bounds, and the machine is fine', async (t) => {
  const { sh, run } = await scene(t)
  // By exec: a shell that must fork among its children fails and ends.
  const bomb = sh('f() { f | f & }; (f) & exec sleep 60', { pids: 20, timeout: 4000 })
  await bomb.started
  let most = 0
  // On a slow machine it is over before all looks are taken.
  for (let look = 0, over = false; look < 50 && !over; look += 1) {
    const stats = await bomb.stats().catch(() => undefined)
    over = stats === undefined
    most = Math.max(most, stats?.pids.current ?? 0)
    t.true(most <= 20)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  t.true(most >= 10, `${most}`)
  t.is((await run(['echo', 'fine'])).stdout, 'fine\n')
  const { cause, usage } = await bomb
  t.is(cause, 'timeout')
  if (usage.pids.peak !== undefined) t.true(usage.pids.peak <= 20)
})

test('pids: 0 and -1 are no limit', async (t) => {
  const { sh } = await scene(t)
  for (const pids of [0, -1]) {
    t.is((await sh('cat /sys/fs/cgroup/pids.max 2>/dev/null || echo max', { pids })).stdout, 'max\n')
  }
})

test('processors: held back, and that is seen', async (t) => {
  const { sh } = await scene(t)
  const began = performance.now()
  const { usage } = await sh('i=0; while [ $i -lt 150000 ]; do i=$((i+1)); done', { cpus: 0.2 })
  const wall = performance.now() - began
  const used = usage.cpu.user + usage.cpu.system
  t.true((usage.throttled ?? 0) > 0)
  t.true(used / wall < 0.35, `${used} ms in ${wall} ms`)
})

test('devices: as fast as allowed', async (t) => {
  const { sh, dir } = await scene(t)
  const file = join(dir, 'disk')
  writeFileSync(file, Buffer.alloc(4 << 20))
  const device = execFileSync('losetup', ['-f', '--show', file], { encoding: 'utf8' }).trim()
  t.teardown(() => execFileSync('losetup', ['-d', device]))
  const script = `dd if=${device} of=/dev/null bs=64k count=16 iflag=direct 2>&1 | tail -1`
  const read = async (readBps?: string): Promise<number> => {
    const began = performance.now()
    const { exitCode, stderr } = await sh(script, {
      devices: [device],
      io: [{ device, ...(readBps !== undefined && { readBps }) }],
    })
    t.is(exitCode, 0, stderr)
    return performance.now() - began
  }
  const free = await read()
  const held = await read('1m')
  t.true(held > 700, `${held} ms for 1 MiB at 1 MiB a second`)
  t.true(free < held / 2, `${free} ms without a limit`)
})

test('any other file of the group', async (t) => {
  const { sh } = await scene(t)
  const { stdout } = await sh('cat /sys/fs/cgroup/memory.high', { cgroup: { 'memory.high': '50000000' } })
  t.true(Math.abs(Number(stdout) - 50_000_000) <= 4096, stdout)
  await t.throwsAsync(sh('true', { cgroup: { '../x': '1' } }), { message: /\.\.\/x/ })
  await t.throwsAsync(sh('true', { cgroup: { 'cgroup.procs': '1' } }), { message: /cgroup\.procs/ })
  await t.throwsAsync(sh('true', { cgroup: { 'memory.nope': '1' } }), { message: /memory\.nope/ })
})

test('a controller that this kernel has not is refused, with what to do', async (t) => {
  const { run } = await scene(t)
  if (controllers.has('cpuset')) {
    const { isolation } = await run(['true'], { cpuset: '0' })
    t.is(isolation.limits['cpuset.cpus'], '0')
    return
  }
  const error = await t.throwsAsync(run(['true'], { cpuset: '0' }), { code: 'ERR_NO_CONTROLLER' })
  t.regex(error.message, /cpuset/)
})

test('figures of a running container', async (t) => {
  const { sh } = await scene(t)
  // Not a last command that the shell becomes: its memory would be gone.
  const p = sh('x=$(head -c 3000000 /dev/zero | tr "\\0" y); echo up ${#x}; sleep 60; :', { memory: '64m' })
  for await (const line of p.stdout?.lines() ?? []) {
    t.is(line, 'up 3000000')
    const { memory, pids } = await p.stats()
    t.true((memory.current ?? 0) > 2_000_000, JSON.stringify(memory))
    t.true((pids.current ?? 1) >= 1)
    p.kill('SIGKILL')
  }
  await p
})

test('limits that cannot be are refused', async (t) => {
  const { run } = await scene(t)
  const wrong = [
    { memory: '5m' },
    { memorySwap: '64m' },
    { memory: '64m', memorySwap: '32m' },
    { cpus: 1000 },
    { cpuShares: 1 },
    { cpuset: '0-' },
    {
      io: [
        { device: '/dev/null', readBps: '1m' },
        { device: '/no/dev', readBps: 1 },
      ],
    },
    { io: [{ device: '/dev/null', readBps: 0 }] },
  ]
  for (const options of wrong) {
    await t.throwsAsync(run(['true'], options), { code: 'ERR_INVALID_OPTION' }, JSON.stringify(options))
  }
})
