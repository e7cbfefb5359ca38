/** Settings and flags go where they are meant to go, and nowhere else. */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { makeRoot, scene } from '../container/scene.ts'
import { row } from './row.ts'

for (const [target, refusal] of [
  [
    '/proc/sys/net',
    /^plan: mounts\[\d+\]\.destination: '\/proc\/sys\/net' would cover the container's \/proc/,
  ],
  ['/link/net', /^mount: \/link\/net: would cover the container's \/proc/],
] as const) {
  row('A8', `nothing lies over the kernel's settings: ${target}`, async (t) => {
    const { engine, dir } = await scene(t)
    const root = join(dir, 'root')
    makeRoot(root)
    symlinkSync('/proc/sys', join(root, 'link'))
    mkdirSync(join(dir, 'trap/ipv4'), { recursive: true })
    writeFileSync(join(dir, 'trap/ipv4/ip_forward'), 'untouched\n')
    const error = await t.throwsAsync(
      engine.run({ rootfs: root }, ['true'], {
        mounts: [{ type: 'bind', source: join(dir, 'trap'), target }],
        sysctls: { 'net.ipv4.ip_forward': '1' },
      }),
    )
    t.regex(error.message, refusal)
    // The control writes here: a setting goes to the kernel, through a procfs of init's own.
    t.is(readFileSync(join(dir, 'trap/ipv4/ip_forward'), 'utf8'), 'untouched\n')
  })
}

row('A14', 'settings are those of a namespace, by a list', async (t) => {
  const { run } = await scene(t)
  // Its own value: where a control lets it through, nothing of the machine changes.
  const same = readFileSync('/proc/sys/kernel/panic', 'utf8').trim()
  const pattern = readFileSync('/proc/sys/kernel/core_pattern', 'utf8')
  const hostile: Record<string, string>[] = [
    { 'kernel.panic': same },
    { 'kernel/panic': same },
    { 'net/../kernel/panic': same },
    { 'net/../kernel.panic': same },
    { 'net.ipv4.conf.../x': '1' },
    { 'net..ipv4': '1' },
    { 'net/': '1' },
    { '/proc/sys/kernel/panic': same },
    { 'fs.mqueue.a.b': '1' },
    { 'kernel.shm_rmid_forced\0x': '1' },
    { 'kernel.shm_rmid_forced': '1\nkernel.core_pattern=x' },
  ]
  for (const sysctls of hostile) {
    await t.throwsAsync(run(['true'], { sysctls }), { code: 'ERR_INVALID_SPEC' }, JSON.stringify(sysctls))
  }
  // One write of one file: the kernel refuses it whole.
  await t.throwsAsync(run(['true'], { sysctls: { 'kernel.shm_rmid_forced': '1+kernel.core_pattern=x' } }), {
    message: /shm_rmid_forced/,
  })
  t.is(readFileSync('/proc/sys/kernel/core_pattern', 'utf8'), pattern)
  t.is(readFileSync('/proc/sys/kernel/panic', 'utf8').trim(), same)
})

row('A14', 'NUL and huge values', async (t) => {
  const { run } = await scene(t)
  const large = 'x'.repeat(70 << 10)
  await t.throwsAsync(run(['a\0b']), { message: /NUL/ })
  await t.throwsAsync(run(['true'], { workdir: '/a\0b' }), { message: /NUL/ })
  await t.throwsAsync(run(['true'], { workdir: `/${large}` }), { message: /process\.cwd/ })
  t.is((await run(['sh', '-c', 'echo ${#X}'], { env: { X: large } })).stdout, `${large.length}\n`)
  t.is(
    (await run(['sh', '-c', 'echo $#', 'sh', ...Array.from({ length: 5000 }, () => 'word')])).stdout,
    '5000\n',
  )
  const same = readFileSync('/proc/sys/kernel/panic', 'utf8').trim()
  await t.throwsAsync(run(['true'], { sysctls: { 'kernel.panic': same } }))
})

row(
  'A15',
  'read-only is so for what is mounted below the source',
  async (t) => {
    const { sh, dir } = await scene(t)
    const inner = join(dir, 'v/inner')
    mkdirSync(inner, { recursive: true })
    execFileSync('mount', ['-t', 'tmpfs', 'inner', inner])
    t.teardown(() => execFileSync('umount', [inner]))
    const { stdout, stderr } = await sh(
      'touch /v/inner/x || echo held; grep " /proc/sys " /proc/self/mountinfo | cut -d" " -f6',
      {
        mounts: [{ type: 'bind', source: join(dir, 'v'), target: '/v', readOnly: true }],
      },
    )
    t.regex(stderr, /Read-only file system/)
    t.is(stdout, 'held\nro,nosuid,nodev,noexec,relatime\n')
    t.false(existsSync(join(inner, 'x')))
  },
  'root',
)
