/** What a container sees and keeps of the way by which another command comes into it. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'
import type { Container, RunOptions } from '../../src/index.ts'
import { makeRoot, scene } from '../container/scene.ts'
import { probe } from './probe.ts'
import { raceSeconds, row } from './row.ts'

const seconds = Math.min(raceSeconds, 10)

/** Has a payload watch while commands come; what it saw of those on their way. */
async function watched(
  t: ExecutionContext,
  options: RunOptions,
): Promise<{ seen: string[]; held: Container }> {
  const { engine, dir } = await scene(t)
  makeRoot(dir)
  probe(join(dir, 'bin'))
  const held = await engine.start({ rootfs: dir }, ['probe', 'watch', String(seconds)], {
    ...options,
    maxBuffer: '64m',
  })
  let commands = 0
  for (let alive = true; alive;) {
    const ended = await Promise.all(
      [1, 2].map(async () =>
        held.exec(['true']).then(
          () => true,
          () => false,
        ),
      ),
    )
    alive = ended.every(Boolean)
    commands += 2
  }
  const seen = (await held.wait()).stdout.trim().split('\n')
  t.log(`${commands} commands, ${seen.at(-1)}`)
  t.regex(seen.at(-1) ?? '', /^saw [1-9]/)
  return { seen: seen.slice(0, -1), held }
}

row('B1', 'the joiner is not to be seen into', async (t) => {
  const { seen } = await watched(t, {})
  const allowed = /^Cap(Prm|Eff|Bnd):\t/
  t.deepEqual([...new Set(seen.filter((line) => !allowed.test(line)))], [])
})

row(
  'B2',
  'one that may see into all others sees nothing of the host, and no right that it lacks',
  async (t) => {
    const { seen } = await watched(t, { capAdd: ['SYS_PTRACE'], capDrop: ['CHOWN'] })
    const rights = seen.filter((line) => line.startsWith('Cap'))
    // The fourteen of docker without CHOWN (0), with SYS_PTRACE (19).
    for (const line of new Set(rights)) t.regex(line, /:\t00000000a80c25fa$/)
    const others = new Set(
      seen.filter((line) => !line.startsWith('Cap')).map((line) => line.replace(/\d+/g, 'N')),
    )
    const harmless = [
      /^exe -> \/memfd:caisson-runtime \(deleted\)$/,
      /^(cwd|root) -> \/$/,
      /^(mem|environ) opened$/,
      /^fd\/N -> (socket|pipe):\[N\]$/,
    ]
    for (const line of others)
      t.true(
        harmless.some((form) => form.test(line)),
        line,
      )
  },
  'root',
)

row('B2', 'a payload that traces all that come keeps no command, and the shim does not spin', async (t) => {
  const { engine, dir } = await scene(t)
  makeRoot(dir)
  probe(join(dir, 'bin'))
  const held = await engine.start({ rootfs: dir }, ['probe', 'seize'])
  for await (const line of held.main.stdout?.lines() ?? []) if (line === 'up') break
  const cpu = (): number => {
    const children = readFileSync(`/proc/self/task/${process.pid}/children`, 'utf8').trim().split(' ')
    return Math.max(
      ...children.map((pid) => {
        const [, , ...words] = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? []
        return Number(words[9]) + Number(words[10])
      }),
    )
  }
  const before = cpu()
  const outcomes = await Promise.all([
    held.exec(['sleep', '60'], { timeout: 300 }).then(({ cause }) => cause),
    held.exec(['sleep', '.5']).then(
      ({ cause }) => cause,
      (error: Error) => error.message,
    ),
  ])
  t.is(outcomes[0], 'timeout')
  t.regex(outcomes[1], /^exit$|^watch: ptrace: /)
  // Ticks of 10 ms.
  await new Promise((resolve) => setTimeout(resolve, 1000))
  t.true(cpu() - before < 40, `${cpu() - before} ticks`)
  await held[Symbol.asyncDispose]()
})

row('B3', 'the container’s cgroup files are for reading', async (t) => {
  const { engine, dir } = await scene(t)
  makeRoot(dir)
  const script = `cd /sys/fs/cgroup
    mkdir x 2>/dev/null && echo MADE
    (echo 1 >cgroup.procs) 2>/dev/null && echo MOVED
    mount -t cgroup2 none /mnt 2>/dev/null && echo MOUNTED
    mount -o remount,bind,rw . 2>/dev/null && echo REMOUNTED
    echo tried`
  await using held = await engine.start({ rootfs: dir }, ['sleep', '600'])
  t.is((await held.exec(['sh', '-c', script])).stdout, 'tried\n')
  t.is((await engine.run({ rootfs: dir }, ['sh', '-c', script])).stdout, 'tried\n')
})

row('B4', 'no command chooses its group', async (t) => {
  const { engine, dir } = await scene(t)
  makeRoot(dir)
  await using held = await engine.start({ rootfs: dir }, ['sleep', '600'])
  for (const cgroup of ['..', '../..', '/', 'a/../../b', ''])
    await t.throwsAsync(held.exec(['true'], { cgroup } as object), { message: /^cgroup: / })
})
