/** The documents' promises about set-up, held against what is run. */
import { readFileSync } from 'node:fs'
import test from 'ava'

const read = (path: string): string => readFileSync(new URL(`../${path}`, import.meta.url), 'utf8')

test('README names each Debian package that scripts/setup installs, and no other', (t) => {
  const lists = [...read('scripts/setup').matchAll(/^(build|test|bench|qemu)=\(([^)]*)\)/gm)]
  t.is(lists.length, 4)
  const installed = new Set(
    lists.flatMap((list) => [...(list[2] ?? '').matchAll(/(\S+):\S+/g)].map((match) => match[1] ?? '')),
  )
  t.true(installed.size > 5)
  const table = read('README.md').match(/\| Debian packages \|\n([\s\S]*?)\n\n/)?.[1] ?? ''
  const named = [...table.matchAll(/`([a-z0-9][a-z0-9+.-]+)`/g)].map((match) => match[1] ?? '')
  t.deepEqual(named.toSorted(), [...installed].toSorted())
})

test('CI runs the commands that README gives for the tests', (t) => {
  const blocks = [...read('README.md').matchAll(/```sh\n([\s\S]*?)```/g)].map((match) => match[1] ?? '')
  t.true(blocks.length >= 2)
  const lines = (blocks[1] ?? '').trim().split('\n')
  t.deepEqual(lines.at(-1), 'npm test')
  const ci = read('.ci/run')
  for (const line of lines) t.true(ci.includes(`\n${line}`), line)
})
