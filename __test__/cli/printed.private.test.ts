/** What the command line says of output that cannot be written, and of a size that is none. */
import { spawnSync } from 'node:child_process'
import type { SpawnSyncReturns } from 'node:child_process'
import test from 'ava'
import { scene } from '../container/scene.ts'
import { main } from './program.ts'

test('standard output that takes no more ends with one line and 1', async (t) => {
  const { root } = await scene(t)
  const sh = (script: string, words: readonly string[]): SpawnSyncReturns<string> =>
    spawnSync('sh', ['-c', script, 'sh', process.execPath, main, ...words], {
      env: { PATH: process.env.PATH, CAISSON_ROOT: root },
      encoding: 'utf8',
      timeout: 20_000,
    })
  const all = [['images'], ['system', 'df'], ['info'], ['ps'], ['--help'], ['help', 'run']]
  for (const words of all) {
    t.like(sh('"$@" >/dev/full', words), {
      stderr: 'caisson: standard output: ENOSPC: no space left on device, write\n',
      status: 1,
    })
    // The reader is gone before anything is written.
    t.like(sh('{ sleep .3; "$@"; echo "$?" >&2; } | :', words), {
      stderr: 'caisson: standard output: write EPIPE\n1\n',
    })
  }
  t.is(sh('"$@"', ['images']).status, 0)
})

test('a size that is none is named as it was written', async (t) => {
  const { root } = await scene(t)
  const caisson = (words: readonly string[], env: Record<string, string> = {}): string => {
    const { stderr, status } = spawnSync(process.execPath, [main, ...words], {
      env: { PATH: process.env.PATH, CAISSON_ROOT: root, ...env },
      encoding: 'utf8',
    })
    t.is(status, 125)
    return stderr.split('\n', 1)[0] ?? ''
  }
  const why = 'is not a size like 256m, 1.5g or a number of bytes'
  t.is(caisson(['pull', '--store-limit', 'zz', 'x']), `caisson: --store-limit: 'zz' ${why}`)
  t.is(caisson(['image', 'prune', '-f', '--keep-storage', '-1']), `caisson: --keep-storage: '-1' ${why}`)
  t.is(caisson(['images'], { CAISSON_STORE_LIMIT: 'zz' }), `caisson: CAISSON_STORE_LIMIT: 'zz' ${why}`)
})
