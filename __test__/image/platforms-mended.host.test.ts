/** Images of many platforms in a store that lacks something, or has no room: they are one thing, and none of them is lost. */
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import test from 'ava'
import type { ExecutionContext } from 'ava'
import * as layouts from './layouts.ts'
import { blobsOf, every, many, others, own, publishMany } from './many.ts'
import type { Many } from './many.ts'
import { layerOf, named, noise, publish, registryOf, stored } from './published.ts'
import { engine, held, scratch } from './store.ts'

const all = { allPlatforms: true }
const [other, another] = others

async function scene(t: ExecutionContext) {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const put = (tag: string, architectures: readonly string[] = every, more: Buffer[] = []): Many => {
    const origin = join(directory, `origin-${tag}`)
    const written = many(origin, 'x', architectures, more)
    publishMany(registry, origin, written, 'app', tag)
    return written
  }
  const place = (digest: string): string => layouts.path(join(directory, 'data/images'), digest)
  /** What a pull asks for, but for the name. */
  const asked = async (act: () => PromiseLike<unknown>): Promise<string[]> => {
    registry.seen.length = 0
    await act()
    return registry.seen
      .map(({ method, url }) => `${method} ${url.split('/').at(-1)}`)
      .filter((request) => !request.startsWith('HEAD '))
  }
  return { directory, registry, put, place, asked, host: `${registry.host}/app`, one: engine(t, directory) }
}

function imageOf(written: Many, architecture: string): layouts.WrittenImage {
  const image = written.images[architecture]
  if (image === undefined) throw new Error(`no image for ${architecture}`)
  return image
}

/** The same size, other bytes. */
function damage(path: string): void {
  const bytes = readFileSync(path)
  bytes.writeUInt8(bytes.readUInt8(8) ^ 1, 8)
  writeFileSync(path, bytes)
}

test('whatever is missing of any platform is named, and a pull of the name brings that alone', async (t) => {
  const { directory, put, place, asked, host, one } = await scene(t)
  const written = put('x')
  const name = `${host}:x`
  await one.images.pull(name, all)
  const [theirs, mine] = [imageOf(written, other), imageOf(written, own)]
  const blob = layerOf(theirs, 1)
  const manifest = imageOf(written, another).manifest.digest
  const cases: [string, () => void, string, string[]][] = [
    ['a blob', () => rmSync(place(blob)), `blob ${blob} missing`, [blob]],
    ['a damaged blob', () => damage(place(blob)), `blob ${blob} damaged`, [blob]],
    ['a manifest', () => rmSync(place(manifest)), `manifest ${manifest} missing`, [manifest]],
    ['a damaged manifest', () => damage(place(manifest)), `manifest ${manifest} damaged`, [manifest]],
    [
      'a config',
      () => rmSync(place(theirs.config.digest)),
      `config ${theirs.config.digest} missing`,
      [theirs.config.digest],
    ],
    [
      'this machine’s manifest',
      () => rmSync(place(mine.manifest.digest)),
      `manifest ${mine.manifest.digest} missing`,
      [mine.manifest.digest],
    ],
    ['the index', () => damage(place(written.index.digest)), `index ${written.index.digest} damaged`, []],
  ]
  for (const [what, act, said, wanted] of cases) {
    act()
    const [image] = await one.images.verify(name)
    t.is(image?.faults.map(({ part, digest, state }) => `${part} ${digest} ${state}`)[0], said, what)
    t.false(image?.isWhole, what)
    // What it needs is not swept, and its layers are not either.
    await one.images.prune()
    t.like(held(directory), { layers: 2 }, what)
    t.deepEqual(
      await asked(() => one.images.pull(name)),
      ['GET x', ...wanted.map((digest) => `GET ${digest}`)],
      what,
    )
    t.deepEqual(stored(directory).blobs, blobsOf(written), what)
    t.like((await one.images.verify())[0], { digest: written.index.digest, isWhole: true }, what)
    t.deepEqual(await asked(() => one.images.pull(name)), [], what)
  }
})

