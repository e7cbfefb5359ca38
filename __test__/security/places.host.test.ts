/** Links in an image, or in a volume that somebody else writes, lead nowhere but inside. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { makeRoot, rootfs, scene } from '../container/scene.ts'
import { lookAt, makeBait, safe } from './bait.ts'
import { raceSeconds, row } from './row.ts'

for (const [place, type] of [
  ['proc', 'proc'],
  ['sys', 'sysfs'],
] as const) {
  row('A3', `/${place} of an image is a link`, async (t) => {
    const { engine, dir } = await scene(t)
    makeRoot(dir)
    mkdirSync(join(dir, 'evil'))
    symlinkSync('/evil', join(dir, place))
    const error = await t.throwsAsync(engine.run({ rootfs: dir }, ['true']))
    t.regex(error.message, new RegExp(`^mount: /${place}: `), type)
    t.deepEqual(readdirSync(join(dir, 'evil')), [])
  })
}

row('A3', '/proc of an image is a file', async (t) => {
  const { engine, dir } = await scene(t)
  makeRoot(dir)
  writeFileSync(join(dir, 'proc'), '')
  await t.throwsAsync(engine.run({ rootfs: dir }, ['true']), { message: /^mount: \/proc: / })
  // Only so that the control, which follows links, fails here as well.
  rmSync(join(dir, 'proc'))
  mkdirSync(join(dir, 'evil'))
  symlinkSync('evil', join(dir, 'proc'))
  await t.throwsAsync(engine.run({ rootfs: dir }, ['true']), { message: /^mount: \/proc: / })
})

row('A4', 'the target of a mount is swapped for a link in a shared volume', async (t) => {
  const { engine, dir } = await scene(t)
  const bait = makeBait(dir)
  const volume = join(dir, 'volume')
  const source = join(dir, 'source')
  mkdirSync(join(volume, 'a/b'), { recursive: true })
  mkdirSync(source)
  writeFileSync(join(source, 'mine'), '')
  // Two names to exchange: the directory, and a link to the bait from wherever it is read.
  symlinkSync(bait, join(volume, 'link'))
  const swapper = spawn('python3', ['-c', swap, join(volume, 'a'), join(volume, 'link')], { stdio: 'ignore' })
  const ended = once(swapper, 'exit')
  let [starts, inside] = [0, 0]
  try {
    await safe(t, bait, async () => {
      for (const end = Date.now() + raceSeconds * 1000; Date.now() < end; starts += 1) {
        const run = engine.run({ rootfs }, ['cat', '/proc/self/mountinfo'], {
          mounts: [
            { type: 'bind', source: volume, target: '/v' },
            { type: 'bind', source, target: '/v/a/b' },
          ],
        })
        const result = await run.catch(() => undefined)
        if (result === undefined) continue
        inside += 1
        // Wherever it went, it is below the container's own root.
        const lines = result.stdout.split('\n').filter((line) => line.includes('/source '))
        t.is(lines.length, 1, result.stdout)
      }
    })
  } finally {
    swapper.kill('SIGKILL')
    await ended
  }
  t.true(starts >= 20, `${starts} starts`)
  t.log(`${starts} starts, ${inside} with the mount`)
})

/** renameat2(RENAME_EXCHANGE) of two names, over and over. */
const swap = `
import ctypes, sys
libc = ctypes.CDLL(None)
one, two = (name.encode() for name in sys.argv[1:3])
while True:
    libc.renameat2(-100, one, -100, two, 2)
`

row('A5', 'places that are made behind links are made inside', async (t) => {
  const { engine, dir } = await scene(t)
  const bait = makeBait(dir)
  const root = join(dir, 'root')
  makeRoot(root)
  symlinkSync(`/../../../../../..${bait}`, join(root, 'data'))
  mkdirSync(join(dir, 'v'))
  await safe(t, bait, async () => {
    const { stdout } = await engine.run(
      { rootfs: root },
      ['sh', '-c', 'pwd; ls -d /data/x /data/work; grep -c /data /proc/self/mountinfo'],
      {
        mounts: [{ type: 'bind', source: join(dir, 'v'), target: '/data/x' }],
        workdir: '/data/work',
      },
    )
    t.is(stdout.split('\n')[0], `${bait}/work`)
    t.regex(stdout, /\/data\/work\n\/data\/x\n/)
  })
})

row('A5', 'a target that must be made is swapped meanwhile', async (t) => {
  const { engine, dir } = await scene(t)
  const bait = makeBait(dir)
  const volume = join(dir, 'volume')
  mkdirSync(join(volume, 'a'), { recursive: true })
  symlinkSync(bait, join(volume, 'link'))
  const swapper = spawn('python3', ['-c', swap, join(volume, 'a'), join(volume, 'link')], { stdio: 'ignore' })
  const ended = once(swapper, 'exit')
  try {
    await safe(t, bait, async () => {
      let n = 0
      for (const end = Date.now() + raceSeconds * 500; Date.now() < end; n += 1) {
        const run = engine.run({ rootfs }, ['true'], {
          mounts: [
            { type: 'bind', source: volume, target: '/v' },
            { type: 'tmpfs', target: `/v/a/new${n}/x` },
          ],
          workdir: `/v/a/work${n}`,
        })
        await run.catch(() => {})
      }
      t.true(n > 20, String(n))
    })
  } finally {
    swapper.kill('SIGKILL')
    await ended
  }
})

row('A11', 'the engine’s own files go nowhere through an image’s links', async (t) => {
  const { engine, dir } = await scene(t)
  const bait = makeBait(dir)
  const root = join(dir, 'root')
  makeRoot(root)
  renameSync(join(root, 'etc'), join(root, 'real-etc'))
  symlinkSync(bait, join(root, 'etc'))
  for (const name of ['opt', 'sbin']) symlinkSync(bait, join(root, name))
  symlinkSync(join(bait, 'z'), join(root, '.dockerenv'))
  await safe(t, bait, async () => {
    for (const network of ['none', 'host'] as const) {
      const { stdout } = await engine.run({ rootfs: root }, ['cat', '/etc/hostname'], { init: true, network })
      if (network === 'host') t.is(stdout, `${hostname()}\n`)
      else t.regex(stdout, /^[0-9a-f]{12}\n$/)
    }
  })
  // A link of one file alone.
  const other = join(dir, 'other')
  cpSync(root, other, { recursive: true, verbatimSymlinks: true, filter: (path) => !path.endsWith('/etc') })
  mkdirSync(join(other, 'etc'))
  symlinkSync(join(bait, 'x'), join(other, 'etc/hosts'))
  const before = lookAt(bait)
  await engine.run({ rootfs: other }, ['true'])
  t.is(lookAt(bait), before)
  t.false(existsSync(join(bait, 'x')))
})
