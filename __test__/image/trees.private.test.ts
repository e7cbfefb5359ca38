/** What is mounted of an image of many layers is what umoci makes of it, entry by entry. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import * as layouts from './layouts.ts'
import { publish, registryOf } from './published.ts'
import { engine, scratch } from './store.ts'
import { list } from './trees.ts'

/** A pax header's record: its length counts itself. */
function record(key: string, value: string): string {
  const rest = ` ${key}=${value}\n`
  let length = rest.length + 1
  while (`${length}`.length + rest.length !== length) length = `${length}`.length + rest.length
  return `${length}${rest}`
}

/** The attributes of the entry that follows. */
const attributes = (records: Record<string, string>): layouts.Entry => ({
  name: 'PaxHeaders/x',
  // Of tar(5)'s kinds the one that only says something of the next.
  kind: 'x' as '0',
  content: Object.entries(records)
    .map(([key, value]) => record(key, value))
    .join(''),
})

const layers = [
  layouts.busybox(
    { name: 'etc/', kind: '5' },
    { name: 'etc/passwd', content: 'root:x:0:0::/:/bin/sh\n' },
    { name: 'dir/', kind: '5', mode: 0o1777, uid: 5, gid: 6 },
    { name: 'dir/low', content: 'low', mode: 0o640, uid: 7, gid: 8 },
    { name: 'dir/sub/', kind: '5', mode: 0o2750, uid: 1, gid: 2 },
    { name: 'dir/sub/setuid', content: 's', mode: 0o4711 },
    { name: 'whole/', kind: '5' },
    { name: 'whole/deep/', kind: '5' },
    { name: 'whole/deep/x', content: 'x' },
    { name: 'becomes-file/', kind: '5' },
    { name: 'becomes-file/x', content: 'x' },
    { name: 'becomes-directory', content: 'x' },
    { name: 'opaque/', kind: '5', mode: 0o700 },
    { name: 'opaque/hidden', content: 'x' },
  ),
  layouts.tar([
    // Parents from below, a link to a file from below.
    { name: 'dir/sub/new', content: 'new', uid: 3, gid: 4 },
    { name: 'dir/link', kind: '1', link: 'dir/low' },
    { name: 'dir/symbolic', kind: '2', link: '../etc/passwd', uid: 9, gid: 9 },
    { name: 'opaque/.wh..wh..opq' },
    { name: 'opaque/shown', content: 'y' },
    { name: '.wh.whole' },
    { name: 'becomes-file', content: 'file' },
    { name: '.wh.becomes-directory' },
    attributes({ 'SCHILY.xattr.user.note': 'a note', mtime: '1234567890.5' }),
    { name: 'attributed', content: 'with' },
    { name: 'one', content: 'linked' },
    { name: 'two', kind: '1', link: 'one' },
  ]),
  layouts.tar([
    { name: 'becomes-directory/', kind: '5', mode: 0o711 },
    { name: 'becomes-directory/in', content: 'in' },
    { name: 'whole/', kind: '5', mode: 0o750 },
    { name: 'whole/again', content: 'again' },
    { name: 'dir/.wh.low' },
    { name: 'dir/twice', kind: '1', link: 'dir/link' },
    { name: 'device', kind: '3', mode: 0o600, device: [1, 3] },
  ]),
]

/** A hard link to a file of another layer is a copy of it in overlayfs: these two are apart. */
function apart(line: string): string {
  return line.replace("|2 of 'dir/link'|", '||')
}

test('an image of layers that change one another: what is mounted is what umoci unpacks', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  for (const compress of [false, true]) {
    const tag = compress ? 'gzip' : 'plain'
    const below = join(directory, tag)
    const written = publish(registry, directory, { layers, compress }, tag)
    const one = engine(t, below)
    const image = `${registry.host}/app:${tag}`
    await one.pull(image)
    const facts = join(below, 'data/facts', `${written.manifest.digest.slice('sha256:'.length)}.json`)
    const { chains } = JSON.parse(readFileSync(facts, 'utf8')) as { chains: string[] }
    const lowers = chains.map((chain) => join(below, 'data/layers', chain, 'root')).join(':')
    const bundle = join(below, 'bundle')
    execFileSync('umoci', ['unpack', '--image', `${join(below, 'data/images')}:${image}`, bundle], {
      stdio: 'pipe',
    })
    const merged = join(below, 'merged')
    mkdirSync(merged)
    // As the engine mounts them, without what a container gets besides.
    execFileSync('mount', ['-t', 'overlay', '-o', `ro,lowerdir=${lowers}`, 'overlay', merged])
    try {
      const [ours, theirs] = [list(merged), list(join(bundle, 'rootfs'))]
      t.deepEqual(ours, theirs.map(apart))
      t.true(ours.length > 30)
      t.is(ours.filter((line) => line.includes("|2 of 'one'|")).length, 2)
    } finally {
      execFileSync('umount', [merged])
    }
  }
})
