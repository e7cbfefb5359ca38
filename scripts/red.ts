/**
 * The controls of the security rows: builds the addon and the executable with the feature `off` into a copy of the
 * checkout's tests, sees every row green there, then switches off one row's mitigation after another and wants its
 * tests red: of the Rust by CAISSON_OFF, of the TypeScript by edits of the copy. A row whose control stays green proves
 * nothing, and makes this red.
 *   node scripts/red.ts [ROW...]
 */
import { execFileSync, spawnSync } from 'node:child_process'
import {
  chmodSync,
  copyFileSync,
  cpSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { edits } from '../__test__/security/edits.ts'
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

/** Writes the copy's sources as these words have them; what it gives back undoes it. */
function edit(copy: string, off: string): () => void {
  const changed = new Set<string>()
  for (const { file, text, instead } of off.split(',').flatMap((word) => edits[word] ?? [])) {
    const source = readFileSync(join(copy, file), 'utf8')
    if (source.split(text).length !== 2) throw new Error(`${file} does not hold this once: ${text}`)
    writeFileSync(
      join(copy, file),
      source.replace(text, () => instead),
    )
    changed.add(file)
  }
  return () => {
    for (const file of changed) copyFileSync(join(own, file), join(copy, file))
  }
}

interface Seen {
  /** Tests by their titles: whether they passed. */
  tests: Map<string, boolean>
  output: string
}

/** Runs the tests of one file whose titles begin with a row's name. */
function see(dir: string, file: string, id: string, off: string, host = 'private'): Seen {
  const words = ['__test__/host/run.ts', host, '--', 'ava', '--config', 'ava.host.config.js', '--tap']
  const restore = edit(dir, off)
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
  restore()
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
  // By the filter of cargo's tests, in which the rows' own controls are.
  const crates = new Map<string, string[]>()
  let red = 0
  for (const [id, row] of Object.entries(rows)) {
    if (asked.length > 0 && !asked.includes(id)) continue
    if ('rust' in row) {
      crates.set(row.rust, [...(crates.get(row.rust) ?? []), id])
      continue
    }
    const { file, off, why, host } = row
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
  for (const [filter, ids] of crates) {
    const words = [
      'test',
      '--locked',
      '--features',
      'off',
      '--target-dir',
      join(own, 'target/off'),
      '-p',
      'caisson-core',
    ]
    const run = spawnSync('cargo', [...words, filter], { cwd: own, encoding: 'utf8' })
    const passed = /^test result: ok\. ([1-9]\d*) passed/m.test(run.stdout)
    if (run.status !== 0 || !passed)
      fault(`${ids.join(', ')}: cargo test ${filter} failed:\n${run.stdout}${run.stderr}`)
    else console.log(`red: ${ids.join(', ')} by cargo test ${filter}`)
  }
  console.log(`red: ${red} tests seen red`)
} finally {
  rmSync(dir, { recursive: true, force: true })
}
if (faults > 0) process.exit(1)
