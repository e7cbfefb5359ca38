/** The directories of state: what stands in a journal is removed, so nobody else may write one. */
import { chmodSync, chownSync, existsSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Engine } from '../../src/index.ts'
import { rootfs, scene } from '../container/scene.ts'
import { isRoot } from '../host/ground.ts'
import { row } from './row.ts'

/** A journal that names what is not its container's. */
function plant(run: string, precious: string): void {
  const bundle = join(run, 'shims', 'e', 'c')
  mkdirSync(bundle, { recursive: true })
  writeFileSync(join(run, 'shims', 'e.lock'), '')
  writeFileSync(join(bundle, 'journal'), `cgroup -\ndata ${precious}\n`)
}

row('R1', 'a run root that others can write is not used', async (t) => {
  const { dir } = await scene(t)
  const [shared, precious] = [join(dir, 'shared'), join(dir, 'precious')]
  for (const path of [shared, precious]) mkdirSync(path)
  const runRoot = join(shared, 'run')
  plant(runRoot, precious)
  const begin = async (): Promise<unknown> => {
    await using engine = new Engine({ root: join(dir, 'root'), runRoot })
    return await engine.run({ rootfs }, ['true'])
  }
  chmodSync(shared, 0o777)
  await t.throwsAsync(begin(), { code: 'ERR_UNSAFE_INSTALL', message: /shared can be written by others/ })
  t.true(existsSync(precious))
  chmodSync(shared, 0o755)
  if (!isRoot) return
  chownSync(shared, 2000, 2000)
  await t.throwsAsync(begin(), { code: 'ERR_UNSAFE_INSTALL', message: /shared belongs to user 2000/ })
  t.true(existsSync(precious))
})

row(
  'R1',
  'nor one that is reached by another user’s link',
  async (t) => {
    const { dir } = await scene(t)
    const [real, theirs] = [join(dir, 'real'), join(dir, 'theirs')]
    for (const path of [real, theirs]) mkdirSync(path)
    symlinkSync(real, join(theirs, 'link'))
    chownSync(theirs, 2000, 2000)
    symlinkSync(join(theirs, 'link'), join(dir, 'mine'))
    await using engine = new Engine({ root: join(dir, 'mine', 'root') })
    await t.throwsAsync(engine.run({ rootfs }, ['true']), {
      code: 'ERR_UNSAFE_INSTALL',
      message: /theirs belongs to user 2000/,
    })
  },
  'root',
)

row('R1', 'a journal undoes what is its container’s, and nothing else', async (t) => {
  const { dir } = await scene(t)
  const [runRoot, precious] = [join(dir, 'run'), join(dir, 'precious')]
  mkdirSync(precious)
  plant(runRoot, precious)
  await using engine = new Engine({ root: join(dir, 'root'), runRoot })
  await engine.run({ rootfs }, ['true'])
  t.true(existsSync(precious))
  for (const options of [{ root: `${precious}\nx` }, { root: join(dir, 'r'), runRoot: `${precious}\nx` }]) {
    await using broken = new Engine(options)
    await t.throwsAsync(broken.run({ rootfs }, ['true']), { message: /holds a line break/ })
  }
})