test('a damaged document of another platform is in nobody’s way', async (t) => {
  const { directory, put, place, host, one } = await scene(t)
  const written = put('x')
  const name = `${host}:x`
  await one.images.pull(name, all)
  const container = await one.start(name, ['sleep', '1000'])
  damage(place(imageOf(written, other).manifest.digest))
  t.deepEqual((await one.images.list())[0]?.platforms, [`linux/${own}`, `linux/${another}`])
  t.is((await one.images.get(imageOf(written, another).config.digest)).platform, `linux/${another}`)
  t.deepEqual((await one.images.prune({ all: true })).untagged, [])
  t.deepEqual(
    await one.images.push(name, { platform: `linux/${another}` }),
    imageOf(written, another).manifest.digest,
  )
  await one.images.save(name, join(directory, 'one.tar'), { platform: `linux/${another}` })
  t.like(await t.throwsAsync(one.images.push(name)), { code: 'ERR_DIGEST' })
  t.is(
    (await one.run(name, ['cat', '/platform'], { platform: `linux/${another}`, pull: 'never' })).stdout,
    another,
  )
  // Not even this machine's own.
  damage(place(imageOf(written, own).manifest.digest))
  t.like((await one.images.list())[0], { names: [name], platforms: [`linux/${another}`] })
  t.deepEqual((await one.images.prune({ all: true })).untagged, [])
  t.like(await t.throwsAsync(one.images.remove(name)), { code: 'ERR_IMAGE_IN_USE' })
  await container.stop({ timeout: 0 })
  t.deepEqual((await one.images.prune({ all: true })).untagged, [name])
  t.deepEqual(stored(directory).blobs, [])
})

test('what a prune of blobs took is no damage; what it did not take is', async (t) => {
  const { put, place, host, one } = await scene(t)
  const written = put('x')
  const name = `${host}:x`
  await one.images.pull(name, all)
  await one.images.prune({ blobs: true })
  const [bare] = await one.images.verify(name)
  t.true(bare?.isWhole)
  t.true(bare?.faults.every(({ state }) => state === 'unverifiable'))
  rmSync(place(layerOf(imageOf(written, other), 1)))
  const [found] = await one.images.verify(name)
  t.false(found?.isWhole)
  t.deepEqual(
    found?.faults.flatMap(({ state, digest }) => (state === 'missing' ? [digest] : [])),
    [layerOf(imageOf(written, other), 1)],
  )
})

test('a limit takes all of an image or nothing, and knows the use of what is not unpacked', async (t) => {
  const { directory, put, place, host, one } = await scene(t)
  // The last two have nothing for this machine.
  const tags = ['a', 'b', 'c', 'd']
  const [, b, c, d] = tags.map((tag, at) =>
    put(tag, at < 2 ? every : others, [layouts.tar([{ name: 'n', content: noise(300_000, at) }])]),
  )
  if (b === undefined || c === undefined || d === undefined) throw new Error('not put')
  const pull = async (...names: string[]): Promise<void> => {
    for (const tag of names) {
      await one.images.pull(`${host}:${tag}`, all)
      await sleep(20)
    }
  }
  const size = async (): Promise<number> => {
    const { layers, blobs } = await one.images.usage()
    return layers.bytes + blobs.bytes
  }
  const prune = async (keepStorage: number): Promise<readonly string[]> =>
    (await one.images.prune({ all: true, keepStorage })).untagged
  await pull('a', 'b', 'c', 'b')
  t.like(held(directory), { facts: 2 })
  const full = await size()
  t.deepEqual(await prune(full), [])
  t.deepEqual(await prune(full - 1), [`${host}:a`])
  t.deepEqual(stored(directory).blobs, [...new Set([...blobsOf(b), ...blobsOf(c)])].toSorted())
  // Used again, though nothing of it came.
  await pull('c', 'd')
  t.deepEqual(await prune((await size()) - 1), [`${host}:b`])
  // Used again, and mended.
  rmSync(place(layerOf(imageOf(c, other), 2)))
  await pull('c')
  t.deepEqual(await prune((await size()) - 1), [`${host}:d`])
  t.deepEqual(stored(directory).blobs, blobsOf(c))
  t.like(held(directory), { layers: 0, facts: 0 })
  t.deepEqual(
    (await one.images.verify()).map(({ isWhole }) => isWhole),
    [true],
  )
})

