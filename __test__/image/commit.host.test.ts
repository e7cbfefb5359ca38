/** Containers made into images and archives: what comes out is the tree that was in the container, entry by entry. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Writable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { gunzipSync, gzipSync } from 'node:zlib'
import test from 'ava'
import type { Container, Engine, RunningContainer, RunOptions } from '../../src/index.ts'
import { hasGroups } from '../host/ground.ts'
import * as layouts from './layouts.ts'
import { engine, scratch } from './store.ts'
import { remains } from './archives.ts'
import { changes, entriesOf, importBase } from './written.ts'

/** A container that has done this, and waits. */
async function changed(one: Engine, image: string, script: string, options?: RunOptions): Promise<Container> {
  const container = await one.start(image, ['sh', '-c', `${script}\nsleep 1000`], options)
  for await (const line of container.main.stdout?.lines() ?? []) if (line === 'done') return container
  throw new Error(`it ended: ${(await container.wait()).stderr}`)
}

/** What an export says, but for what a start makes anew: the root's time, and what is mounted over. */
async function tree(container: Container | RunningContainer, file: string): Promise<string[]> {
  await container.export(file)
  const made = /^(?:\.|dev|proc|sys|etc) b|^etc\/(?:hostname|hosts|resolv\.conf) /
  return entriesOf(file).filter((line) => !made.test(line))
}

test('an image of a container is its tree, and so is an image of that one', async (t) => {
  const directory = scratch(t)
  const one = engine(t, directory)
  await importBase(one, directory)
  const container = await changed(one, 'base', changes)
  const before = await tree(container, join(directory, 'before.tar'))
  t.true(before.length > 60)
  // Whose files of the image are, a user with one id knows too.
  for (const [name, ids] of [
    ['dir/low', '7 8'],
    ['kept', '0 0'],
    ['one', '9 9'],
  ] as const)
    t.true(
      before.some((line) => line.startsWith(`${name} b`) && line.includes(` ${ids} `)),
      name,
    )
  const made = await container.commit({ reference: 'made:1' })
  t.deepEqual(made.names, ['made:1'])
  // It was read, not ended.
  t.is((await container.exec(['cat', '/new'])).stdout, 'new\n')
  t.deepEqual(await tree(container, join(directory, 'again.tar')), before)

  const second = await changed(one, 'made:1', 'echo done')
  t.deepEqual(await tree(second, join(directory, 'second.tar')), before)
  t.is(
    (
      await second.exec([
        'sh',
        '-c',
        'ls /gone /dir/gone /whole /opaque/hidden 2>/dev/null; cat /opaque/shown',
      ])
    ).stdout,
    'shown\n',
  )
  await second.commit({ reference: 'made:2' })
  const third = await changed(one, 'made:2', 'echo done')
  t.deepEqual(await tree(third, join(directory, 'third.tar')), before)
  t.is((await one.images.history('made:2')).length, 3)

  // A flat image of the archive is the same tree.
  await one.images.import(join(directory, 'before.tar'), { reference: 'flat' })
  const flat = await changed(one, 'flat', 'echo done')
  t.deepEqual(await tree(flat, join(directory, 'flat.tar')), before)
})

test('a stopped world: it is frozen while it is read, and goes on', async (t) => {
  const directory = scratch(t)
  const one = engine(t, directory)
  await importBase(one, directory)
  const container = await changed(
    one,
    'base',
    'dd if=/dev/urandom of=/large bs=1M count=24 2>/dev/null; echo done',
  )
  const group = container.isolation?.cgroup ?? ''
  const isFrozen = (): boolean => readFileSync(join(group, 'cgroup.events'), 'utf8').includes('frozen 1')
  const frozen = async (done: Promise<unknown>): Promise<boolean> => {
    const looks: boolean[] = []
    const timer = setInterval(() => looks.push(group !== '' && isFrozen()), 2)
    await done.finally(() => clearInterval(timer))
    return looks.includes(true)
  }
  t.is(await frozen(container.commit()), hasGroups)
  t.false(await frozen(container.commit({ pause: false })))
  t.false(await frozen(container.export(join(directory, 'x.tar'))))
  if (hasGroups) {
    // Two at a time: who ends first does not wake it.
    t.true(await frozen(container.commit({ pause: true })))
    t.deepEqual(
      (await Promise.all([container.commit(), container.commit()])).map(({ names }) => names),
      [[], []],
    )
    t.false(isFrozen())
  } else await t.throwsAsync(container.commit({ pause: true }), { code: 'ERR_ISOLATION', message: /cgroup/ })
  t.is((await container.exec(['echo', 'alive'])).stdout, 'alive\n')
})

