/** What is mounted where, and with which rights: binds, tmpfs, a read-only root, devices, settings, networks. */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { hasUsers } from '../host/ground.ts'
import { rootTest } from '../host/only.ts'
import { makeRoot, rootfs, scene } from './scene.ts'

/** A mountinfo line of the container by its place: flags of the mount, type, source, options of the file system. */
function mountAt(text: string, place: string): string | undefined {
  const line = text.split('\n').findLast((one) => one.split(' ')[4] === place)
  const [left = '', right = ''] = line?.split(' - ') ?? []
  return line === undefined ? undefined : `${left.split(' ')[5]} - ${right}`
}

test('a bind, its target made as what the source is', async (t) => {
  const { sh, dir } = await scene(t)
  mkdirSync(join(dir, 'd'))
  writeFileSync(join(dir, 'd/f'), 'content\n')
  const { stdout } = await sh('cat /x/y/f /single; echo new >/x/y/g; stat -c "%F" /x/y /single', {
    mounts: [
      { type: 'bind', source: join(dir, 'd'), target: '/x/y' },
      { type: 'bind', source: join(dir, 'd/f'), target: '/single' },
    ],
  })
  t.is(stdout, 'content\ncontent\ndirectory\nregular file\n')
  t.is(readFileSync(join(dir, 'd/g'), 'utf8'), 'new\n')
  // The targets were made in the container's own layer.
  t.false(existsSync(join(rootfs, 'x')))
  t.false(existsSync(join(rootfs, 'single')))
})

test('read-only, on demand', async (t) => {
  const { sh, dir } = await scene(t)
  const mounts = [{ type: 'bind', source: dir, target: '/v', readOnly: true }] as const
  t.regex((await sh('echo x >/v/f', { mounts })).stderr, /Read-only file system/)
  t.deepEqual(readdirSync(dir), [])
  // Root inside cannot take that back: the default filter has no mount(2).
  t.regex((await sh('mount -o remount,rw /v', { mounts })).stderr, /denied|not permitted/)
})

rootTest('what is below the source comes along, or not', async (t) => {
  const { sh, dir } = await scene(t)
  mkdirSync(join(dir, 'v/sub'), { recursive: true })
  execFileSync('mount', ['-t', 'tmpfs', 'inner', join(dir, 'v/sub')])
  t.teardown(() => execFileSync('umount', [join(dir, 'v/sub')]))
  writeFileSync(join(dir, 'v/sub/deep'), 'deep\n')
  const source = join(dir, 'v')
  const [flat, whole] = await Promise.all(
    [false, true].map((recursive) =>
      sh('ls /v/sub', { mounts: [{ type: 'bind', source, target: '/v', recursive }] }),
    ),
  )
  t.is(flat?.stdout, '')
  t.is(whole?.stdout, 'deep\n')
})

test('a link in the image on the way to a target stays inside', async (t) => {
  const { engine, dir } = await scene(t)
  const root = join(dir, 'root')
  makeRoot(root)
  symlinkSync('/elsewhere', join(root, 'data'))
  symlinkSync(`../../../..${dir}`, join(root, 'out'))
  mkdirSync(join(dir, 'v'))
  writeFileSync(join(dir, 'v/f'), 'volume\n')
  const { stdout } = await engine.run(
    { rootfs: root },
    ['sh', '-c', 'cat /elsewhere/x/f /out/y/f; readlink /data'],
    {
      mounts: [
        { type: 'bind', source: join(dir, 'v'), target: '/data/x' },
        { type: 'bind', source: join(dir, 'v'), target: '/out/y' },
      ],
    },
  )
  t.is(stdout, 'volume\nvolume\n/elsewhere\n')
  t.deepEqual(readdirSync(dir).toSorted(), ['root', 'v'])
})

test('mounts that cannot be are refused', async (t) => {
  const { sh, dir } = await scene(t)
  const bind = (source: string, target: string) => ({ type: 'bind', source, target }) as const
  await t.throwsAsync(sh('true', { mounts: [bind('/no/such/place', '/v')] }), {
    code: 'ERR_MOUNT_SOURCE',
    message: /\/no\/such\/place/,
  })
  const wrong = [
    bind('relative', '/v'),
    bind(dir, 'relative'),
    bind(dir, '/'),
    bind(dir, '/a/..'),
    { type: 'volume', source: dir, target: '/v' } as unknown as ReturnType<typeof bind>,
    { ...bind(dir, '/v'), propagation: 'shared,rw' } as unknown as ReturnType<typeof bind>,
    { ...bind(dir, '/v'), size: '1m' },
  ]
  for (const mount of wrong) {
    await t.throwsAsync(
      sh('true', { mounts: [mount] }),
      { code: 'ERR_INVALID_OPTION' },
      JSON.stringify(mount),
    )
  }
  await t.throwsAsync(sh('true', { mounts: [bind(dir, '/v'), bind(dir, '/v/')] }), {
    message: /Duplicate mount point: \/v$/,
  })
  await t.throwsAsync(sh('true', { mounts: [bind(dir, '/etc/passwd')] }), { message: /\/etc\/passwd/ })
})

