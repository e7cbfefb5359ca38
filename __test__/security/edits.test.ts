/** The controls of the security rows can be had: `npm run test:red` is run seldom, and sources change daily. */
import { existsSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { edits } from './edits.ts'
import { rows } from './rows.ts'

const own = (path: string): string => fileURLToPath(new URL(`../../${path}`, import.meta.url))

test('what an edit replaces stands in its source once', (t) => {
  for (const [word, list] of Object.entries(edits)) {
    const sources = new Map<string, string>()
    for (const { file, text, instead } of list) {
      const source = sources.get(file) ?? readFileSync(own(file), 'utf8')
      t.is(source.split(text).length, 2, `${word}: ${file} does not hold this once: ${text}`)
      sources.set(
        file,
        source.replace(text, () => instead),
      )
    }
  }
})

test('each row’s tests and controls are there', (t) => {
  const words = readFileSync(own('crates/core/src/off.rs'), 'utf8').matchAll(/^\/\/! \| `(\w+)` \|/gm)
  const known = new Set([...[...words].map(([, word]) => word), ...Object.keys(edits)])
  for (const [id, row] of Object.entries(rows)) {
    for (const word of row.off?.split(',') ?? [])
      t.true(known.has(word), `${id}: ${word} switches nothing off`)
    const off = 'rust' in row ? undefined : row.off
    if ('rust' in row) continue
    t.is(off === undefined, row.why !== undefined, id)
    const path = own(`__test__/security/${row.file}.host.test.ts`)
    t.true(existsSync(path) && readFileSync(path, 'utf8').includes(`'${id}'`), `${id} is not in ${path}`)
  }
})
