/** What a container sees of itself: the texts that reference runtimes give, and nothing of the host's. */
import { readFileSync } from 'node:fs'
import { release } from 'node:os'
import test from 'ava'
import { hasGroups, hasUsers, isRoot } from '../host/ground.ts'
import { scene } from './scene.ts'

/** Whether the kernel is at least this. */
function kernel(major: number, minor: number): boolean {
  const [m = 0, n = 0] = release().split(/[.-]/).map(Number)
  return m > major || (m === major && n >= minor)
}

test('/proc/self/status', async (t) => {
  const { run } = await scene(t)
  const { stdout } = await run(['cat', '/proc/self/status'])
  const fields = new Map(stdout.split('\n').map((line) => line.split(/:\s*/, 2) as [string, string]))
  const golden = {
    NoNewPrivs: '0',
    Seccomp: '2',
    Seccomp_filters: '1',
    Groups: '0 ',
    NSpid: '1',
    SigPnd: '0000000000000000',
    ShdPnd: '0000000000000000',
    SigBlk: '0000000000000000',
    SigIgn: '0000000000000000',
    CapInh: '0000000000000000',
    CapPrm: '00000000a80425fb',
    CapEff: '00000000a80425fb',
    CapBnd: '00000000a80425fb',
    CapAmb: '0000000000000000',
    CoreDumping: '0',
    Umask: '0022',
  }
  for (const [name, value] of Object.entries(golden)) t.is(fields.get(name)?.trimEnd(), value.trimEnd(), name)
})

test('/proc/self/fd: three, and the directory’s own', async (t) => {
  const { run } = await scene(t)
  t.is((await run(['ls', '/proc/self/fd'], { stdio: ['ignore', 'pipe', 'pipe'] })).stdout, '0\n1\n2\n3\n')
  t.is(
    (await run(['readlink', '/proc/self/fd/0'], { stdio: ['ignore', 'pipe', 'pipe'] })).stdout,
    '/dev/null\n',
  )
  const { stdout } = await run(['sh', '-c', 'for n in 0 1 2; do readlink /proc/1/fd/$n; done; ls /proc/1/fd'])
  t.regex(stdout, /^pipe:\[\d+\]\npipe:\[\d+\]\npipe:\[\d+\]\n0\n1\n2\n/)
  const tty = await run(['sh', '-c', 'for n in 0 1 2; do readlink /proc/self/fd/$n; done'], { tty: true })
  t.is(tty.stdout, '/dev/pts/0\r\n'.repeat(3))
})

test('its cgroup is the root of all', async (t) => {
  const { run } = await scene(t)
  const { stdout } = await run(['cat', '/proc/self/cgroup'])
  t.true(stdout.trim().split('\n').includes('0::/'))
  const seen = await run(['sh', '-c', 'cat /sys/fs/cgroup/cgroup.procs; mkdir /sys/fs/cgroup/x'])
  // A user's container without a group of its own is in this program's, whose other processes have no number in it.
  t.regex(seen.stdout, hasGroups ? /^1\n/ : /^(0\n)*1\n/)
  t.regex(seen.stderr, /Read-only file system/)
})

test('ids, time, keys', async (t) => {
  const { run } = await scene(t)
  t.is((await run(['cat', '/proc/self/setgroups'])).stdout, hasUsers ? 'allow\n' : 'deny\n')
  const map = (await run(['cat', '/proc/self/uid_map'])).stdout
  if (isRoot) t.regex(map, /^ +0 +0 +4294967295\n$/)
  else t.regex(map, hasUsers ? /^ +0 +\d+ +1\n +1 +\d+ +65536\n$/ : /^ +0 +\d+ +1\n$/)
  t.is((await run(['wc', '-c', '/proc/keys'])).stdout, '0 /proc/keys\n')
  const { stdout } = await run([
    'sh',
    '-c',
    '[ ! -e /proc/self/timens_offsets ] || cat /proc/self/timens_offsets',
  ])
  t.regex(stdout, /^(monotonic +0 +0\nboottime +0 +0\n)?$/)
})

test('the first process is the payload', async (t) => {
  const { run } = await scene(t)
  t.is((await run(['readlink', '/proc/1/exe'])).stdout, '/bin/busybox\n')
  t.is((await run(['cut', '-d ', '-f4-7', '/proc/1/stat'])).stdout, '0 1 1 0\n')
  const { stdout } = await run(['sh', '-c', 'tr "\\0" "\\n" </proc/1/environ | cut -d= -f1'])
  t.deepEqual(stdout.trim().split('\n').toSorted(), ['HOME', 'HOSTNAME', 'PATH'])
  t.is((await run(['sh', '-c', 'ls -d /proc/[0-9]*; :'])).stdout.split('\n').length <= 3, true)
})