test('tmpfs, by docker’s words and by Caisson’s', async (t) => {
  const { sh } = await scene(t)
  const { stdout } = await sh(
    'stat -c %a /a /b; cat /proc/self/mountinfo; echo x >/a/x && echo y >/b/y && echo both',
    {
      tmpfs: { '/a': '', '/c': 'size=1m,exec,mode=700' },
      mounts: [{ type: 'tmpfs', target: '/b', size: '2m', mode: 0o750 }],
    },
  )
  t.regex(stdout, /^1777\n750\n/)
  t.regex(stdout, /both\n$/)
  t.regex(mountAt(stdout, '/a') ?? '', /^rw,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw/)
  t.regex(
    mountAt(stdout, '/b') ?? '',
    /^rw,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw,size=2048k,mode=750/,
  )
  t.regex(mountAt(stdout, '/c') ?? '', /^rw,nosuid,nodev,relatime - tmpfs tmpfs rw,size=1024k,mode=700/)
  const full = await sh('dd if=/dev/zero of=/a/f bs=1k count=2000', { tmpfs: { '/a': 'size=1m' } })
  t.regex(full.stderr, /No space left on device/)
  const shm = await sh('cat /proc/self/mountinfo', { shmSize: '1m' })
  t.regex(mountAt(shm.stdout, '/dev/shm') ?? '', /size=1024k/)
  const ro = await sh('echo x >/a/x', { mounts: [{ type: 'tmpfs', target: '/a', readOnly: true }] })
  t.regex(ro.stderr, /Read-only/)
  await t.throwsAsync(sh('true', { tmpfs: { '/a': 'nonsense' } }), { message: /nonsense/ })
})

test('a read-only root leaves the container’s own places writable', async (t) => {
  const { sh } = await scene(t)
  const { stdout } = await sh(
    'for d in / /etc /tmp; do touch $d/x 2>/dev/null && echo "$d"; done; touch /dev/shm/x /v/x /t/x && echo ok; echo 1 >>/etc/hosts || echo held; pwd',
    {
      readOnly: true,
      tmpfs: { '/t': '' },
      mounts: [{ type: 'tmpfs', target: '/v' }],
      workdir: '/made/anyway',
    },
  )
  t.is(stdout, 'ok\nheld\n/made/anyway\n')
})

test('the root is a copy on write', async (t) => {
  const { sh } = await scene(t)
  const script = 'rm -rf /etc/passwd /home; echo changed >/root/f; mkdir /var; ls /; cat /root/f'
  const [one, two] = [await sh(script), await sh('cat /etc/passwd; ls -d /home/alice; ls /root')]
  t.regex(one.stdout, /changed\n$/)
  t.regex(two.stdout, /^root:x:0:0/)
  t.regex(two.stdout, /\/home\/alice\n$/)
})

test('the machine itself as the root, masked where secrets are', async (t) => {
  const { engine, root } = await scene(t)
  const { stdout, exitCode } = await engine.run(
    { rootfs: '/' },
    ['sh', '-c', `ls /; touch /usr/bin/xyz /etc/xyz && rm -rf /etc; ls ${root} /run; cat /etc/hostname`],
    { env: { LANG: 'C' } },
  )
  t.regex(stdout, /^bin\n/)
  t.false(stdout.includes(root))
  t.is(exitCode === 0 || exitCode === 1, true)
  t.true(existsSync('/etc/passwd'))
  t.false(existsSync('/etc/xyz'))
  t.false(existsSync('/usr/bin/xyz'))
})

test('the engine’s files', async (t) => {
  const { sh } = await scene(t)
  const p = sh(
    'cat /etc/hostname; cat /etc/hosts; cat /etc/resolv.conf; stat -c "%a %u:%g" /etc/hosts; echo more >>/etc/hosts',
  )
  const { stdout, exitCode } = await p
  t.is(exitCode, 0)
  t.is(
    stdout,
    `${p.id.slice(0, 12)}
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
644 0:0
`,
  )
})

