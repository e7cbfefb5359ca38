/** The user namespace of a user who is not root. */
import { scene } from '../container/scene.ts'
import { hasUsers, isRoot } from '../host/ground.ts'
import { row } from './row.ts'

if (!isRoot && !hasUsers) {
  row('B7', 'no group that denies something can be laid down, and there is the one id alone', async (t) => {
    const { engine, sh } = await scene(t)
    const script = 'cat /proc/self/setgroups /proc/self/uid_map /proc/self/gid_map'
    const seen = (text: string): string[] =>
      text
        .trim()
        .split('\n')
        .map((line) => line.trim().replace(/ +/g, ' '))
    const own = ['deny', `0 ${process.getuid?.()} 1`, `0 ${process.getgid?.()} 1`]
    t.deepEqual(seen((await sh(script)).stdout), own)
    await using held = await engine.start({ rootfs: '/' }, ['sleep', '600'])
    t.deepEqual(seen((await held.exec(['sh', '-c', script])).stdout), own)
  })
}
