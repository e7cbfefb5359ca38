/** Verifying: each damage is found and named, nothing else is, and the next pull mends it. */
import { execFileSync, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  appendFileSync,
  closeSync,
  openSync,
  readFileSync,
  readdirSync,
  readSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import type { Fault } from '../../src/image/info.ts'
import { chainIds } from '../../src/image/store.ts'
import { isRoot, hasUsers } from '../host/ground.ts'
import * as layouts from './layouts.ts'
import {
  hold,
  layerOf,
  noise,
  program,
  publish,
  registryOf,
  requests,
  stored,
  until,
  whole,
} from './published.ts'
import { engine, scratch, shimsAreGone } from './store.ts'

const layers = [
  layouts.busybox(
    { name: 'shared/', kind: '5', mode: 0o1777 },
    { name: 'shared/low', content: 'low', uid: 3 },
  ),
  layouts.tar([
    { name: 'etc/', kind: '5' },
    { name: 'etc/motd', content: 'hello', mode: 0o640, uid: 7, gid: 8 },
    { name: 'etc/same', kind: '1', link: 'etc/motd' },
    { name: 'etc/link', kind: '2', link: 'motd' },
    { name: 'shared/new', content: 'new' },
    { name: 'shared/again', kind: '1', link: 'shared/low' },
    { name: 'shared/.wh.gone' },
    { name: 'noise', content: noise(700_000) },
  ]),
  layouts.tar([{ name: 'top/', kind: '5' }, { name: 'top/.wh..wh..opq' }, { name: 'top/x', content: 'x' }]),
]
const options: layouts.ImageOptions = { layers, compress: true, config: { Cmd: ['cat', '/etc/motd'] } }
const chains = chainIds(layers.map((layer) => layouts.sha256(layer)))

/** Changes trees as whoever owns the files. */
function inside(...words: string[]): void {
  if (isRoot) execFileSync(words[0] ?? '', words.slice(1))
  else {
    const maps = hasUsers ? ['--map-root-user', '--map-auto'] : ['--map-root-user']
    execFileSync('unshare', ['--user', ...maps, ...words])
  }
}

function flip(path: string, at: number): void {
  const file = openSync(path, 'r+')
  const byte = Buffer.alloc(1)
  readSync(file, byte, 0, 1, at)
  writeSync(file, Buffer.from([(byte[0] ?? 0) ^ 1]), 0, 1, at)
  closeSync(file)
}

test('each damage is found, by its place, and mended by the next pull', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const written = publish(registry, directory, options)
  const image = `${registry.host}/app:latest`
  const one = engine(t, directory)
  await one.pull(image)
  t.deepEqual(await one.images.verify(), [
    {
      digest: written.manifest.digest,
      id: written.config.digest,
      names: [image],
      isWhole: true,
      faults: [],
    },
  ])
  const blob = (digest: string): string => layouts.path(join(directory, 'data/images'), digest)
  const tree = (at: number, name: string): string =>
    join(directory, 'data/layers', chains[at] ?? '', 'root', name)
  const mark = (at: number): string => join(directory, 'data/layers', chains[at] ?? '', 'layer.json')
  const keepTime = (path: string, script: string): void =>
    inside('sh', '-c', `touch -r "$0" "$1"; ${script}; touch -r "$1" "$0"`, path, join(directory, 'time'))
  const middle = layerOf(written, 1)
  type Expected = Partial<Fault> & { says: RegExp }
  const cases: [string, () => void, Expected, string[]][] = [
    [
      'a byte of a blob',
      () => flip(blob(middle), 900),
      { part: 'blob', layer: 1, digest: middle, says: /./ },
      [middle],
    ],
    [
      'the last byte of a blob',
      () => flip(blob(middle), (written.layers[1]?.size ?? 0) - 1),
      { part: 'blob', layer: 1, says: /./ },
      [middle],
    ],
    [
      'a short blob',
      () => truncateSync(blob(middle), 100),
      { part: 'blob', layer: 1, says: /has not \d+ bytes/ },
      [middle],
    ],
    [
      'a dropped blob',
      () => rmSync(blob(middle)),
      { part: 'blob', layer: 1, state: 'missing', says: /is not here/ },
      [middle],
    ],
    [
      'a manifest',
      () => flip(blob(written.manifest.digest), 3),
      { part: 'manifest', digest: written.manifest.digest, says: /digest/ },
      [],
    ],
    [
      'a dropped manifest',
      () => rmSync(blob(written.manifest.digest)),
      { part: 'manifest', state: 'missing', says: /is not in/ },
      [],
    ],
    [
      'a config',
      () => flip(blob(written.config.digest), 3),
      { part: 'config', digest: written.config.digest, says: /digest/ },
      [written.config.digest],
    ],
    [
      'a byte of a file',
      () => keepTime(tree(1, 'etc/motd'), 'printf j | dd of="$0" conv=notrunc status=none'),
      { part: 'tree', layer: 1, says: /^etc\/(motd|same): its content differs$/ },
      [],
    ],
    [
      'the end of a large file',
      () => keepTime(tree(1, 'noise'), 'printf zzzz | dd of="$0" bs=1 seek=699990 conv=notrunc status=none'),
      { part: 'tree', layer: 1, says: /^noise: its content differs$/ },
      [],
    ],
    [
      'a mode',
      () => inside('chmod', '4640', tree(1, 'etc/motd')),
      { part: 'tree', layer: 1, says: /its mode is 4640, not 0640/ },
      [],
    ],
    [
      'the mode of a directory below',
      () => inside('chmod', '755', tree(0, 'shared')),
      { part: 'tree', layer: 0, says: /^shared: its mode is 0755, not 1777/ },
      [],
    ],
    [
      'a removed file',
      () => inside('rm', tree(1, 'shared/new')),
      { part: 'tree', layer: 1, says: /^shared\/new: is missing/ },
      [],
    ],
    [
      'an added file',
      () => inside('touch', tree(1, 'etc/more')),
      { part: 'tree', layer: 1, says: /^etc\/more: is not in the layer/ },
      [],
    ],
    [
      'a removed whiteout',
      () => inside('rm', tree(1, 'shared/gone')),
      { part: 'tree', layer: 1, says: /^shared\/gone: is missing/ },
      [],
    ],
    [
      'a link',
      () => inside('ln', '-sfn', 'elsewhere', tree(1, 'etc/link')),
      { part: 'tree', layer: 1, says: /^etc\/link: its/ },
      [],
    ],
    ['a tree', () => inside('rm', '-r', tree(2, '')), { part: 'tree', layer: 2, says: /cannot be read/ }, []],
    [
      'a layer',
      () => inside('rm', '-r', join(directory, 'data/layers', chains[2] ?? '')),
      { part: 'tree', layer: 2, state: 'missing', says: /is not here/ },
      [],
    ],
    ['a short mark', () => truncateSync(mark(1), 20), { part: 'tree', layer: 1, says: /cannot be read/ }, []],
    ['no mark', () => rmSync(mark(0)), { part: 'tree', layer: 0, says: /cannot be read/ }, []],
  ]
  for (const [what, damage, { says, ...expected }, wanted] of cases) {
    damage()
    const [found] = await one.images.verify(image)
    t.false(found?.isWhole, what)
    const faults = found?.faults.filter(({ state }) => state !== 'unverifiable') ?? []
    // A tree that was held against a damaged one below may differ, too.
    const [fault] = faults
    t.like(fault, { state: 'damaged', ...expected }, what)
    t.regex(fault?.message ?? '', says, what)
    t.is(fault?.left, undefined, what)
    const before = registry.seen.length
    await one.pull(image)
    const asked = registry.seen.slice(before).flatMap(({ url }) => /blobs\/(.*)$/.exec(url)?.[1] ?? [])
    t.deepEqual(asked, wanted, what)
    t.deepEqual(
      await one.images.verify(),
      [
        {
          digest: written.manifest.digest,
          id: written.config.digest,
          names: [image],
          isWhole: true,
          faults: [],
        },
      ],
      what,
    )
    t.notThrows(() => whole(directory), what)
    t.is((await one.run(image, undefined, { pull: 'never' })).stdout, 'hello', what)
    t.deepEqual(stored(directory).unpacking, [], what)
  }
  await one.close()
  t.deepEqual(
    readdirSync(join(directory, 'data')).filter((name) => name === 'trash'),
    [],
  )
})

