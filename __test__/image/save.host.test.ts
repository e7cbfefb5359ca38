/** Images saved: what others read of it, and that it is the same each time. */
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { PassThrough, Writable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import test from 'ava'
import type { Engine } from '../../src/container/engine.ts'
import { runtime } from '../host/ground.ts'
import { rootTest } from '../host/only.ts'
import * as archives from './archives.ts'
import { archive, docker, hello, remains } from './archives.ts'
import * as layouts from './layouts.ts'
import { engine, scratch } from './store.ts'
import { main } from '../cli/program.ts'

const base = layouts.busybox()

/** An engine with `hello:1` and `second:2`, on the same layer. */
async function filled(one: Engine, directory: string): Promise<Engine> {
  const config = archives.config([base], { Cmd: ['echo', 'second'] })
  const images = [
    { layers: [base], RepoTags: ['hello:1'] },
    { layers: [base], config, RepoTags: ['second:2', 'example.com:80/second:2'] },
  ]
  await one.images.load(archive(join(directory, 'filled.tar'), docker(images)))
  return one
}

async function saved(one: Engine, references: string | string[], format?: 'docker' | 'oci'): Promise<Buffer> {
  const stream = new PassThrough()
  const [bytes] = await Promise.all([
    buffer(stream),
    one.images.save(references, stream, format === undefined ? {} : { format }),
  ])
  return bytes
}

/** The names in an archive, and the text of its documents. */
function listed(file: string): { names: string[]; text: (name: string) => string } {
  const tar = (...words: string[]): string => execFileSync('tar', words, { encoding: 'utf8' })
  return {
    names: tar('-tf', file).trim().split('\n'),
    text: (name) => tar('-xOf', file, name),
  }
}

test('saved, loaded elsewhere, run', async (t) => {
  const directory = scratch(t)
  const one = await filled(engine(t, join(directory, 'one')), directory)
  const packed = join(directory, 'packed')
  layouts.layout(
    packed,
    { layers: [base], config: { Cmd: hello, Env: ['A=1'] }, compress: true },
    'a/packed:1',
  )
  await one.images.load(archive(join(directory, 'packed.tar'), archives.directory(packed)))
  for (const format of ['docker', 'oci'] as const) {
    const file = join(directory, `${format}.tar`)
    await one.images.save(['hello:1', 'second:2', 'a/packed:1'], file, { format })
    t.is(statSync(file).mode & 0o777, 0o600)
    const root = join(directory, format)
    const other = engine(t, root)
    const images = await other.images.load(file)
    t.deepEqual(images.flatMap(({ names }) => names).toSorted(), ['a/packed:1', 'hello:1', 'second:2'])
    for (const { names, digest } of images) t.is((await one.images.get(names[0] ?? '')).digest, digest)
    t.is((await other.run('hello:1')).stdout, 'hello\n')
    t.is((await other.run('second:2')).stdout, 'second\n')
    t.is((await other.run('a/packed:1')).stdout, 'hello\n')
    t.like(remains(root), { layers: 1, spool: false, blobs: 8, names: 3 })
  }
})

test('the form: sorted, each blob once, the same bytes each time and in each store', async (t) => {
  const directory = scratch(t)
  const one = await filled(engine(t, join(directory, 'one')), directory)
  const two = await filled(engine(t, join(directory, 'two')), directory)
  const wanted = ['hello:1', 'second:2', 'example.com:80/second:2']
  const file = join(directory, 'a.tar')
  await one.images.save(wanted, file)
  const bytes = readFileSync(file)
  t.true(bytes.equals(await saved(one, [...wanted, 'hello:1'])))
  t.true(bytes.equals(await saved(two, wanted)))
  const { names, text } = listed(file)
  t.deepEqual(names, names.toSorted())
  t.is(new Set(names).size, names.length)
  // Two manifests, two configs, one layer.
  t.is(names.filter((name) => /^blobs\/sha256\/[a-f0-9]{64}$/.test(name)).length, 5)
  const owners = execFileSync('tar', ['--numeric-owner', '-tvf', file], {
    encoding: 'utf8',
    env: { TZ: 'UTC' },
  })
  for (const line of owners.trim().split('\n')) t.regex(line, / 0\/0 +\d+ 1970-01-01 00:00 /)
  const manifest = JSON.parse(text('manifest.json')) as { RepoTags: string[]; Layers: string[] }[]
  t.deepEqual(
    manifest.map(({ RepoTags }) => RepoTags),
    [['hello:1'], ['second:2', 'example.com:80/second:2']],
  )
  const index = JSON.parse(text('index.json')) as { manifests: { annotations: Record<string, string> }[] }
  t.deepEqual(
    index.manifests.map(({ annotations }) => annotations['io.containerd.image.name']),
    ['docker.io/library/hello:1', 'docker.io/library/second:2', 'example.com:80/second:2'],
  )
  const plain = join(directory, 'oci.tar')
  writeFileSync(plain, await saved(one, 'hello:1', 'oci'))
  t.false(listed(plain).names.includes('manifest.json'))
})

test('by its id it has no name', async (t) => {
  const directory = scratch(t)
  const one = await filled(engine(t, join(directory, 'one')), directory)
  const file = join(directory, 'a.tar')
  const { id } = await one.images.get('hello:1')
  await one.images.save(id, file)
  t.like(JSON.parse(listed(file).text('manifest.json')), [{ RepoTags: null }])
  const [image] = await engine(t, join(directory, 'two')).images.load(file)
  t.like(image, { id, names: [] })
})

test('skopeo reads it as both kinds of archive', async (t) => {
  const directory = scratch(t)
  const one = await filled(engine(t, join(directory, 'one')), directory)
  const file = join(directory, 'a.tar')
  await one.images.save(['hello:1', 'second:2'], file)
  const [first, oci] = [join(directory, 'first.tar'), join(directory, 'oci.tar')]
  await one.images.save('second:2', first)
  await one.images.save('second:2', oci, { format: 'oci' })
  const sources = [
    `docker-archive:${file}:second:2`,
    `docker-archive:${first}`,
    `oci-archive:${first}`,
    `oci-archive:${oci}:2`,
  ]
  for (const [at, source] of sources.entries()) {
    const layout = join(directory, `layout${at}`)
    execFileSync('skopeo', ['--tmpdir', runtime, 'copy', '--quiet', source, `oci:${layout}:x`], {
      stdio: 'pipe',
    })
    t.is((await one.run(`oci:${layout}:x`)).stdout, 'second\n', source)
  }
})

rootTest('podman loads it', async (t) => {
  const directory = scratch(t)
  const one = await filled(engine(t, join(directory, 'one')), directory)
  const file = join(directory, 'a.tar')
  await one.images.save(['hello:1', 'second:2'], file)
  const podman = (...words: string[]): string => {
    const [root, run] = [join(directory, 'podman'), join(directory, 'podman-run')]
    const where = ['--root', root, '--runroot', run, '--storage-driver', 'vfs']
    return execFileSync('podman', [...where, ...words], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
    })
  }
  t.regex(podman('load', '--quiet', '-i', file), /hello:1[^]*second:2/)
  const ids = podman('images', '--no-trunc', '--quiet').trim().split('\n').toSorted()
  const ours = await one.images.list()
  t.deepEqual(ids, ours.map(({ id }) => id).toSorted())
})

