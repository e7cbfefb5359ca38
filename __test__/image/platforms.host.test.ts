/** Images of many platforms: pulled, pushed, saved, loaded and removed as a whole. */
import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import test from 'ava'
import type { ExecutionContext } from 'ava'
import type { PullProgress } from '../../src/index.ts'
import { runtime } from '../host/ground.ts'
import { debian } from '../registry/debian.ts'
import type { Failure } from '../registry/scene.ts'
import { refuse } from '../registry/server.ts'
import * as layouts from './layouts.ts'
import { blobsOf, every, indexOf, many, others, own, publishMany } from './many.ts'
import type { Many } from './many.ts'
import {
  alone,
  arrived,
  hold,
  layerOf,
  named,
  noise,
  offsetOf,
  program,
  publish,
  registryOf,
  requests,
  stored,
  until,
  wants,
} from './published.ts'
import { engine, held, scratch } from './store.ts'

const all = { allPlatforms: true }
const platforms = every.map((architecture) => `linux/${architecture}`)

function skopeo(t: ExecutionContext, ...words: string[]): string {
  const { status, stdout, stderr } = spawnSync('skopeo', ['--tmpdir', runtime, ...words], {
    encoding: 'utf8',
  })
  t.is(status, 0, stderr)
  return stdout
}

type Entry = Record<string, unknown> & { annotations?: Record<string, string> }

/** What a store's index.json lists. */
function entries(directory: string): Entry[] {
  const text = readFileSync(join(directory, 'data/images/index.json'), 'utf8')
  return (JSON.parse(text) as { manifests: Entry[] }).manifests
}

/** What it says of a name. */
function entryOf(directory: string, name: string): Entry | undefined {
  return entries(directory).find(
    ({ annotations }) => annotations?.['org.opencontainers.image.ref.name'] === name,
  )
}

test('from Debian’s registry and back: each document byte for byte', async (t) => {
  const directory = scratch(t)
  // It would read what we set for ourselves.
  const { host } = await debian(t)
  alone(t, directory)
  const layout = join(directory, 'layout')
  const written = many(layout, 'x')
  const name = `${host}/many:1`
  skopeo(
    t,
    'copy',
    '-q',
    '--all',
    '--preserve-digests',
    '--dest-tls-verify=false',
    `oci:${layout}:x`,
    `docker://${name}`,
  )
  const one = engine(t, directory)
  const image = await one.images.pull(name, all)
  t.is(image.platform, `linux/${own}`)
  t.deepEqual(image.platforms, platforms)
  t.deepEqual(image.names, [name])
  t.deepEqual(image.repoDigests, [`${host}/many@${written.index.digest}`])
  t.is((await one.images.list()).length, 1)
  t.deepEqual(stored(directory).blobs, blobsOf(written))
  // Unpacked is what this machine runs.
  t.like(held(directory), { layers: 2, facts: 1 })
  t.is((await one.run(name, ['cat', '/platform'], { pull: 'never' })).stdout, own)
  t.like(entryOf(directory, name), { mediaType: layouts.types.index, digest: written.index.digest })

  // Others read it from the store.
  const store = join(directory, 'data/images')
  const copy = join(directory, 'copy')
  skopeo(t, 'copy', '-q', '--all', '--preserve-digests', `oci:${store}:${name}`, `oci:${copy}:x`)
  t.is(layouts.sha256(skopeo(t, 'inspect', '--raw', `oci:${copy}:x`)), written.index.digest)
  t.is(
    (JSON.parse(skopeo(t, 'inspect', `oci:${store}:${name}`)) as { Architecture: string }).Architecture,
    own,
  )

  const other = `${host}/elsewhere/many:2`
  await one.images.tag(name, other)
  t.is(await one.images.push(other), written.index.digest)
  const remote = ['inspect', '--tls-verify=false', '--raw']
  t.is(layouts.sha256(skopeo(t, ...remote, `docker://${other}`)), written.index.digest)
  for (const { digest } of written.manifests)
    t.is(layouts.sha256(skopeo(t, ...remote, `docker://${host}/elsewhere/many@${digest}`)), digest)
  const single = `${host}/single:1`
  await one.images.tag(name, single)
  const pushed: string = await one.images.push(single, { platform: `linux/${others[0]}` })
  t.is(written.images[others[0]]?.manifest.digest, pushed)
  t.is(layouts.sha256(skopeo(t, ...remote, `docker://${single}`)), pushed)
  t.like(await t.throwsAsync(one.images.push(single, { platform: 'linux/mips' })), {
    code: 'ERR_IMAGE_NOT_FOUND',
  })

  for (const reference of [name, other]) await one.images.remove(reference)
  t.deepEqual(stored(directory).blobs, blobsOf(written))
  await one.images.remove(single)
  t.deepEqual(stored(directory).blobs, [])
  t.like(held(directory), { layers: 0, facts: 0 })
  // What was pushed comes back, as a whole.
  await one.images.pull(other, all)
  t.deepEqual(stored(directory).blobs, blobsOf(written))
})