test('what it mounts over its own root is not taken for it', async (t) => {
  const directory = scratch(t)
  const one = engine(t, directory)
  await importBase(one, directory)
  const script = 'mkdir /m && mount -t tmpfs m /m && echo hidden >/m/x && mount --bind /m / && echo done'
  const container = await changed(one, 'base', script, { capAdd: ['SYS_ADMIN'] })
  await t.throwsAsync(container.export(join(directory, 'x.tar')), {
    code: 'ERR_UNSUPPORTED',
    message: /in the container something is mounted over its root file system/,
  })
  t.false(existsSync(join(directory, 'x.tar')))
})

test('its end waits some seconds for who reads it, and no longer', async (t) => {
  const directory = scratch(t)
  const one = engine(t, directory)
  await importBase(one, directory)
  const script = 'dd if=/dev/urandom of=/large bs=1M count=24 2>/dev/null; echo done'
  const container = await changed(one, 'base', script)
  const written: number[] = []
  let goOn = (): void => {}
  const stuck = new Writable({
    write: (chunk: Buffer, _, next) => {
      if (written.push(chunk.length) === 1) goOn = next
      else next()
    },
  })
  const exported = t.throwsAsync(container.export(stuck), {
    code: 'ERR_NOT_RUNNING',
    message: /the container has ended, and its files were not read to their end in time/,
  })
  while (written.length === 0) await sleep(5)
  const begun = Date.now()
  await container.stop({ timeout: 0 })
  await container.wait()
  const waited = Date.now() - begun
  t.true(waited > 3000 && waited < 9000, `${waited} ms`)
  goOn()
  await exported
  t.true(written.reduce((sum, bytes) => sum + bytes, 0) < 24 << 20)
})

test('its config is docker’s: of the image, of the start, of the changes', async (t) => {
  const directory = scratch(t)
  const one = engine(t, directory)
  await importBase(one, directory)
  const options = {
    env: { B: '3', C: 'c', A: undefined },
    workdir: '/dir',
    labels: { of: 'start' },
    stopSignal: 'SIGINT' as const,
  }
  const container = await changed(one, 'base', 'echo done', options)
  const words = ['sh', '-c', 'echo done\nsleep 1000']
  const parts = {
    author: 'A <a@b.c>',
    message: 'by hand',
    changes: ['LABEL x=y', 'WORKDIR sub', 'ENV D=d', 'EXPOSE 80', 'VOLUME /v', 'ONBUILD RUN x'],
  }
  const made = await container.commit(parts)
  t.deepEqual([made.names, made.labels], [[], { of: 'start', x: 'y' }])
  t.like(await one.images.config(made.id), {
    author: 'A <a@b.c>',
    os: 'linux',
    config: {
      Cmd: words,
      Env: ['B=3', 'C=c', 'D=d'],
      WorkingDir: '/dir/sub',
      User: '0',
      Labels: { of: 'start', x: 'y' },
      StopSignal: 'SIGINT',
      ExposedPorts: { '80/tcp': {} },
      Volumes: { '/v': {} },
      OnBuild: ['RUN x'],
    },
  })
  const [step, below] = await one.images.history(made.id)
  t.like(step, { createdBy: words.join(' '), comment: 'by hand' })
  t.like(below, { comment: 'Imported from -' })
  const entry = await changed(one, 'base', '', { entrypoint: ['sh', '-c', 'echo done; sleep 1000'] })
  const second = await entry.commit({ changes: ['CMD ["x"]'] })
  t.like(await one.images.config(second.id), {
    config: { Entrypoint: ['sh', '-c', 'echo done; sleep 1000'], Cmd: ['x'] },
  })
  const third = await entry.commit({ changes: ['ENTRYPOINT ["cat"]'] })
  t.is(((await one.images.config(third.id)).config as { Cmd?: unknown }).Cmd, undefined)
  // By another program's words it is the same.
  await using other = await engine(t, directory).containers.get(container.id)
  const same = await other.commit(parts)
  t.deepEqual((await one.images.config(same.id)).config, (await one.images.config(made.id)).config)
})

