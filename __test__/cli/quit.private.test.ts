/** How the program ends: with descriptors as it found them. */
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { scene } from '../container/scene.ts'

const main = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url))

test('a pipe that the program shared with others waits as before', async (t) => {
  const { root } = await scene(t)
  const script = '("$@"; echo "$?"; grep flags: /proc/self/fdinfo/1) | cat'
  const words = ['-c', script, 'sh', process.execPath, main, 'info']
  const env = { PATH: process.env.PATH, CAISSON_ROOT: root }
  const { stdout, stderr } = spawnSync('sh', words, { env, encoding: 'utf8' })
  t.is(stderr, '')
  t.regex(stdout, /^[^]*\n0\nflags:\s+01\n$/)
})
