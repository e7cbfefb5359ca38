/** A payload types nothing into the terminal of its caller. */
import { spawnSync } from 'node:child_process'
import { rootfs, scene } from '../container/scene.ts'
import { probe } from './probe.ts'
import { row } from './row.ts'

const api = new URL('../../src/index.ts', import.meta.url).href

row('B8', 'from a real terminal, with and without one of its own', async (t) => {
  const { root, dir } = await scene(t)
  probe(dir)
  const program = `
    import { Engine } from '${api}'
    const engine = new Engine({ root: ${JSON.stringify(root)} })
    const run = (options) => engine.run({ rootfs: ${JSON.stringify(rootfs)} }, ['/probe/probe', 'push'], {
      mounts: [{ type: 'bind', source: ${JSON.stringify(dir)}, target: '/probe' }], ...options })
    console.log('terminal ' + process.stdin.isTTY + ' ' + process.stdout.isTTY)
    for (const stdio of ['inherit', [0, 1, 2]]) await run({ stdio, capAdd: ['SYS_ADMIN', 'SYS_TTY_CONFIG'] })
    console.log('piped\\n' + (await run({ capAdd: ['SYS_ADMIN'] })).stdout)
    console.log('own\\n' + (await run({ tty: true })).stdout)
    await engine.close()
    process.exit()
  `
  const command = `${process.execPath} --input-type=module-typescript -e "$PROGRAM"`
  const { stdout } = spawnSync('script', ['-qec', command, '/dev/null'], {
    encoding: 'utf8',
    env: { ...process.env, PROGRAM: program },
    input: '',
  })
  const text = stdout.replaceAll('\r', '')
  t.regex(text, /^terminal true true$/m, text)
  t.is(text.match(/^stdin ENOTTY ENOTTY ENOTTY$/gm)?.length, 3, text)
  t.is(text.match(/^stdout ENOTTY ENOTTY ENOTTY$/gm)?.length, 3, text)
  t.is(text.match(/^stderr ENOTTY ENOTTY ENOTTY$/gm)?.length, 3, text)
  t.is(text.match(/^tty ENXIO$/gm)?.length, 3, text)
  // Its own terminal is its own: there it may push into itself alone.
  t.regex(text, /^own\n(!*)?stdin (PUSHED|EIO|EPERM) \w+ \w+/m, text)
})