test('/proc/self/mountinfo', async (t) => {
  const { run } = await scene(t)
  const { stdout } = await run(['cat', '/proc/self/mountinfo'])
  const lines = stdout.trim().split('\n')
  const seen = lines.map((line) => {
    const [left = '', right = ''] = line.split(' - ')
    const words = left.split(' ')
    // A tag of a peer group would stand behind the flags.
    t.is(words.length, 6, line)
    return { place: words[4] ?? '', flags: words[5] ?? '', file: right }
  })
  const at = (place: string): string => {
    const one = seen.find((mount) => mount.place === place)
    return `${one?.flags} - ${one?.file}`
  }
  t.is(seen[0]?.place, '/')
  t.regex(at('/'), /^rw,relatime - overlay overlay rw,/)
  t.is(at('/proc'), 'rw,nosuid,nodev,noexec,relatime - proc proc rw')
  t.regex(at('/dev'), /^rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755/)
  t.regex(at('/dev/pts'), /^rw,nosuid,noexec,relatime - devpts devpts rw,(gid=\d+,)?mode=620,ptmxmode=666$/)
  t.is(at('/dev/pts').includes('gid='), hasUsers)
  t.is(at('/sys'), 'ro,nosuid,nodev,noexec,relatime - sysfs sysfs rw')
  t.regex(at('/sys/fs/cgroup'), /^ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw/)
  t.is(at('/dev/mqueue'), 'rw,nosuid,nodev,noexec,relatime - mqueue mqueue rw')
  t.regex(at('/dev/shm'), /^rw,nosuid,nodev,noexec,relatime - tmpfs shm rw,size=65536k/)
  const own = ['/proc', '/dev', '/dev/pts', '/sys', '/sys/fs/cgroup', '/dev/mqueue', '/dev/shm']
  // Since 6.8 the table is sorted by the age of the mounts, and all were opened before any was attached.
  const order = seen.map(({ place }) => place).filter((place) => own.includes(place))
  t.deepEqual(order, own)
  const exists = async (path: string): Promise<boolean> => (await run(['test', '-e', path])).exitCode === 0
  const files = ['/etc/resolv.conf', '/etc/hostname', '/etc/hosts']
  const candidates = {
    readOnly: ['bus', 'fs', 'irq', 'sys', 'sysrq-trigger'].map((name) => `/proc/${name}`),
    masked: [
      ...'acpi asound interrupts kcore keys latency_stats sched_debug scsi timer_list timer_stats'
        .split(' ')
        .map((name) => `/proc/${name}`),
      '/sys/devices/virtual/powercap',
      '/sys/firmware',
    ],
  }
  // A user makes no nodes: its devices are the machine's, bound.
  const devices = isRoot
    ? []
    : ['full', 'null', 'random', 'tty', 'urandom', 'zero'].map((name) => `/dev/${name}`)
  for (const path of devices) t.regex(at(path), /^rw,nosuid,noexec,relatime - devtmpfs /)
  const expected = ['/', ...own, ...files, ...devices]
  for (const path of candidates.readOnly) {
    if (!(await exists(path))) continue
    expected.push(path)
    t.is(at(path), 'ro,nosuid,nodev,noexec,relatime - proc proc rw', path)
  }
  for (const path of candidates.masked) {
    if (!(await exists(path))) continue
    expected.push(path)
    t.regex(at(path), /^ro,nosuid,nodev,noexec,relatime - tmpfs /, path)
  }
  t.deepEqual(seen.map(({ place }) => place).toSorted(), expected.toSorted())
})

test('masks are empty and cannot be written', async (t) => {
  const { sh } = await scene(t)
  const { stdout } = await sh(
    'for f in /proc/interrupts /proc/keys /proc/timer_list; do [ -e $f ] && { [ -f $f ] && wc -c <$f; (echo 1 >$f) 2>/dev/null && echo WRITTEN; }; done; ls -A /sys/firmware | wc -l; (echo b >/proc/sysrq-trigger) 2>/dev/null && echo WRITTEN; (echo 1 >/proc/sys/kernel/msgmax) 2>/dev/null && echo WRITTEN; echo done',
  )
  t.regex(stdout, /^(0\n)+done\n$/)
})

test('limits of processes and threads are not Node’s', async (t) => {
  const { run } = await scene(t)
  const { stdout } = await run(['cat', '/proc/self/limits'])
  t.regex(stdout, /^Max open files +1024 /m)
  const { stdout: sched } = await run([
    'sh',
    '-c',
    'cat /proc/self/oom_score_adj /proc/self/timerslack_ns 2>/dev/null; cut -d" " -f19 /proc/self/stat',
  ])
  t.regex(sched, /^0\n(50000\n)?0\n$/)
})

test('nothing of this program is in reach', async (t) => {
  const { run } = await scene(t)
  const { stdout } = await run(['cat', '/proc/self/mountinfo', '/proc/1/environ', '/proc/1/cmdline'])
  t.false(stdout.includes(process.cwd()))
  t.false(stdout.includes(readFileSync('/proc/self/comm', 'utf8').trim() === '' ? '\0' : 'NODE_OPTIONS'))
  if (kernel(6, 8)) t.pass()
})