test('what a running container uses is left, and that is said', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  publish(registry, directory, options)
  const image = `${registry.host}/app:latest`
  const one = engine(t, directory)
  const container = await one.start(image, ['sleep', '1000'])
  const motd = join(directory, 'data/layers', chains[1] ?? '', 'root/etc/motd')
  inside('chmod', '600', motd)
  const [found] = await engine(t, directory).images.verify(image)
  t.like(found?.faults[0], { part: 'tree', layer: 1, left: 'a running container uses it' })
  t.is((await container.exec(['cat', '/etc/motd'])).stdout, 'hello')
  await container.stop({ timeout: 0 })
  t.is((await one.images.verify(image))[0]?.faults[0]?.left, undefined)
  await one.pull(image)
  t.true((await one.images.verify(image))[0]?.isWhole)
})

test('while somebody pulls nothing is moved', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  publish(registry, directory, options)
  const one = engine(t, directory)
  await one.pull(`${registry.host}/app`)
  const other = publish(
    registry,
    directory,
    { layers: [layouts.tar([{ name: 'n', content: noise(300_000, 2) }])] },
    'other',
  )
  const { reached, release } = hold(registry, layerOf(other, 0), 1000)
  const pull = one.pull(`${registry.host}/app:other`)
  await reached
  inside('chmod', '600', join(directory, 'data/layers', chains[1] ?? '', 'root/etc/motd'))
  const [found] = await one.images.verify(`${registry.host}/app`)
  t.like(found?.faults[0], { part: 'tree', layer: 1, left: 'a pull is at work' })
  release()
  await pull
  t.is((await one.images.verify(`${registry.host}/app`))[0]?.faults[0]?.left, undefined)
})

