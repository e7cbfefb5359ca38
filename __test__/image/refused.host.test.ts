/** Images that are damaged or lie: refused with the code for it, and nothing of them in the store. */
import { readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import test from 'ava'
import * as layouts from './layouts.ts'
import { empty, engine, held, scratch } from './store.ts'

function flip(file: string, at: number): void {
  const bytes = readFileSync(file)
  bytes[at] = (bytes[at] ?? 0) ^ 1
  writeFileSync(file, bytes)
}

const base: layouts.ImageOptions = { layers: [layouts.busybox()], compress: true }

/** Each makes a wrong layout of a right one. */
const cases: [string, string, (directory: string) => void][] = [
  [
    'a bit of the manifest',
    'ERR_DIGEST',
    (directory) => {
      const { manifest } = layouts.layout(directory, base)
      flip(layouts.path(directory, manifest.digest), 20)
    },
  ],
  [
    'a bit of the config',
    'ERR_DIGEST',
    (directory) => {
      const { config } = layouts.layout(directory, base)
      flip(layouts.path(directory, config.digest), 20)
    },
  ],
  [
    'a bit of the end of a plain layer, where no file is',
    'ERR_DIGEST',
    (directory) => {
      const { layers } = layouts.layout(directory, { ...base, compress: false })
      flip(layouts.path(directory, layers[0]?.digest ?? ''), (layers[0]?.size ?? 0) - 5)
    },
  ],
  [
    'a bit of a file in a plain layer',
    'ERR_DIGEST',
    (directory) => {
      const { layers } = layouts.layout(directory, { ...base, compress: false })
      flip(layouts.path(directory, layers[0]?.digest ?? ''), 100_000)
    },
  ],
  [
    'a wrong diff id',
    'ERR_DIGEST',
    (directory) => {
      const rootfs = { type: 'layers', diff_ids: [layouts.sha256('other')] }
      layouts.layout(directory, { ...base, document: { rootfs } })
    },
  ],
  [
    'a layer that is shorter than its descriptor says',
    'ERR_DIGEST',
    (directory) => {
      const { layers } = layouts.layout(directory, base)
      truncateSync(layouts.path(directory, layers[0]?.digest ?? ''), 1000)
    },
  ],
  [
    'a layer that is longer than its descriptor says',
    'ERR_DIGEST',
    (directory) => {
      const { layers } = layouts.layout(directory, base)
      const file = layouts.path(directory, layers[0]?.digest ?? '')
      writeFileSync(file, Buffer.concat([readFileSync(file), Buffer.alloc(1)]))
    },
  ],
  [
    'a layer that is missing',
    'ERR_INVALID_IMAGE',
    (directory) => {
      const { layers } = layouts.layout(directory, base)
      rmSync(layouts.path(directory, layers[0]?.digest ?? ''))
    },
  ],
  [
    'a layer that is no archive',
    'ERR_ARCHIVE',
    (directory) => {
      layouts.layout(directory, { layers: [Buffer.from('x'.repeat(2048))] })
    },
  ],
  [
    'a layer that is xz',
    'ERR_UNSUPPORTED',
    (directory) => {
      layouts.layout(directory, { layers: [Buffer.from('fd377a585a000000', 'hex')] })
    },
  ],
  [
    'a layer that leaves its root',
    'ERR_ARCHIVE',
    (directory) => {
      layouts.layout(directory, { layers: [layouts.tar([{ name: '../escaped', content: 'x' }])] })
    },
  ],
  [
    'a layer that inflates without end',
    'ERR_IMAGE_LIMIT',
    (directory) => {
      const zeros = layouts.tar([{ name: 'zeros', content: Buffer.alloc(80 << 20) }])
      layouts.layout(directory, { layers: [zeros], compress: 'best' })
    },
  ],
]
for (const [name, code, make] of cases) {
  test(`${name} is ${code}`, async (t) => {
    const directory = scratch(t)
    make(directory)
    const one = engine(t, directory)
    for (let round = 0; round < 2; round += 1) {
      t.like(await t.throwsAsync(one.run(`oci:${directory}`, ['true'])), { code })
      t.deepEqual(held(directory), empty)
    }
  })
}

test('a wrong upper layer ends all, and the layout works once it is repaired', async (t) => {
  const directory = scratch(t)
  const { layers } = layouts.layout(directory, {
    layers: [layouts.busybox(), layouts.tar([{ name: 'f', content: 'x'.repeat(5000) }])],
  })
  const file = layouts.path(directory, layers[1]?.digest ?? '')
  flip(file, 1000)
  const one = engine(t, directory)
  t.like(await t.throwsAsync(one.run(`oci:${directory}`, ['cat', '/f'])), { code: 'ERR_DIGEST' })
  // It is whole and verified, or ended with the other; what it is a part of is nothing.
  t.deepEqual({ ...held(directory), layers: 0 }, empty)
  flip(file, 1000)
  t.is((await one.run(`oci:${directory}`, ['cat', '/f'])).stdout.length, 5000)
})
