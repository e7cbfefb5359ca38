/**
 * `npm run bench -- NAME [OPTIONS]`: runs a benchmark on the private host, as root, from the built package.
 * What is measured there is compared with peers and with the bare kernel in the same run, never with another run.
 */
import { copyFileSync, rmSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { onPrivateHost } from '../__test__/host/private.ts'
import { exec } from './exec.ts'
import { build, rawFigures } from './programs.ts'
import { pull } from './pull.ts'
import { debian } from './pulled.ts'
import { startup } from './startup.ts'
import { users } from './users.ts'

const benches: Record<string, (rounds: number) => Promise<void>> = { exec, pull, startup, users }
const minutes = 15

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { json: { type: 'string' }, rounds: { type: 'string', default: '20' } },
})
const [name = ''] = positionals
const bench = Object.hasOwn(benches, name) ? benches[name] : undefined
const rounds = Number(values.rounds)
if (bench === undefined || positionals.length !== 1 || !Number.isInteger(rounds) || rounds < 1) {
  console.error(`usage: npm run bench -- ${Object.keys(benches).join('|')} [--rounds N] [--json FILE]`)
  process.exit(2)
}
if (process.env.CAISSON_TEST_HOST === 'private') {
  await bench(rounds)
} else {
  build()
  if (name === 'pull') debian()
  rmSync(rawFigures, { force: true })
  const again = [process.execPath, fileURLToPath(import.meta.url), name, '--rounds', String(rounds)]
  process.exitCode = await onPrivateHost(again, minutes * 60_000, name === 'users')
  if (process.exitCode === 0 && values.json !== undefined) copyFileSync(rawFigures, values.json)
}
