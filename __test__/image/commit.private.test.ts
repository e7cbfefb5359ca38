/** What others make of a committed image, and what a full disk makes of a commit. */
import { execFileSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { Engine } from '../../src/index.ts'
import { leavesNothing } from '../host/ledger.ts'
import { remains } from './archives.ts'
import { engine, scratch, shimsAreGone } from './store.ts'
import { changes, importBase } from './written.ts'
import { list } from './trees.ts'

test('umoci unpacks of the image what was in the container', async (t) => {
  const directory = scratch(t)
  const one = engine(t, directory)
  await importBase(one, directory)
  const container = await one.start('base', ['sh', '-c', `${changes}\nsleep 1000`])
  for await (const line of container.main.stdout?.lines() ?? []) if (line === 'done') break
  const attributes = `
import os, sys
root = '/proc/' + sys.argv[1] + '/root'
os.setxattr(root + '/new', 'user.note', b'a\\0note\\n')
os.setxattr(root + '/dir', 'user.of', b'a directory')
os.setxattr(root + '/kept', 'security.capability', bytes.fromhex('0100000200040000' + '00' * 12))
`
  execFileSync('python3', ['-c', attributes, String(container.main.pid)])
  const { names } = await container.commit({ reference: 'made' })
  t.deepEqual(names, ['made:latest'])
  const file = join(directory, 'export.tar')
  await container.export(file)
  const [ours, bundle] = [join(directory, 'ours'), join(directory, 'bundle')]
  mkdirSync(ours)
  execFileSync('tar', ['-xpf', file, '-C', ours, '--xattrs', '--xattrs-include=*'])
  const image = `${join(directory, 'data/images')}:docker.io/library/made:latest`
  execFileSync('umoci', ['unpack', '--image', image, bundle], { stdio: 'pipe' })
  t.deepEqual(list(ours), list(join(bundle, 'rootfs')))
  t.true(list(ours).length > 40)
  t.is(
    list(ours).filter((line) => /user\.note=61006e6f74650a;|user\.of=|security\.capability=/.test(line))
      .length,
    4,
  )
})

test('a disk that is full', async (t) => {
  const directory = '/run/image-full'
  leavesNothing(t, directory)
  mkdirSync(directory)
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=40m', 'full', directory])
  const one = new Engine({ root: join(directory, 'data'), runRoot: join(directory, 'run') })
  try {
    await importBase(one, directory)
    const script = 'dd if=/dev/urandom of=/large bs=1M count=24 2>/dev/null; echo done; sleep 1000'
    const container = await one.start('base', ['sh', '-c', script])
    for await (const line of container.main.stdout?.lines() ?? []) if (line === 'done') break
    const before = remains(directory)
    await t.throwsAsync(container.commit({ reference: 'never' }), {
      code: 'ERR_ARCHIVE',
      message: /^pack: the archive: ENOSPC: No space left on device$/,
    })
    t.deepEqual(remains(directory), before)
    await t.throwsAsync(container.export(join(directory, 'x.tar')), {
      code: 'ERR_INVALID_OPTION',
      message: /x\.tar' cannot be written: ENOSPC/,
    })
    t.is((await container.exec(['ls', '/large'])).stdout, '/large\n')
    t.is((await container.exec(['echo', 'alive'])).stdout, 'alive\n')
  } finally {
    await one.close()
    await shimsAreGone(directory)
    execFileSync('umount', [directory])
    execFileSync('rmdir', [directory])
  }
})
