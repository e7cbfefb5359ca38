/**
 * The controls of the security rows: builds the addon and the executable with the feature `off` into a copy of the
 * checkout's tests, sees every row green there, then switches off one row's mitigation after another and wants its
 * tests red. A row whose control stays green proves nothing, and makes this red.
 *   node scripts/red.ts [ROW...]
 */
import { execFileSync, spawnSync } from 'node:child_process'
import { chmodSync, copyFileSync, cpSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { rows } from '../__test__/security/rows.ts'

const own = fileURLToPath(new URL('..', import.meta.url))

/** Debug builds: a test-only feature, in a target directory that no release is made from. */
function build(into: string): void {
  const target = join(own, 'target/off')
  const cargo = (...words: string[]): unknown =>
    execFileSync('cargo', ['build', '--locked', '--features', 'off', '--target-dir', target, ...words], {
      cwd: own,
      stdio: ['ignore', 'inherit', 'inherit'],
    })
  const triple = /^host: (.*)$/m.exec(execFileSync('rustc', ['-vV'], { encoding: 'utf8' }))?.[1] ?? ''
  cargo('-p', 'caisson-node')
  cargo('-p', 'caisson-runtime', '--target', triple, '--config', join(own, '.cargo/static.toml'))
  copyFileSync(join(target, 'debug/libcaisson_node.so'), join(into, 'caisson.linux-x64-gnu.node'))
  copyFileSync(join(target, triple, 'debug/caisson-runtime'), join(into, 'caisson-runtime'))
}

interface Seen {
  /** Tests by their titles: whether they passed. */
  tests: Map<string, boolean>
  output: string
}

/** Runs the tests of one file whose titles begin with a row's name. */
function see(dir: string, file: string, id: string, off: string, host = 'private'): Seen {
  const words = ['__test__/host/run.ts', host, '--', 'ava', '--config', 'ava.host.config.js', '--tap']
  const run = spawnSync(
    process.execPath,
    [...words, '--match', `${id}:*`, `__test__/security/${file}.host.test.ts`],
    {
      cwd: dir,
      encoding: 'utf8',
      env: {
        ...process.env,
        CAISSON_OFF: off,
        CAISSON_RACE_SECONDS: process.env.CAISSON_RACE_SECONDS ?? '4',
        PATH: `${join(own, 'node_modules/.bin')}:${process.env.PATH}`,
      },
    },
  )
  const tests = new Map<string, boolean>()
  for (const [, not, title = ''] of run.stdout.matchAll(/^(not )?ok \d+ - (.*)$/gm))
    tests.set(title, not === undefined)
  return { tests, output: run.stdout + run.stderr }
}

const dir = mkdtempSync(join(tmpdir(), 'caisson-red-'))
// Ordinary users run some of them.
chmodSync(dir, 0o755)
let faults = 0
const fault = (text: string): void => {
  faults += 1
  console.error(`red: ${text}`)
}
try {
  for (const name of ['src', '__test__', 'package.json', 'index.js', 'ava.host.config.js']) {
    cpSync(join(own, name), join(dir, name), { recursive: true })
  }
  symlinkSync(join(own, 'node_modules'), join(dir, 'node_modules'))
  build(dir)
  const asked = process.argv.slice(2)
  let red = 0
  for (const [id, { file, off, why, host }] of Object.entries(rows)) {
    if (asked.length > 0 && !asked.includes(id)) continue
    const green = see(dir, file, id, '', host)
    if (green.tests.size === 0 || [...green.tests.values()].includes(false))
      fault(`${id} fails with all in force:\n${green.output}`)
    if (off === undefined) {
      console.log(`red: ${id} has no control: ${why}`)
      continue
    }
    const { tests, output } = see(dir, file, id, off, host)
    for (const title of green.tests.keys()) {
      if (tests.get(title) === false) red += 1
      else fault(`passes with ${off} off: ${title}\n${output}`)
    }
    console.log(
      `red: ${id} without ${off}: ${[...tests.values()].filter((passed) => !passed).length} of ${green.tests.size} red`,
    )
  }
  console.log(`red: ${red} tests seen red`)
} finally {
  rmSync(dir, { recursive: true, force: true })
}
if (faults > 0) process.exit(1)