test('an image of a container can be run, saved, loaded, removed', async (t) => {
  const directory = scratch(t)
  const one = engine(t, directory)
  await importBase(one, directory)
  const container = await changed(one, 'base', 'echo mine >/mine; echo done')
  const { id } = await container.commit({ reference: 'made', changes: ['CMD ["cat", "/mine", "/kept"]'] })
  for (const name of ['made', id, id.slice(7), id.slice(7, 19)])
    t.is((await one.run(name, { pull: 'never' })).stdout, 'mine\nas it was', name)
  await one.images.save('made', join(directory, 'made.tar'))
  // A name moves, as docker's does; what had it is dangling.
  const next = await container.commit({ reference: 'made' })
  t.deepEqual((await one.images.get(id)).names, [])
  t.not(next.id, id)
  await one.images.remove(id)
  await one.images.remove('made')
  await t.throwsAsync(one.run('made', { pull: 'never' }), { code: 'ERR_IMAGE_NOT_FOUND' })
  const [loaded] = await one.images.load(join(directory, 'made.tar'))
  t.is(loaded?.id, id)
  t.is((await one.run('made')).stdout, 'mine\nas it was')
  // What the container itself is of stays in use.
  await t.throwsAsync(one.images.remove('base'), { code: 'ERR_IMAGE_IN_USE' })
})

test('refused, with nothing left', async (t) => {
  const directory = scratch(t)
  const one = engine(t, directory)
  await importBase(one, directory)
  const container = await changed(one, 'base', 'echo >/dir/.wh.x; echo done')
  const before = remains(directory)
  const refused = async (options: object, code: string, message?: RegExp): Promise<void> => {
    await t.throwsAsync(container.commit(options), { code, ...(message !== undefined && { message }) })
    t.deepEqual(remains(directory), before)
  }
  await refused({}, 'ERR_UNSUPPORTED', /dir\/\.wh\.x: its name begins with \.wh\./)
  await refused({ reference: 'UPPER' }, 'ERR_INVALID_OPTION')
  await refused({ reference: `a@${layouts.sha256('x')}` }, 'ERR_INVALID_OPTION', /digest/)
  for (const change of ['RUN x', 'ONBUILD FROM x', 'CMD', 'HEALTHCHECK x'])
    await refused({ changes: [change] }, 'ERR_INVALID_OPTION', new RegExp(change.slice(0, 3)))
  await refused({ changes: 'CMD x' }, 'ERR_INVALID_OPTION', /changes/)
  await refused({ changes: ['STOPSIGNAL SIGNONE'] }, 'ERR_INVALID_IMAGE', /SIGNONE/)
  await refused({ name: 'x' }, 'ERR_INVALID_OPTION', /name: unknown option/)
  await refused({ pause: 1 }, 'ERR_INVALID_OPTION', /pause/)
  const early = AbortSignal.abort(new RangeError('early'))
  await t.throwsAsync(container.commit({ signal: early }), { instanceOf: RangeError })
  await t.throwsAsync(container.export(join(directory, 'x'), { signal: early }), { instanceOf: RangeError })
  await t.throwsAsync(container.export(directory), { code: 'ERR_INVALID_OPTION', message: /is a directory/ })
  await t.throwsAsync(container.export(join(directory, 'no/where.tar')), {
    message: /cannot be written: ENOENT/,
  })
  await t.throwsAsync(container.export('/dev/full'), { message: /'\/dev\/full' cannot be written: ENOSPC/ })
  await t.throwsAsync(container.export(1 as unknown as string), { code: 'ERR_INVALID_OPTION' })
  // The archive of it says it.
  await container.export(join(directory, 'odd.tar'))
  t.true(entriesOf(join(directory, 'odd.tar')).some((line) => line.startsWith('dir/.wh.x ')))
  container.kill()
  await container.wait()
  await t.throwsAsync(container.commit(), { code: 'ERR_NOT_RUNNING' })
  await t.throwsAsync(container.export(join(directory, 'late.tar')), { code: 'ERR_NOT_RUNNING' })
  t.false(existsSync(join(directory, 'late.tar')))

  const rootfs = join(directory, 'rootfs')
  mkdirSync(join(rootfs, 'bin'), { recursive: true })
  writeFileSync(join(rootfs, 'bin/sh'), readFileSync('/bin/busybox'), { mode: 0o755 })
  const bare = await one.start({ rootfs }, ['sh', '-c', 'sleep 1000'])
  await t.throwsAsync(bare.commit(), { code: 'ERR_UNSUPPORTED', message: /of no image: export it/ })
  await bare.export(join(directory, 'bare.tar'))
  t.true(entriesOf(join(directory, 'bare.tar')).some((line) => line.startsWith('bin/sh ')))
  const view = await one.start({ rootfs: '/' }, ['sleep', '1000'])
  await t.throwsAsync(view.export(join(directory, 'view.tar')), {
    code: 'ERR_UNSUPPORTED',
    message: /masked/,
  })
  await using other = await engine(t, directory).containers.get(view.id)
  await t.throwsAsync(other.export(join(directory, 'view.tar')), { code: 'ERR_UNSUPPORTED' })
  await t.throwsAsync(view.commit(), { code: 'ERR_UNSUPPORTED' })
  t.deepEqual(remains(directory), before)
})

