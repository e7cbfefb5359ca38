/** Names in archives that are paths of the host to who takes them for such (security.md D14). */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { docker, refusedLoad } from '../image/archives.ts'
import * as layouts from '../image/layouts.ts'
import type { Entry } from '../image/layouts.ts'
import { row } from './row.ts'

const base = layouts.tar([{ name: 'file', content: 'content\n' }])
const big = layouts.tar([{ name: 'file', content: Buffer.alloc(300_000, 'x') }])
/** From where an archive is kept while it is read to where the bait is. */
const out = '../../..'

function of(Layers: readonly string[], ...more: Entry[]): () => Entry[] {
  return () => docker([{ layers: [base], Layers }], ...more)
}

function tags(RepoTags: readonly string[]): () => Entry[] {
  return () => docker([{ layers: [base], RepoTags }])
}

/** Each makes the entries of a wrong archive. */
const cases: [string, string, (directory: string, bait: string) => Entry[]][] = [
  ['a layer above the archive', 'ERR_INVALID_IMAGE', of([`${out}/bait/f`])],
  ['a layer at the host’s root', 'ERR_INVALID_IMAGE', (_, bait) => of([`${bait}/f`])()],
  ['a layer by a rooted name', 'ERR_INVALID_IMAGE', of(['/a'], { name: 'a', content: base })],
  [
    'a layer by a name that leaves and comes back',
    'ERR_INVALID_IMAGE',
    of(['../a'], { name: 'a', content: base }),
  ],
  [
    'a layer that is a link to the host',
    'ERR_INVALID_IMAGE',
    (_, bait) => of(['l/layer.tar'], { name: 'l/layer.tar', kind: '2', link: `${bait}/f` })(),
  ],
  [
    'a layer that is a link out of the archive',
    'ERR_INVALID_IMAGE',
    of(['l/layer.tar'], { name: 'l/layer.tar', kind: '2', link: `../${out}/bait/f` }),
  ],
  [
    'a hard link out of the archive',
    'ERR_INVALID_IMAGE',
    of(['l/layer.tar'], { name: 'l/layer.tar', kind: '1', link: `${out}/bait/f` }),
  ],
  [
    'a chain of links without end',
    'ERR_INVALID_IMAGE',
    of(
      ['l0'],
      ...Array.from({ length: 50 }, (_, at): Entry => ({ name: `l${at}`, kind: '2', link: `l${at + 1}` })),
      { name: 'l50', content: base },
    ),
  ],
  [
    'a file whose name leads out',
    'ERR_INVALID_IMAGE',
    of(['../bait/evil'], { name: '../bait/evil', content: base }),
  ],
  [
    'two contents of one name',
    'ERR_INVALID_IMAGE',
    of(['a'], { name: 'a', content: base }, { name: './a', content: big }),
  ],
  ['10⁵ layers', 'ERR_IMAGE_LIMIT', of(Array.from({ length: 1e5 }, () => 'a'))],
  ['10⁵ names', 'ERR_IMAGE_LIMIT', tags(Array.from({ length: 1e5 }, (_, at) => `a:${at}`))],
  [
    'a manifest.json that is a link to the host',
    'ERR_INVALID_IMAGE',
    (directory) => {
      const entries = docker([{ layers: [base] }])
      const there = join(directory, 'host.json')
      writeFileSync(there, entries.find(({ name }) => name === 'manifest.json')?.content ?? '')
      return entries.map((entry) =>
        entry.name === 'manifest.json' ? { name: entry.name, kind: '2', link: there } : entry,
      )
    },
  ],
]

for (const [title, code, make] of cases) row('D14', title, (t) => refusedLoad(t, code, make))