test('blobs that were pruned: said before a byte is written', async (t) => {
  const directory = scratch(t)
  const one = await filled(engine(t, join(directory, 'one')), directory)
  await one.images.prune({ blobs: true })
  const file = join(directory, 'a.tar')
  writeFileSync(file, 'before')
  const error = await t.throwsAsync(one.images.save('hello:1', file), { code: 'ERR_IMAGE_NOT_FOUND' })
  t.regex(error.message, /pull the image again/)
  t.is(readFileSync(file, 'utf8'), 'before')
  // A load brings them back.
  await one.images.load(join(directory, 'filled.tar'))
  await one.images.save('hello:1', file)
  t.true(listed(file).names.includes('manifest.json'))
})

test('targets: what is there is replaced as a whole, or stays', async (t) => {
  const directory = scratch(t)
  const one = await filled(engine(t, join(directory, 'one')), directory)
  const out = join(directory, 'out')
  mkdirSync(out)
  const [file, link] = [join(out, 'a.tar'), join(out, 'link')]
  writeFileSync(file, 'before')
  symlinkSync('a.tar', link)
  const refused: [string, string][] = [
    [out, 'ERR_INVALID_OPTION'],
    [join(out, 'none/a.tar'), 'ERR_INVALID_OPTION'],
  ]
  for (const [target, code] of refused) await t.throwsAsync(one.images.save('hello:1', target), { code })
  await t.throwsAsync(one.images.save(['hello:1', 'none:1'], file), { code: 'ERR_IMAGE_NOT_FOUND' })
  const over = new AbortController()
  over.abort(new Error('enough'))
  await t.throwsAsync(one.images.save('hello:1', file, { signal: over.signal }), { message: 'enough' })
  t.is(readFileSync(file, 'utf8'), 'before')
  await one.images.save('hello:1', link)
  t.deepEqual(readdirSync(out).toSorted(), ['a.tar', 'link'])
  t.true(listed(file).names.includes('oci-layout'))
  // A pipe is written to, and stays one; never a device of this machine's: the host shares its /dev.
  const pipe = join(out, 'pipe')
  execFileSync('mkfifo', [pipe])
  const reader = spawn('cat', [pipe], { stdio: ['ignore', 'pipe', 'inherit'] })
  t.teardown(() => reader.kill('SIGKILL'))
  const read = buffer(reader.stdout)
  await one.images.save('hello:1', pipe)
  if (!t.true(statSync(pipe).isFIFO())) return
  t.true((await read).equals(readFileSync(file)))
})

