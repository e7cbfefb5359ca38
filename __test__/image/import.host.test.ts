/** Root file systems imported as images. */
import { spawnSync } from 'node:child_process'
import { createReadStream, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import test from 'ava'
import { nothing, remains } from './archives.ts'
import * as layouts from './layouts.ts'
import { engine, scratch } from './store.ts'
import { main } from '../cli/program.ts'

const base = layouts.busybox({ name: 'srv/', kind: '5' }, { name: 'srv/file', content: 'file\n' })

test('plain and gzip, a file and a stream: one layer, which is the archive itself', async (t) => {
  const directory = scratch(t)
  const one = engine(t, directory)
  const file = join(directory, 'rootfs.tar')
  layouts.index(directory, {})
  writeFileSync(file, base)
  writeFileSync(`${file}.gz`, gzipSync(base, { level: 1 }))
  const changes = ['WORKDIR /srv', 'CMD ["cat", "file"]']
  const first = await one.images.import(file, { reference: 'mine', changes, message: 'by hand' })
  const second = await one.images.import(createReadStream(`${file}.gz`), { reference: 'mine:gz', changes })
  t.deepEqual([first.names, second.names], [['mine:latest'], ['mine:gz']])
  for (const name of ['mine', 'mine:gz']) t.is((await one.run(name)).stdout, 'file\n')
  t.like(await one.images.config('mine'), {
    config: { WorkingDir: '/srv', Cmd: ['cat', 'file'] },
    rootfs: { type: 'layers', diff_ids: [layouts.sha256(base)] },
  })
  t.like(await one.images.history('mine'), [{ comment: 'by hand', size: base.length }])
  t.like(remains(directory), { layers: 1, names: 2, blobs: 6, spool: false })
  for (const bytes of [base, gzipSync(base, { level: 1 })])
    t.deepEqual(readFileSync(layouts.path(join(directory, 'data/images'), layouts.sha256(bytes))), bytes)
  const bare = await one.images.import(file)
  t.deepEqual(bare.names, [])
})

test('refused: what is no archive, no name, no change', async (t) => {
  const directory = scratch(t)
  const one = engine(t, directory)
  layouts.index(directory, {})
  const file = join(directory, 'rootfs.tar')
  const wrong: [Buffer, string][] = [
    [Buffer.alloc(2048, 'x'), 'ERR_ARCHIVE'],
    [Buffer.alloc(0), 'ERR_ARCHIVE'],
    [base.subarray(0, 100_000), 'ERR_ARCHIVE'],
    [gzipSync(base).subarray(0, 100_000), 'ERR_ARCHIVE'],
    [layouts.tar([{ name: '../../evil', content: 'x' }]), 'ERR_ARCHIVE'],
    // A bomb: more than a thousand times its size.
    [gzipSync(Buffer.alloc(100 << 20), { level: 9 }), 'ERR_IMAGE_LIMIT'],
  ]
  for (const [bytes, code] of wrong) {
    writeFileSync(file, bytes)
    await t.throwsAsync(one.images.import(file, { reference: 'a' }), { code }, code)
    t.deepEqual(remains(directory), nothing)
  }
  writeFileSync(file, base)
  const code = 'ERR_INVALID_OPTION'
  for (const reference of ['UPPER', `a@${layouts.sha256('x')}`])
    await t.throwsAsync(one.images.import(file, { reference }), { code })
  for (const change of [
    'RUN x',
    'CMD',
    'ENV',
    'ENV A',
    'EXPOSE 0',
    'EXPOSE 70000',
    'LABEL "a=b',
    'constructor x',
  ])
    await t.throwsAsync(one.images.import(file, { changes: [change] }), { code }, change)
  await t.throwsAsync(one.images.import(file, { changes: ['STOPSIGNAL SIGNONE'] }), {
    code: 'ERR_INVALID_IMAGE',
  })
  t.deepEqual(remains(directory), nothing)
})

test('the command line', (t) => {
  const directory = scratch(t)
  const env = {
    PATH: process.env.PATH,
    XDG_RUNTIME_DIR: process.env.XDG_RUNTIME_DIR,
    CAISSON_ROOT: join(directory, 'data'),
  }
  const caisson = (words: string[], input?: Buffer) => {
    const options = { env, input, encoding: 'utf8' as const }
    const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...words], options)
    return { status, stdout, stderr }
  }
  const changes = [
    'ENTRYPOINT ["echo"]',
    'CMD ["$A", "b c"]',
    'ENV A=1 B="two words"',
    'LABEL x=y',
    'EXPOSE 80 53/udp',
    'VOLUME /data',
    'USER 0',
    'STOPSIGNAL SIGINT',
    'ENV C three words',
  ].flatMap((change) => ['-c', change])
  const made = caisson(['import', '-m', 'said', ...changes, '-', 'mine:1'], base)
  t.is(made.status, 0, made.stderr)
  t.regex(made.stdout, /^sha256:[a-f0-9]{64}\n$/)
  const seen = caisson(['image', 'inspect', '-f', '{{json .Config}}', 'mine:1'])
  t.is(seen.status, 0, seen.stderr)
  t.deepEqual(JSON.parse(seen.stdout), {
    Entrypoint: ['echo'],
    Cmd: ['$A', 'b c'],
    Env: ['A=1', 'B=two words', 'C=three words'],
    Labels: { x: 'y' },
    ExposedPorts: { '80/tcp': {}, '53/udp': {} },
    Volumes: { '/data': {} },
    User: '0',
    StopSignal: 'SIGINT',
  })
  t.is(caisson(['run', '--rm', 'mine:1']).stdout, '$A b c\n')
  t.is(caisson(['import']).status, 125)
  t.regex(caisson(['import', 'https://example.com/x.tar']).stderr, /fetch it first/)
})
