/**
 * Holds src/ and bin/ against the arrows of .dependency-cruiser.mjs: `node scripts/arrows.ts [ROOT]`.
 * Exit 1 with a line a violation; also when nothing was seen, which is how this checker fails (a compiler that it
 * does not know makes it cruise 0 modules and pass).
 */
import { spawnSync } from 'node:child_process'
import { globSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

interface Cruise {
  modules: { source: string }[]
  summary: { violations: { from: string; to: string; rule: { name: string } }[] }
}

const own = fileURLToPath(new URL('..', import.meta.url))
const root = process.argv[2] ?? own
const cruiser = fileURLToPath(new URL('../node_modules/.bin/depcruise', import.meta.url))
const run = spawnSync(cruiser, ['src', '-c', '.dependency-cruiser.mjs', '--output-type', 'json'], {
  cwd: root,
  encoding: 'utf8',
  maxBuffer: 1 << 28,
})
if (run.stdout === '') {
  console.error(run.stderr)
  process.exit(1)
}
const cruise = JSON.parse(run.stdout) as Cruise
const seen = new Set(cruise.modules.map((module) => module.source))
const missed = globSync('src/**/*.ts', { cwd: root }).filter((file) => !seen.has(file))
for (const file of missed) console.error(`arrows: ${file} was not seen by the checker`)
for (const { from, to, rule } of cruise.summary.violations)
  console.error(`arrows: ${rule.name}: ${from} -> ${to}`)
if (seen.size === 0 || missed.length > 0 || cruise.summary.violations.length > 0) process.exit(1)
console.log(`arrows: ${seen.size} modules follow them`)
