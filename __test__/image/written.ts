/** Archives that Caisson wrote, as Python reads them; and containers that change much. */
import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { writeFileSync } from 'node:fs'
import type { Engine, ImageInfo } from '../../src/index.ts'
import { hasUsers, isRoot } from '../host/ground.ts'
import * as layouts from './layouts.ts'

/** All that an archive says of its entries, a line each. */
const listing = `
import sys, tarfile
for m in tarfile.open(sys.argv[1], 'r:*'):
    more = {k: v for k, v in m.pax_headers.items() if k.startswith('SCHILY')}
    print(m.name, m.type, oct(m.mode), m.uid, m.gid, m.size, m.pax_headers.get('mtime', m.mtime), m.linkname, m.devmajor, m.devminor, sorted(more.items()))
`
const contents = `
import sys, tarfile, hashlib
t = tarfile.open(sys.argv[1], 'r:*')
for m in t:
    if m.isreg(): print(m.name, hashlib.sha256(t.extractfile(m).read()).hexdigest())
`

/** The entries of an archive: name, kind, mode, owner, size, time, target, attributes; and what is in the files. */
export function entriesOf(archive: string): string[] {
  return [listing, contents].flatMap((script) =>
    execFileSync('python3', ['-c', script, archive], { encoding: 'utf8', maxBuffer: 64 << 20 })
      .trim()
      .split('\n'),
  )
}

const commands = [
  'chmod',
  'chown',
  'dd',
  'ln',
  'mkdir',
  'mkfifo',
  'mknod',
  'mv',
  'rm',
  'rmdir',
  'sync',
  'truncate',
]

/** A root file system in which there is much to change. */
export const base: Buffer = layouts.busybox(
  ...commands.map((name): layouts.Entry => ({ name: `bin/${name}`, kind: '2', link: 'busybox' })),
  { name: 'etc/', kind: '5' },
  { name: 'etc/passwd', content: 'root:x:0:0::/:/bin/sh\n' },
  { name: 'gone', content: 'x' },
  { name: 'dir/', kind: '5', mode: 0o1777, uid: 5, gid: 6 },
  { name: 'dir/low', content: 'low', mode: 0o640, uid: 7, gid: 8 },
  { name: 'dir/gone', content: 'x' },
  { name: 'dir/sub/', kind: '5', mode: 0o2750, uid: 1, gid: 2 },
  { name: 'dir/sub/deep', content: 'deep', uid: 1, gid: 2 },
  { name: 'whole/', kind: '5' },
  { name: 'whole/x', content: 'x' },
  { name: 'opaque/', kind: '5' },
  { name: 'opaque/hidden', content: 'x' },
  { name: 'becomes-file/', kind: '5' },
  { name: 'becomes-file/x', content: 'x' },
  { name: 'becomes-directory', content: 'x' },
  { name: 'becomes-link', content: 'x' },
  { name: 'one', content: 'linked', uid: 9, gid: 9 },
  { name: 'two', kind: '1', link: 'one' },
  { name: 'kept', content: 'as it was', mode: 0o4755 },
)

/** What a container does to it; the last word is `done`. */
export const changes: string = [
  'set -e',
  'rm /gone /dir/gone; rm -r /whole /opaque; mkdir /opaque; echo shown >/opaque/shown',
  'rm -r /becomes-file; echo file >/becomes-file',
  'rm /becomes-directory /becomes-link; mkdir -p /becomes-directory/in; ln -s ../nowhere /becomes-link',
  'echo more >>/dir/low; chmod 4711 /dir/sub/deep; touch /dir/sub/new; chmod 700 /dir/sub',
  'echo new >/new; ln /new /new-too; ln -s new /symbolic; ln /symbolic /symbolic-too; mkfifo -m 620 /fifo',
  'ln /two /three',
  'rm -r /dir/sub; mkdir /dir/sub; echo again >/dir/sub/again',
  `mkdir -p /${'d'.repeat(120)}/${'e'.repeat(120)}; echo long >/${'d'.repeat(120)}/${'e'.repeat(120)}/${'f'.repeat(200)}`,
  'touch -d 1969-12-31T23:00:00 /new 2>/dev/null || true',
  'dd if=/dev/zero of=/sparse bs=1 count=1 seek=9999999 2>/dev/null',
  ...(hasUsers
    ? ['chown 11:12 /new /opaque; chown -h 13:14 /symbolic; touch /owned; chown 40000:50000 /owned']
    : []),
  ...(isRoot ? ['mknod -m 640 /null c 1 3; mknod /disk b 8 17'] : []),
  'echo done',
].join('\n')

/** The base as an image of this name. */
export async function importBase(engine: Engine, directory: string, reference = 'base'): Promise<ImageInfo> {
  const file = join(directory, 'base.tar')
  layouts.index(directory, {})
  writeFileSync(file, base)
  return engine.images.import(file, { reference, changes: ['ENV A=1 B=2', 'CMD ["cat", "/kept"]', 'USER 0'] })
}
