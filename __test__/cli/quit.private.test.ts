/** How the program ends: with descriptors as it found them. */
import { spawnSync } from 'node:child_process'
import test from 'ava'
import { scene } from '../container/scene.ts'
import { main } from './program.ts'

test('a pipe that the program shared with others waits as before', async (t) => {
  const { root } = await scene(t)
  const script = '("$@"; echo "$?"; grep flags: /proc/self/fdinfo/1) | cat'
  const words = ['-c', script, 'sh', process.execPath, main, 'info']
  const env = { PATH: process.env.PATH, CAISSON_ROOT: root }
  const { stdout, stderr } = spawnSync('sh', words, { env, encoding: 'utf8' })
  t.is(stderr, '')
  t.regex(stdout, /^[^]*\n0\nflags:\s+01\n$/)
})

for (const [about, load] of [
  ['with the addon', 'native()'],
  ['without it', ''],
] as const) {
  test(`what a slow reader has not taken yet is waited for, ${about}`, (t) => {
    const source = new URL('../../src/', import.meta.url).href
    // By stdin: with options of Node's own the program ends as Node ends it.
    const input = `(async () => {
      const { quit } = await import('${source}cli/quit.ts')
      const { native } = await import('${source}native.ts')
      ${load}
      process.stdout.write('x'.repeat(1_000_000))
      process.stderr.write('y'.repeat(1_000_000))
      await quit(3)
    })()`
    const shell = `exec 3>&1; { "$@" 2>&1 >&4; echo "$?" >&3; } 4>&1 | { sleep 0.3; wc -c; }`
    const words = ['-c', shell, 'sh', process.execPath, '-']
    const { stdout } = spawnSync('sh', words, { env: { PATH: process.env.PATH }, input, encoding: 'utf8' })
    t.deepEqual(stdout.trim().split('\n').toSorted(), ['2000000', '3'])
  })
}