/** Much that compresses badly: a commit of it takes a while. */
const size = 64
const large = `dd if=/dev/urandom of=/large bs=1M count=${size} 2>/dev/null; echo done`

/** Waits until somebody writes a layer. */
async function packing(directory: string): Promise<void> {
  const spool = join(directory, 'data/spool')
  for (let look = 0; look < 2000; look += 1) {
    const [name] = existsSync(spool) ? readdirSync(spool) : []
    if (name !== undefined && existsSync(join(spool, name, '0'))) return
    await sleep(2)
  }
  throw new Error('nobody writes')
}

test('one that is aborted, or whose program dies, leaves nothing; the container goes on', async (t) => {
  const directory = scratch(t)
  const one = engine(t, directory)
  await importBase(one, directory)
  const container = await changed(one, 'base', large, { name: 'held' })
  const before = remains(directory)
  const over = new AbortController()
  const aborted = container.commit({ reference: 'never', signal: over.signal })
  await packing(directory)
  over.abort(new RangeError('enough'))
  await t.throwsAsync(aborted, { instanceOf: RangeError })
  t.deepEqual(remains(directory), before)

  const target = join(directory, 'x.tar')
  const stop = new AbortController()
  const exported = container.export(target, { signal: stop.signal })
  while (!readdirSync(directory).some((name) => name.startsWith('x.tar.'))) await sleep(1)
  stop.abort(new RangeError('enough'))
  await t.throwsAsync(exported, { instanceOf: RangeError })
  t.false(readdirSync(directory).some((name) => name.startsWith('x.tar')))

  const source = new URL('../../src/index.ts', import.meta.url).href
  const roots = JSON.stringify({ root: join(directory, 'data'), runRoot: join(directory, 'run') })
  const text = `import { Engine } from '${source}'\nawait (await new Engine(${roots}).containers.get('held')).commit({ reference: 'never' })`
  const child = spawn(process.execPath, ['--input-type=module-typescript', '-e', text], { stdio: 'inherit' })
  await packing(directory)
  child.kill('SIGKILL')
  await once(child, 'exit')
  // Nobody waits for its packer: the container is let go at once, and what it left the next shim removes.
  const { stdout } = await container.exec(['echo', 'alive'], { timeout: 5000 })
  t.is(stdout, 'alive\n')
  await using next = engine(t, directory)
  t.is((await next.run('base')).stdout, 'as it was')
  for (let look = 0; look < 500 && remains(directory).spool === true; look += 1) await sleep(10)
  t.deepEqual(remains(directory), { ...before, layouts: 1 })
})