test('pruned blobs are no damage: their trees cannot be verified, and a pull brings them', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const written = publish(registry, directory, options)
  const image = `${registry.host}/app:latest`
  const one = engine(t, directory)
  await one.pull(image)
  await one.images.prune({ blobs: true })
  await one.images.tag(image, 'other')
  const [found] = await one.images.verify('other')
  t.true(found?.isWhole)
  t.deepEqual(
    found?.faults.map(({ part, layer, state, message }) => [part, layer, state, message]),
    [0, 1, 2].flatMap((layer) => [
      ['blob', layer, 'unverifiable', 'was pruned'],
      ['tree', layer, 'unverifiable', 'its blob is not here'],
    ]),
  )
  await one.pull(image)
  t.is(requests(registry, layerOf(written, 1)), 2)
  t.deepEqual((await one.images.verify('other'))[0]?.faults, [])
})

test('an image whose documents are damaged is listed, is no obstacle to others, and can be removed', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const written = publish(registry, directory, options)
  publish(registry, directory, { ...options, config: {} }, 'other')
  const one = engine(t, directory)
  for (const tag of ['latest', 'other']) await one.pull(`${registry.host}/app:${tag}`)
  const image = `${registry.host}/app:latest`
  rmSync(layouts.path(join(directory, 'data/images'), written.manifest.digest))
  t.deepEqual(
    (await one.images.list())
      .map(({ names }) => names)
      .flat()
      .toSorted(),
    [image, `${registry.host}/app:other`],
  )
  t.like(await t.throwsAsync(one.images.get(image)), { code: 'ERR_INVALID_IMAGE' })
  // What it needs is kept, since that is not known.
  await one.images.remove(`${registry.host}/app:other`)
  await one.pull(image)
  for (const at of layers.keys()) t.is(requests(registry, layerOf(written, at)), 1)
  t.true((await one.images.verify())[0]?.isWhole)
  rmSync(layouts.path(join(directory, 'data/images'), written.manifest.digest))
  t.deepEqual(await one.images.remove(image), { untagged: [image], deleted: [written.config.digest] })
  t.deepEqual(await one.images.list(), [])
  t.deepEqual(stored(directory).blobs, [])
})

test('by name, by id, all; none of that name; the command line', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const written = publish(registry, directory, options)
  publish(registry, directory, { ...options, config: {} }, 'other')
  const one = engine(t, directory)
  for (const tag of ['latest', 'other']) await one.pull(`${registry.host}/app:${tag}`)
  const image = `${registry.host}/app:latest`
  t.is((await one.images.verify()).length, 2)
  for (const reference of [image, written.config.digest, written.manifest.digest.slice(7, 20)])
    t.deepEqual(
      (await one.images.verify([reference])).map(({ names }) => names),
      [[image]],
      reference,
    )
  t.like(await t.throwsAsync(one.images.verify('nothing')), { code: 'ERR_IMAGE_NOT_FOUND' })
  t.like(await t.throwsAsync(one.images.verify('')), { code: 'ERR_INVALID_OPTION' })
  const ended = AbortSignal.abort(new Error('enough'))
  t.like(await t.throwsAsync(one.images.verify(image, { signal: ended })), { message: 'enough' })
  const caisson = (...words: string[]): { status: number | null; stdout: string; stderr: string } =>
    spawnSync(
      process.execPath,
      ['src/cli/main.ts', '--root', join(directory, 'data'), 'image', 'verify', ...words],
      {
        encoding: 'utf8',
      },
    )
  t.like(caisson(image), { status: 0, stdout: `${image}: ok\n` })
  t.like(caisson('nothing'), { status: 125, stdout: '' })
  appendFileSync(join(directory, 'data/layers', chains[2] ?? '', 'layer.json'), 'x')
  flip(layouts.path(join(directory, 'data/images'), layerOf(written, 1)), 900)
  const { status, stdout } = caisson('--format', '{{.isWhole}} {{json .names}}', image)
  t.is(stdout, `false ["${image}"]\n`)
  t.is(status, 1)
  const again = caisson(image)
  t.is(again.status, 1)
  const [head, ...lines] = again.stdout.trimEnd().split('\n')
  t.is(head, `${image}: damaged`)
  t.deepEqual(lines, [
    `  layer 2 ${layerOf(written, 1)}: blob: missing: is not here; the next pull brings it`,
    `  layer 2 ${layerOf(written, 1)}: tree: unverifiable: its blob is not here`,
    `  layer 3 ${layerOf(written, 2)}: tree: missing: is not here; the next pull brings it`,
  ])
  await one.pull(image)
  t.is(caisson().status, 0)
  t.is(
    readFileSync(layouts.path(join(directory, 'data/images'), layerOf(written, 1))).length,
    written.layers[1]?.size ?? -1,
  )
})