test('run by an id, and made into an image: of the platform that is meant', async (t) => {
  const { put, host, one } = await scene(t)
  const written = put('x')
  const name = `${host}:x`
  await one.images.pull(name, all)
  const cat = async (image: string, platform?: string): Promise<string> =>
    (
      await one.run(image, ['cat', '/platform'], {
        pull: 'never',
        ...(platform !== undefined && { platform }),
      })
    ).stdout
  t.is(await cat(imageOf(written, own).config.digest), own)
  t.is(await cat(written.index.digest.slice('sha256:'.length, 20)), own)
  t.is(await cat(imageOf(written, own).config.digest, `linux/${another}`), another)
  t.is(await cat(imageOf(written, other).config.digest), other)
  for (const [image, platform] of [
    [written.index.digest, 'linux/mips'],
    [imageOf(written, other).config.digest, `linux/${another}`],
  ] as const)
    t.like(await t.throwsAsync(one.run(image, ['true'], { platform })), { code: 'ERR_IMAGE_NOT_FOUND' })
  const container = await one.start(name, ['sleep', '1000'], { platform: `linux/${other}`, pull: 'never' })
  const made = await container.commit({ reference: 'made:1' })
  await container.stop({ timeout: 0 })
  t.is(made.platform, `linux/${other}`)
  t.is(await cat(made.id), other)
  await one.images.remove(name)
  t.is(await cat('made:1'), other)
  t.true((await one.images.verify()).every(({ isWhole }) => isWhole))
})

test('by its id an image of one platform runs for no other', async (t) => {
  const { directory, registry, one } = await scene(t)
  const { config } = publish(registry, directory, { layers: [layouts.busybox()] })
  await one.images.pull(`${registry.host}/app`)
  const error = await t.throwsAsync(one.run(config.digest, ['true'], { platform: `linux/${other}` }))
  t.like(error, { code: 'ERR_IMAGE_NOT_FOUND' })
  t.true(error.message.endsWith(`: has no image for linux/${other}; it has linux/${own}`), error.message)
  t.is((await one.run(config.digest, ['echo', 'x'], { platform: `linux/${own}` })).stdout, 'x\n')
})

test('an index with more entries than are wanted, which another program put there, is in nobody’s way', async (t) => {
  const { directory, registry, place, one } = await scene(t)
  publish(registry, directory, { layers: [layouts.busybox()] })
  const name = `${registry.host}/app:latest`
  await one.images.pull(name)
  const bytes = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: layouts.types.index,
      manifests: Array.from({ length: 257 }, (_, at) => ({
        mediaType: layouts.types.manifest,
        digest: layouts.sha256(Buffer.from(`${at}`)),
        size: 100,
      })),
    }),
  )
  const digest = layouts.sha256(bytes)
  writeFileSync(place(digest), bytes)
  const file = join(directory, 'data/images/index.json')
  const index = JSON.parse(readFileSync(file, 'utf8')) as { manifests: object[] }
  index.manifests.push({
    mediaType: layouts.types.index,
    digest,
    size: bytes.length,
    annotations: { 'org.opencontainers.image.ref.name': 'docker.io/library/large:1' },
  })
  writeFileSync(file, JSON.stringify(index))
  const [, large, ...more] = await one.images.verify()
  t.deepEqual(more, [])
  t.like(large, { digest, names: ['large:1'], isWhole: false })
  t.like(large?.faults, [{ part: 'index', digest, state: 'damaged' }])
  t.regex(large?.faults[0]?.message ?? '', /manifests has more than 256 entries/)
  t.true((await one.images.verify(name))[0]?.isWhole)
  t.is((await one.images.list()).length, 2)
  t.deepEqual((await one.images.remove('large:1')).untagged, ['large:1'])
  t.true((await one.images.verify())[0]?.isWhole)
})

test('a push is not stopped by another image that is damaged', async (t) => {
  const { directory, place, host, registry, one } = await scene(t)
  const { manifest } = publish(registry, directory, { layers: [layouts.busybox()] }, '1', 'damaged')
  await one.images.pull(`${registry.host}/damaged:1`)
  damage(place(manifest.digest))
  publish(registry, directory, { layers: [layouts.busybox()], document: { author: 'x' } })
  await one.images.pull(`${host}:latest`)
  await one.images.tag(`${host}:latest`, `${registry.host}/new:1`)
  // Else nobody asks who has them.
  registry.blobs.clear()
  await one.images.push(`${registry.host}/new:1`)
  t.true(named(directory).includes(`${registry.host}/new:1`))
})