async function published(t: ExecutionContext, architectures?: readonly string[], more?: Buffer[]) {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const origin = join(directory, 'origin')
  const written = many(origin, 'x', architectures, more)
  publishMany(registry, origin, written)
  return {
    directory,
    registry,
    origin,
    written,
    name: `${registry.host}/app:latest`,
    one: engine(t, directory),
  }
}

test('what is here is not asked for again, and what is missing is', async (t) => {
  const { directory, registry, origin, written, name, one } = await published(t)
  const first = await one.images.pull(name)
  t.deepEqual(first.platforms, [`linux/${own}`])
  const steps: PullProgress[] = []
  await one.images.pull(name, { ...all, onProgress: (step) => void steps.push(step) })
  // The base is all platforms': it came once.
  t.is(requests(registry, layerOf(written.images[own] ?? written.attestation, 0)), 1)
  t.deepEqual(stored(directory).blobs, blobsOf(written))
  t.deepEqual(named(directory), [name])
  // The entry of the one platform is none any more.
  t.is(entries(directory).length, 1)
  const complete = new Set(
    steps.flatMap((step) => (step.kind === 'layer' && step.state === 'complete' ? [step.digest] : [])),
  )
  for (const { layers } of [written.attestation, ...others.map((other) => written.images[other])].flatMap(
    (image) => image ?? [],
  ))
    t.true(complete.has(layers.at(-1)?.digest ?? ''))
  for (const options of [all, {}, { platform: `linux/${own}` }]) {
    registry.seen.length = 0
    await one.images.pull(name, options)
    t.deepEqual(
      registry.seen.map(({ method }) => method),
      ['HEAD'],
      JSON.stringify(options),
    )
  }
  t.like(entryOf(directory, name), { digest: written.index.digest })
  // A blob of another platform is gone.
  const lost = layerOf(written.images[others[1]] ?? written.attestation, 1)
  rmSync(layouts.path(join(directory, 'data/images'), lost))
  const error = await t.throwsAsync<Failure>(one.images.push(name))
  t.is(error.code, 'ERR_IMAGE_NOT_FOUND')
  t.true(error.message.includes(`linux/${others[1]}`), error.message)
  t.false(error.message.includes(`linux/${others[0]}`), error.message)
  t.is(registry.asked(/^(?:PUT|POST)/).length, 0)
  await one.images.push(name, { platform: `linux/${others[0]}` })
  t.like(await t.throwsAsync(one.images.save(name, join(directory, 'x.tar'))), {
    code: 'ERR_IMAGE_NOT_FOUND',
  })
  publishMany(registry, origin, written)
  await one.images.pull(name, all)
  t.deepEqual(stored(directory).blobs, blobsOf(written))
  t.is(requests(registry, lost), 1)
  // A document is.
  rmSync(layouts.path(join(directory, 'data/images'), written.images[others[0]]?.manifest.digest ?? ''))
  const other = await t.throwsAsync<Failure>(one.images.push(name))
  t.true(other.message.includes(`linux/${others[0]}`), other.message)
  await one.images.pull(name, all)
  await one.images.push(name)
  // And what a prune of blobs takes: the one layer that no other platform has.
  await one.images.prune({ blobs: true })
  t.is(stored(directory).blobs.length, blobsOf(written).length - 1)
  const pruned = await t.throwsAsync<Failure>(one.images.push(name))
  t.true(pruned.message.includes(`linux/${own} (`), pruned.message)
  await one.images.pull(name, all)
  t.deepEqual(stored(directory).blobs, blobsOf(written))
})