test('a stream: its pace is kept, its end ends the saving', async (t) => {
  const directory = scratch(t)
  const one = await filled(engine(t, join(directory, 'one')), directory)
  let taken = 0
  const over = new AbortController()
  const slow = new Writable({
    write(chunk: Buffer, _, done) {
      taken += chunk.length
      if (taken > 600_000) over.abort(new Error('enough'))
      else setImmediate(done)
    },
  })
  await t.throwsAsync(one.images.save('hello:1', slow, { signal: over.signal }), { message: 'enough' })
  t.true(taken < 1_000_000)
  const broken = new Writable({ write: (_, __, done) => done(new Error('the disk is full')) })
  await t.throwsAsync(one.images.save('hello:1', broken), { message: 'the disk is full' })
  t.true(broken.destroyed)
})

test('the command line: load, save, and what they say', (t) => {
  const directory = scratch(t)
  const second = archives.config([base], { Cmd: ['echo', 'second'] })
  const [first, other, bare] = [
    archive(join(directory, '1.tar'), docker([{ layers: [base], RepoTags: ['hello:1', 'hi:2'] }])),
    archive(join(directory, '2.tar'), docker([{ layers: [base], config: second }])),
    archive(join(directory, '3.tar'), docker([{ layers: [base], RepoTags: null }])),
  ]
  const env = {
    PATH: process.env.PATH,
    XDG_RUNTIME_DIR: process.env.XDG_RUNTIME_DIR,
    CAISSON_ROOT: join(directory, 'data'),
  }
  const caisson = (words: string[], input?: Buffer) => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...words], {
      env,
      input,
      maxBuffer: 1 << 26,
    })
    return { status, out: stdout.toString(), err: stderr.toString(), bytes: stdout }
  }
  const id = layouts.sha256(archives.config([base]))
  t.like(caisson(['load', '-i', first]), { status: 0, out: 'Loaded image: hello:1\nLoaded image: hi:2\n' })
  t.like(caisson(['image', 'load', '-q'], readFileSync(other)), {
    status: 0,
    out: `The image hello:1 already exists, renaming the old one with ID ${id} to empty string\nLoaded image: hello:1\n`,
  })
  t.like(caisson(['load', '--input', bare]), { status: 0, out: `Loaded image ID: ${id}\n` })
  const piped = caisson(['save', 'hi:2', 'hello:1'])
  const file = join(directory, 'out.tar')
  t.like(caisson(['image', 'save', '--output', file, 'hi:2', 'hello:1']), { status: 0, out: '', err: '' })
  t.true(readFileSync(file).equals(piped.bytes))
  t.like(caisson(['save', '--format', 'oci-archive', '-o', file, 'hi:2']), { status: 0 })
  t.false(listed(file).names.includes('manifest.json'))
  t.like(caisson(['save', '--format', 'zip', 'hi:2']), { status: 125, out: '' })
  t.like(caisson(['save']), { status: 125 })
  t.like(caisson(['save', 'none:1']), { status: 125, out: '', err: 'caisson: No such image: none:1\n' })
  t.is(caisson(['load', '-i', join(directory, 'none')]).status, 125)
  t.regex(caisson(['load'], Buffer.from('x')).err, /truncated/)
  t.false(existsSync(join(directory, 'data/spool')))
})