test('a container that ends while it is read is read to its end', async (t) => {
  const directory = scratch(t)
  const one = engine(t, directory)
  await importBase(one, directory)
  for (const pause of hasGroups ? [true, false] : [false]) {
    const container = await changed(one, 'base', large)
    const committed = container.commit({ reference: 'last', pause })
    await packing(directory)
    container.kill()
    const { names } = await committed
    t.deepEqual(names, ['last:latest'])
    t.is((await container.wait()).cause, 'killed')
    t.deepEqual(readdirSync(join(directory, 'data/containers')), [])
    t.is((await one.run('last', ['stat', '-c', '%s', '/large'])).stdout, `${size << 20}\n`)
    await one.images.remove('last')
  }
  // With its owner it goes at once.
  const container = await changed(one, 'base', large)
  const committed = container.commit({ reference: 'never' })
  const failed = t.throwsAsync(committed)
  await packing(directory)
  await one.close()
  await failed
  t.deepEqual(readdirSync(join(directory, 'data/containers')), [])
})

test('D1: a container that exchanges its files for links leads nobody out', async (t) => {
  const directory = scratch(t)
  const one = engine(t, directory)
  await importBase(one, directory)
  const bait = 'the bait of this machine'
  mkdirSync(join(directory, 'bait'))
  writeFileSync(join(directory, 'bait/f'), bait)
  const up = '../'.repeat(20)
  const script = [
    'mkdir -p /swap/d; echo own >/swap/f; echo own >/swap/d/f; cd /swap',
    // By the path of this machine, and from the layer's own place: data/containers/ID/u0/swap.
    `ln -s ${directory}/bait l1; ln -s ${up}${directory.slice(1)}/bait l2; ln -s ../../../../../bait l3`,
    `ln -s ${directory}/bait/f m1; ln -s ../../../../../bait/f m2`,
    'echo done',
    'while :; do for l in l1 l2 l3; do mv d x; mv $l d; mv d $l; mv x d; done; for m in m1 m2; do mv f x; mv $m f; mv f $m; mv x f; done; done',
  ].join('\n')
  const container = await changed(one, 'base', script)
  const file = join(directory, 'x.tar')
  const until = Date.now() + Number(process.env.CAISSON_RACE_SECONDS ?? 4) * 1000
  const blobs = join(directory, 'data/images/blobs/sha256')
  let rounds = 0
  while (Date.now() < until) {
    await container.export(file)
    t.false(readFileSync(file).includes(bait))
    const { id } = await container.commit({ pause: false })
    const layers = readdirSync(blobs).map((name) => readFileSync(join(blobs, name)))
    for (const bytes of layers.filter(([first]) => first === 0x1f)) t.false(gunzipSync(bytes).includes(bait))
    const seen = await one.run(id, ['sh', '-c', 'cat /swap/d/f /swap/f 2>/dev/null'])
    t.false(seen.stdout.includes(bait))
    await one.images.remove(id)
    rounds += 1
  }
  t.true(rounds > 1)
})

for (const compressed of [false, true])
  test(`a base whose blobs were pruned is refused before anything is read${compressed ? ', gzip' : ''}`, async (t) => {
    const directory = scratch(t)
    const one = engine(t, directory)
    mkdirSync(directory, { recursive: true })
    const file = join(directory, 'base')
    const bytes = layouts.busybox()
    writeFileSync(file, compressed ? gzipSync(bytes) : bytes)
    await one.images.import(file, { reference: 'base' })
    await one.images.prune({ blobs: true })
    const container = await changed(one, 'base', 'echo done')
    await t.throwsAsync(container.commit({ reference: 'made' }), {
      code: 'ERR_IMAGE_NOT_FOUND',
      message: /its blob is not in the store any more; pull or load the image again$/,
    })
    t.deepEqual(
      (await one.images.list()).map(({ names }) => names),
      [['base:latest']],
    )
    // Once they are back it works.
    await one.images.import(file, { reference: 'base' })
    await container.commit({ reference: 'made' })
    t.true((await one.images.verify()).every(({ isWhole }) => isWhole))
    container.kill('SIGKILL')
    await container.wait()
  })