test('another platform of it: unpacked when it is wanted, and the name stays whole', async (t) => {
  const { directory, written, name, one } = await published(t)
  await one.images.pull(name, all)
  const [other, another] = others
  const platform = `linux/${other}`
  // What is known of an index that is no longer young is kept, for this machine's alone.
  await sleep(150)
  t.is((await one.run(name, ['cat', '/platform'], { pull: 'never', platform })).stdout, other)
  t.is((await one.run(name, ['cat', '/platform'], { pull: 'never' })).stdout, own)
  t.like(held(directory), { layers: 3, facts: 2 })
  await one.images.pull(name, { platform: `linux/${another}` })
  t.like(held(directory), { layers: 4, facts: 3 })
  t.like(entryOf(directory, name), { digest: written.index.digest })
  const { id = '' } = { id: written.images[other]?.config.digest }
  const shown = await one.images.get(id)
  t.is(shown.platform, platform)
  t.is(shown.id, id)
  t.like(await t.throwsAsync(one.images.remove(id)), { code: 'ERR_IMAGE_IN_USE' })
  await one.images.tag(id, 'alone:1')
  t.deepEqual((await one.images.get('alone:1')).platforms, [platform])
  await one.images.prune({ all: false })
  t.deepEqual(stored(directory).blobs, blobsOf(written))
  await one.images.remove(name)
  t.like(held(directory), { layers: 2, facts: 1 })
  t.is((await one.run('alone:1', ['cat', '/platform'], { pull: 'never' })).stdout, other)
  t.like(await t.throwsAsync(one.images.pull(name, { ...all, platform })), { subject: 'allPlatforms' })
})

test('verified on all platforms: what is damaged is found, and comes again', async (t) => {
  const { directory, written, name, one } = await published(t)
  await one.images.pull(name, all)
  const [clean] = await one.images.verify(name)
  t.like(clean, { digest: written.index.digest, isWhole: true, id: written.images[own]?.config.digest })
  t.deepEqual(clean?.faults, [])
  const [image, gone] = others.map((other) => written.images[other] ?? written.attestation)
  const [layer, statement] = [layerOf(image ?? written.attestation, 1), layerOf(written.attestation, 0)]
  const place = (digest: string): string => layouts.path(join(directory, 'data/images'), digest)
  for (const digest of [layer, statement]) {
    const bytes = readFileSync(place(digest))
    bytes.writeUInt8(bytes.readUInt8(8) ^ 1, 8)
    writeFileSync(place(digest), bytes)
  }
  const manifest = gone?.manifest.digest ?? ''
  rmSync(place(manifest))
  const [found] = await one.images.verify(name)
  t.false(found?.isWhole)
  const faults = new Map(found?.faults.map(({ digest, part, state }) => [digest, `${part} ${state}`]))
  t.deepEqual(
    [faults.get(layer), faults.get(statement), faults.get(manifest)],
    ['blob damaged', 'blob damaged', 'manifest missing'],
  )
  t.is(faults.size, 3)
  await one.images.pull(name, all)
  t.deepEqual(
    (await one.images.verify(name)).flatMap(({ faults: left }) => left),
    [],
  )
  // One platform needs nothing of another that is damaged.
  writeFileSync(place(manifest), 'damaged')
  t.is((await one.run(name, ['cat', '/platform'], { pull: 'never' })).stdout, own)
  await one.images.prune()
  await one.images.pull(name, all)
  t.deepEqual(
    (await one.images.verify()).flatMap(({ faults: left }) => left),
    [],
  )
  t.deepEqual(stored(directory).blobs, blobsOf(written))
})

test('without one for this machine it is kept and not run', async (t) => {
  const { directory, written, name, one } = await published(t, others)
  const image = await one.images.pull(name, all)
  t.is(image.platform, `linux/${others[0]}`)
  t.like(held(directory), { layers: 0, facts: 0 })
  t.deepEqual(stored(directory).blobs, blobsOf(written))
  const error = await t.throwsAsync<Failure>(one.run(name, ['true'], { pull: 'never' }))
  t.is(error.code, 'ERR_IMAGE_NOT_FOUND')
  await one.images.pull(name, all)
  t.like(held(directory), { layers: 0, facts: 0 })
  await one.images.remove(name)
  t.deepEqual(stored(directory).blobs, [])
})

