/** Nothing of the caller's comes along: descriptors, keys. */
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { rootfs, scene } from '../container/scene.ts'
import { probe } from './probe.ts'
import { row } from './row.ts'

const api = new URL('../../src/index.ts', import.meta.url).href

function program(root: string, body: string): string {
  return `
    import { Engine } from '${api}'
    const engine = new Engine({ root: ${JSON.stringify(root)} })
    const run = (words, options) => engine.run({ rootfs: ${JSON.stringify(rootfs)} }, words, options)
    ${body}
    await engine.close()
  `
}

row('A2', 'descriptors of the host that the caller holds', async (t) => {
  const { root, dir } = await scene(t)
  writeFileSync(join(dir, 'outside'), '')
  const body = `
    const { stdout } = await run(['sh', '-c', 'ls /proc/self/fd; ls -l /proc/1/fd /proc/self/fd'], { init: true })
    console.log(stdout)
    for (const n of [...Array(30).keys(), 240, 241, 250, 251, 252, 253, 254, 255]) {
      const seen = await run(['sh', '-c', 'stat . >/dev/null && pwd && ls'], { workdir: '/proc/self/fd/' + n }).then(
        (result) => result.stdout, (error) => 'refused ' + error.message)
      console.log(n, JSON.stringify(seen))
    }
  `
  // High numbers: Node makes those that it finds first close-on-exec itself, up to a gap.
  const shell = 'exec 240</ 241</etc 251<"$2" 252</run; exec "$0" --input-type=module-typescript -e "$1"'
  const { stdout, stderr } = spawnSync('bash', ['-c', shell, process.execPath, program(root, body), dir], {
    encoding: 'utf8',
  })
  t.regex(stdout, /^0\n1\n2\n3\n/, stderr)
  t.false(/ -> \/(etc|run)?\n/.test(stdout), stdout)
  // Refused by name, or a place inside: what the text of the link says. A user cannot look at all of those.
  const lines = stdout.trim().split('\n').slice(-38)
  for (const line of lines) t.regex(line, /^\d+ "(refused cwd: |\/|"$)/, line)
  t.false(stdout.includes('outside'), stdout)
})

row('A2', 'nor does another command get one, or a way out by its working directory', async (t) => {
  const { root, dir } = await scene(t)
  writeFileSync(join(dir, 'outside'), '')
  const body = `
    const held = await engine.start({ rootfs: ${JSON.stringify(rootfs)} }, ['sleep', '600'])
    console.log((await held.exec(['sh', '-c', 'ls /proc/self/fd; ls -l /proc/self/fd'])).stdout)
    for (const n of [...Array(30).keys(), 240, 241, 250, 251, 252, 253, 254, 255]) {
      const seen = await held.exec(['sh', '-c', 'stat . >/dev/null && pwd && ls'], { workdir: '/proc/self/fd/' + n }).then(
        (result) => result.stdout, (error) => 'refused ' + error.message)
      console.log(n, JSON.stringify(seen))
    }
  `
  const shell = 'exec 240</ 241</etc 251<"$2" 252</run; exec "$0" --input-type=module-typescript -e "$1"'
  const { stdout, stderr } = spawnSync('bash', ['-c', shell, process.execPath, program(root, body), dir], {
    encoding: 'utf8',
  })
  t.regex(stdout, /^0\n1\n2\n3\n/, stderr)
  t.false(/ -> \/(etc|run)?\n/.test(stdout), stdout)
  const lines = stdout.trim().split('\n').slice(-38)
  for (const line of lines) t.regex(line, /^\d+ "refused cwd: /, line)
})

row(
  'A2',
  'the shim holds none either',
  async (t) => {
    const { root } = await scene(t)
    const body = `
    import { readdirSync, readlinkSync, readFileSync } from 'node:fs'
    const p = run(['sleep', '60'])
    await p.started
    const shim = /^PPid:\\s*(\\d+)/m.exec(readFileSync('/proc/' + p.pid + '/status', 'utf8'))[1]
    console.log(readdirSync('/proc/' + shim + '/fd').map((fd) => readlinkSync('/proc/' + shim + '/fd/' + fd)).join('\\n'))
    console.log('cwd', readlinkSync('/proc/' + shim + '/cwd'))
    p.kill('SIGKILL')
    await p
  `
    const shell = 'cd /etc; exec 240</ 251</etc; exec "$0" --input-type=module-typescript -e "$1"'
    const { stdout, stderr } = spawnSync('bash', ['-c', shell, process.execPath, program(root, body)], {
      encoding: 'utf8',
    })
    t.regex(stdout, /^cwd \/$/m, stderr)
    t.false(/^\/(etc)?$/m.test(stdout), stdout)
  },
  'root',
)

row('B6', 'the caller’s keys', async (t) => {
  const { root, dir } = await scene(t)
  const path = probe(dir)
  const body = `
    for (const options of [{}, { seccomp: 'unconfined' }, { seccomp: 'unconfined', init: true, capAdd: ['ALL'] }]) {
      const { stdout } = await run(['/probe/probe', 'find-key', 'caisson-test'], {
        ...options, mounts: [{ type: 'bind', source: ${JSON.stringify(dir)}, target: '/probe' }],
      })
      console.log(stdout.trim())
    }
  `
  const words = [
    'with-key',
    'caisson-test',
    process.execPath,
    '--input-type=module-typescript',
    '-e',
    program(root, body),
  ]
  const { stdout, stderr } = spawnSync(path, words, { encoding: 'utf8' })
  // The default filter forbids the question.
  t.is(stdout, 'EPERM\nENOKEY\nENOKEY\n', stderr)
  // The probe itself finds it where it is.
  const own = spawnSync(path, ['with-key', 'caisson-test', path, 'find-key', 'caisson-test'], {
    encoding: 'utf8',
  })
  t.is(own.stdout, 'FOUND\n')
})