test('ended in the middle, or killed: nothing of it stays, and nothing was changed', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const many = Array.from({ length: 8000 }, (_, at) => ({ name: `many/${at % 100}/${at}`, content: 'x' }))
  publish(registry, directory, { layers: [layers[0] ?? Buffer.of(), layouts.tar(many)] })
  const image = `${registry.host}/app:latest`
  const one = engine(t, directory)
  await one.pull(image)
  const before = stored(directory)
  const inTheMiddle = (): Promise<void> =>
    until(() => stored(directory).unpacking.some((name) => name.startsWith('check-')), 'a layer aside')
  const over = new AbortController()
  const verifying = one.images.verify(image, { signal: over.signal })
  await inTheMiddle()
  over.abort(new Error('enough'))
  await t.throwsAsync(verifying, { message: 'enough' })
  t.deepEqual(stored(directory), before)

  const killed = program(directory, 'await engine.images.verify()')
  await inTheMiddle()
  killed.kill('SIGKILL')
  await once(killed, 'exit')
  await one.close()
  await shimsAreGone(directory)
  // The next shim cleans up.
  const next = engine(t, directory)
  t.true((await next.images.verify(image))[0]?.isWhole)
  await until(() => stored(directory).unpacking.length === 0, 'cleaning')
  t.deepEqual(stored(directory), before)
})

test('what came anew while other images were verified stays', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const own = (content: string): Buffer => layouts.tar([{ name: 'own', content }])
  const low = layouts.busybox()
  const first = publish(registry, directory, { layers: [low, own('1')], compress: true }, 'a')
  publish(registry, directory, { layers: [low, own('2')], compress: true }, 'b')
  publish(registry, directory, { layers: [low, own('3')], compress: true }, 'c')
  const one = engine(t, directory)
  for (const tag of ['a', 'b', 'c']) await one.pull(`${registry.host}/app:${tag}`)
  const shared = layerOf(first, 0)
  const path = layouts.path(join(directory, 'data/images'), shared)
  flip(path, 900)
  const good = registry.blobs.get(shared)
  let seen = 0
  const verified = await one.images.verify([], {
    onProgress: () => {
      // As a pull does, that another program began.
      if ((seen += 1) === 1 && good !== undefined) {
        writeFileSync(`${path}.new`, good)
        renameSync(`${path}.new`, path)
      }
    },
  })
  t.is(seen, 3)
  t.deepEqual(
    verified.map(({ faults }) => faults.find(({ part }) => part === 'blob')?.left),
    [undefined, 'it was changed meanwhile', 'it was changed meanwhile'],
  )
  t.deepEqual(readFileSync(path), good)
  t.true((await one.images.verify()).every(({ isWhole }) => isWhole))
})

test('a blob that was pruned of one image is missing of another', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const low = layouts.busybox()
  const written = publish(registry, directory, { layers: [low], compress: true }, 'a')
  publish(registry, directory, { layers: [low], compress: true, config: { Cmd: ['x'] } }, 'b')
  const one = engine(t, directory)
  await one.pull(`${registry.host}/app:a`)
  await one.images.prune({ blobs: true })
  await one.pull(`${registry.host}/app:b`)
  rmSync(layouts.path(join(directory, 'data/images'), layerOf(written, 0)))
  const states = async (tag: string): Promise<string[]> => {
    const found = (await one.images.verify()).find(({ names }) =>
      names.includes(`${registry.host}/app:${tag}`),
    )
    return (found?.faults ?? []).filter(({ part }) => part === 'blob').map(({ state }) => state)
  }
  t.deepEqual(await states('a'), ['unverifiable'])
  t.deepEqual(await states('b'), ['missing'])
})