rootTest('devices: those of every container, one more, and none besides', async (t) => {
  const { sh } = await scene(t)
  const plain = await sh(
    'mknod /tmp/mem c 1 1 && (: </tmp/mem) 2>&1; mknod /tmp/zero c 1 5 && head -c 3 /tmp/zero | wc -c; echo x >/dev/null; head -c 2 /dev/urandom | wc -c',
  )
  t.is(plain.stdout, "sh: can't open /tmp/mem: Operation not permitted\n3\n2\n")
  const kmsg = await sh('ls -l /dev/kmsg /dev/other; (: </dev/kmsg) && echo read; (: >/dev/other) 2>&1', {
    devices: ['/dev/kmsg', { host: '/dev/kmsg', container: '/dev/other' }],
    capAdd: ['SYSLOG'],
  })
  t.regex(kmsg.stdout, /^c.* 1, +11 .*\/dev\/kmsg\nc.* 1, +11 .*\/dev\/other\nread\n$/)
  const readOnly = await sh('(: </dev/kmsg) && echo read; (: >/dev/kmsg) 2>&1', {
    devices: ['/dev/kmsg:r'],
    capAdd: ['SYSLOG'],
  })
  t.is(readOnly.stdout, "read\nsh: can't create /dev/kmsg: Operation not permitted\n")
  await t.throwsAsync(sh('true', { devices: ['/dev/none-such'] }), {
    code: 'ERR_INVALID_OPTION',
    message: /^devices: \/dev\/none-such: ENOENT/,
  })
  await t.throwsAsync(sh('true', { devices: ['/etc/passwd'] }), {
    code: 'ERR_INVALID_OPTION',
    message: /is not a device/,
  })
  await t.throwsAsync(sh('true', { devices: ['/dev/null:/x:q'] }), { code: 'ERR_INVALID_OPTION' })
})

test('settings of the container’s own namespaces', async (t) => {
  const { sh } = await scene(t)
  const { stdout } = await sh(
    'cat /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_forward /proc/sys/fs/mqueue/msg_max',
    {
      sysctls: { 'kernel.msgmax': '9000', 'net.ipv4.ip_forward': '1', 'fs/mqueue/msg_max': '20' },
    },
  )
  t.is(stdout, '9000\n1\n20\n')
  for (const name of [
    'kernel.core_pattern',
    'vm.swappiness',
    'kernel.hostname',
    'net',
    'nope.x',
    'kernel.msgmax.x',
  ]) {
    await t.throwsAsync(sh('true', { sysctls: { [name]: '1' } }), {
      code: 'ERR_INVALID_SPEC',
      message: new RegExp(name.replaceAll('.', '\\.')),
    })
  }
  await t.throwsAsync(sh('true', { sysctls: { 'kernel.msgmax': 'many' } }), { message: /kernel\/msgmax/ })
  await t.throwsAsync(sh('true', { network: 'host', sysctls: { 'net.ipv4.ip_forward': '1' } }), {
    message: /namespace/,
  })
})

test('a network of its own has no privileged ports, unless it is said', async (t) => {
  const { sh } = await scene(t)
  const listens =
    'nc -l -p 80 & sleep .2; grep -c ":0050 .* 0A " /proc/net/tcp /proc/net/tcp6 | cut -d: -f2 | sort -n | tail -1'
  const user = hasUsers ? { user: 1000 } : { capDrop: ['ALL'] }
  t.is((await sh(listens, user)).stdout, '1\n')
  for (const name of ['net.ipv4.ip_unprivileged_port_start', 'net/ipv4/ip_unprivileged_port_start']) {
    const { stdout, stderr } = await sh(listens, { ...user, sysctls: { [name]: '1024' } })
    t.is(stdout, '0\n')
    t.regex(stderr, /Permission denied/)
  }
  const host = await sh('cat /proc/sys/net/ipv4/ip_unprivileged_port_start', { network: 'host' })
  t.is(host.stdout, '1024\n')
})

rootTest('a network of its own has loopback alone; the host’s is the host’s', async (t) => {
  const { sh } = await scene(t)
  const script =
    'ls /sys/class/net; ip addr show lo | grep -c UP; ping -c1 -W1 127.0.0.1 >/dev/null && echo ping; cat /proc/net/route | wc -l'
  t.is((await sh(script)).stdout, 'lo\n1\nping\n1\n')
  execFileSync('ip', ['link', 'add', 'seen0', 'type', 'veth', 'peer', 'seen1'])
  t.teardown(() => execFileSync('ip', ['link', 'del', 'seen0']))
  t.is((await sh('ls /sys/class/net')).stdout, 'lo\n')
  const host = await sh('ls /sys/class/net', { network: 'host' })
  t.regex(host.stdout, /seen0/)
  t.true(host.isolation.shared.includes('network'))
  await t.throwsAsync(sh('true', { network: 'bridge' as 'none' }), {
    code: 'ERR_INVALID_OPTION',
    message: /^network: 'bridge'/,
  })
})