test('of a name that is one image, that', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  publish(registry, directory, { layers: [layouts.busybox()] }, 'here')
  publish(registry, directory, { layers: [layouts.busybox()], document: { architecture: 's390x' } }, 'there')
  const one = engine(t, directory)
  t.deepEqual((await one.images.pull(`${registry.host}/app:here`, all)).platforms, [`linux/${own}`])
  t.like(held(directory), { layers: 1, facts: 1 })
  t.deepEqual((await one.images.pull(`${registry.host}/app:there`, all)).platforms, ['linux/s390x'])
  t.like(held(directory), { layers: 1, facts: 1 })
  await one.images.pull(`${registry.host}/app:there`, all)
  t.is(registry.asked(/^GET .*\/blobs\//).length, 3)
})

test('saved and loaded: as a whole, or one platform', async (t) => {
  const { directory, written, name, one } = await published(t)
  await one.images.pull(name, all)
  const file = join(directory, 'all.tar')
  await one.images.save(name, file)
  const archive = join(directory, 'skopeo.tar')
  skopeo(
    t,
    'copy',
    '-q',
    '--all',
    '--preserve-digests',
    `oci:${join(directory, 'origin')}:x`,
    `oci-archive:${archive}:${name}`,
  )
  for (const [at, source] of [file, archive].entries()) {
    const place = join(directory, `place-${at}`)
    const two = engine(t, place)
    const [plain] = await two.images.load(source)
    t.deepEqual(plain?.platforms, [`linux/${own}`])
    t.like(held(place), { layers: 2, facts: 1 })
    const said: string[] = []
    const [image] = await two.images.load(source, { ...all, onProgress: (step) => void said.push(step.kind) })
    t.deepEqual(image?.platforms, platforms)
    t.deepEqual(stored(place).blobs, blobsOf(written))
    t.false(said.includes('renamed'))
    if (at === 0) t.like(entryOf(place, name), { digest: written.index.digest })
    t.is((await two.images.list()).length, 1)
    await two.images.load(source, all)
    t.is((await two.images.list()).length, 1)
    t.is(
      (
        await two.run(image?.id === undefined ? '' : (image.names[0] ?? name), ['cat', '/platform'], {
          pull: 'never',
        })
      ).stdout,
      own,
    )
    const [single] = await two.images.load(source, { platform: `linux/${others[1]}` })
    t.deepEqual(single?.platforms, [`linux/${others[1]}`])
    await two.close()
  }
  const single = join(directory, 'single.tar')
  await one.images.save(name, single, { platform: `linux/${others[0]}` })
  const place = join(directory, 'single')
  const three = engine(t, place)
  t.like(await t.throwsAsync(three.images.load(single)), { code: 'ERR_UNSUPPORTED' })
  const [loaded] = await three.images.load(single, { platform: `linux/${others[0]}` })
  t.is(loaded?.digest, written.images[others[0]]?.manifest.digest)
  t.like(await t.throwsAsync(one.images.save(name, single, { platform: 'linux/mips' })), {
    code: 'ERR_IMAGE_NOT_FOUND',
  })
  // An index without what it lists.
  const bare = join(directory, 'bare')
  const { index } = many(bare, 'docker.io/library/bare:1')
  rmSync(layouts.path(bare, written.images[others[0]]?.manifest.digest ?? ''))
  t.is(index.digest, written.index.digest)
  spawnSync('tar', ['-C', bare, '-cf', join(directory, 'bare.tar'), '.'])
  const error = await t.throwsAsync<Failure>(three.images.load(join(directory, 'bare.tar'), all))
  t.true(error.message.includes(`linux/${others[0]}`), error.message)
  t.is((await three.images.load(join(directory, 'bare.tar'))).length, 1)
})

test('of a layout on disk, one platform', async (t) => {
  const directory = scratch(t)
  const layout = join(directory, 'layout')
  many(layout, 'x')
  const one = engine(t, directory)
  for (const platform of platforms)
    t.is(
      (await one.run(`oci:${layout}:x`, ['cat', '/platform'], { platform })).stdout,
      platform.slice('linux/'.length),
    )
  t.is((await one.run(`oci:${layout}:x`, ['cat', '/platform'])).stdout, own)
})

test('killed among the other platforms’ blobs: nothing has a name, and the next goes on', async (t) => {
  const half = 1 << 20
  const big = layouts.tar([{ name: 'noise', content: noise(2 * half) }])
  const { directory, registry, written, name, one } = await published(t, [others[0]], [big])
  const digest = layerOf(written.images[others[0]] ?? written.attestation, 2)
  const { release } = hold(registry, digest, half)
  const child = program(directory, `await engine.pull('${name}', { allPlatforms: true })`)
  await until(() => arrived(directory, digest) === half, 'half of it')
  child.kill('SIGKILL')
  await once(child, 'exit')
  t.deepEqual(named(directory), [])
  release()
  await one.images.pull(name, all)
  t.is(
    registry.seen
      .filter((seen) => wants(seen, digest))
      .map(offsetOf)
      .at(-1),
    half,
  )
  t.deepEqual(stored(directory).blobs, blobsOf(written))
  t.deepEqual(stored(directory).ingest, [])
})

test('a beginning that was a lie is had again, in the same pull', async (t) => {
  const { directory, registry, written, name, one } = await published(t)
  const digest = layerOf(written.images[others[0]] ?? written.attestation, 1)
  mkdirSync(join(directory, 'data/ingest'), { recursive: true, mode: 0o700 })
  writeFileSync(join(directory, 'data/ingest', digest.slice('sha256:'.length)), 'lies', { mode: 0o600 })
  await one.images.pull(name, all)
  t.deepEqual(registry.seen.filter((seen) => wants(seen, digest)).map(offsetOf), [4, 0])
  t.deepEqual(stored(directory).blobs, blobsOf(written))
})

/** An index of these entries in a registry, pulled: its refusal, after which nothing is left. */
async function refusal(
  t: ExecutionContext,
  change: (written: Many, origin: string) => readonly object[],
): Promise<Failure> {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const origin = join(directory, 'origin')
  const written = many(origin, 'x')
  const manifests = change(written, origin)
  publishMany(registry, origin, { ...written, index: indexOf(origin, manifests) })
  for (const { digest } of manifests as layouts.Written[])
    if (registry.blobs.has(digest))
      registry.manifest('app', digest, registry.blobs.get(digest)?.toString() ?? '')
  const one = engine(t, directory)
  const error = await t.throwsAsync<Failure>(one.images.pull(`${registry.host}/app`, all))
  t.deepEqual(named(directory), [])
  t.deepEqual(stored(directory).ingest, [])
  return error
}

test('an index in an index is refused', async (t) => {
  const error = await refusal(t, ({ index, manifests }) => [...manifests, index])
  t.is(error.code, 'ERR_INVALID_IMAGE')
})

test('a type that is no type becomes no header', async (t) => {
  const error = await refusal(t, ({ manifests: [first, ...more] }) => [
    { ...first, mediaType: 'a/b\r\nx: y' },
    ...more,
  ])
  t.is(error.code, 'ERR_INVALID_IMAGE')
})

test('another size than its entry says is refused', async (t) => {
  const error = await refusal(t, ({ manifests: [first, second, ...more] }) => [
    first ?? {},
    { ...second, size: (second?.size ?? 0) + 1 },
    ...more,
  ])
  t.is(error.code, 'ERR_INVALID_IMAGE')
})

test('more entries than anybody needs are refused before they are asked for', async (t) => {
  const error = await refusal(t, ({ manifests }) =>
    Array.from({ length: 257 }, (_, at) => ({ ...manifests[0], digest: layouts.sha256(`${at}`) })),
  )
  t.is(error.code, 'ERR_IMAGE_LIMIT')
})

test('more bytes than there is room for are refused before they are asked for', async (t) => {
  const error = await refusal(t, ({ images, manifests: [first, ...more] }, origin) => {
    const { config, layers } = images[others[0]] ?? { config: undefined, layers: [] }
    const huge = layers.map((layer) => ({ ...layer, digest: layouts.sha256(layer.digest), size: 2 ** 52 }))
    const document = { schemaVersion: 2, mediaType: layouts.types.manifest, config, layers: huge }
    const manifest = layouts.blob(origin, JSON.stringify(document), layouts.types.manifest)
    return [{ ...first, ...manifest }, ...more]
  })
  t.is(error.code, 'ERR_IMAGE_LIMIT')
})

test('only what is no image', async (t) => {
  const error = await refusal(t, ({ manifests }) => manifests.slice(-1))
  t.is(error.code, 'ERR_INVALID_IMAGE')
})

test('blobs of other platforms that are wrong, or not there', async (t) => {
  const { directory, registry, written, name, one } = await published(t)
  const digest = layerOf(written.images[others[0]] ?? written.attestation, 1)
  const right = registry.blobs.get(digest) ?? Buffer.alloc(0)
  for (const [bytes, code] of [
    [Buffer.from(right.map((byte) => byte ^ 1)), 'ERR_DIGEST'],
    [Buffer.concat([right, right]), 'ERR_DIGEST'],
  ] as const) {
    registry.blobs.set(digest, bytes)
    t.like(await t.throwsAsync(one.images.pull(name, all)), { code })
    t.deepEqual(named(directory), [])
    // Of the others beginnings may be kept.
    t.false(stored(directory).ingest.includes(digest.slice('sha256:'.length)))
  }
  registry.blobs.set(digest, right)
  registry.fault = (seen, response) =>
    wants(seen, digest) ? refuse(response, 404, 'BLOB_UNKNOWN', 'blob unknown to registry') : false
  t.like(await t.throwsAsync(one.images.pull(name, all)), { code: 'ERR_REGISTRY' })
  t.deepEqual(named(directory), [])
  registry.fault = undefined
  await one.images.pull(name, all)
  t.deepEqual(stored(directory).blobs, blobsOf(written))
})
