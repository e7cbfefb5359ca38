/** Images from registries: when they are pulled, what of them, and what runs then. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import type { PullProgress } from '../../src/image/pull.ts'
import { hostArchitecture } from '../../src/image/manifest.ts'
import * as layouts from './layouts.ts'
import { named, noise, publish, registryOf, requests, stored, layerOf, whole } from './published.ts'
import { engine, scratch } from './store.ts'

const base = layouts.busybox()
const which = (content: string): layouts.ImageOptions => ({
  layers: [base, layouts.tar([{ name: 'which', content }])],
  compress: true,
})

test('an image is pulled and runs, with its config; the second pull is one request', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  publish(registry, directory, {
    ...which('one'),
    config: { Cmd: ['sh', '-c', 'cat /which; echo $A'], Env: ['A=b'] },
  })
  const one = engine(t, directory)
  const image = `${registry.host}/app`
  t.is((await one.run(image)).stdout, 'oneb\n')
  // A manifest, a config, two layers.
  t.is(registry.seen.length, 4)
  await one.pull(image)
  t.is(registry.seen.length, 5)
  t.is(registry.seen[4]?.method, 'HEAD')
  const all = stored(directory)
  t.is(all.layers.length, 2)
  t.deepEqual([all.unpacking, all.ingest], [[], []])
  t.deepEqual(named(directory), [`${image}:latest`])
  // Nothing is asked for a run.
  t.is((await one.run(image)).stdout, 'oneb\n')
  t.is((await engine(t, directory).run(image)).stdout, 'oneb\n')
  t.is(registry.seen.length, 5)
})

test('pull: never, missing, always', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  publish(registry, directory, which('one'))
  const one = engine(t, directory)
  const image = `${registry.host}/app:latest`
  const run = async (pull?: 'never' | 'missing' | 'always'): Promise<string> =>
    (await one.run(image, ['cat', '/which'], pull && { pull })).stdout
  t.like(await t.throwsAsync(run('never')), { code: 'ERR_IMAGE_NOT_FOUND', stage: 'resolve' })
  t.is(registry.seen.length, 0)
  t.is(await run(), 'one')
  publish(registry, directory, which('two'))
  const before = registry.seen.length
  t.is(await run('missing'), 'one')
  t.is(await run('never'), 'one')
  t.is(registry.seen.length, before)
  t.is(await run('always'), 'two')
  // HEAD, manifest, config, the layer that is new.
  t.is(registry.seen.length, before + 4)
  t.is(await run('always'), 'two')
  t.is(registry.seen.length, before + 5)
})

test('a tag that moved: the name moves with it, what had it stays and dangles', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const first = publish(registry, directory, which('one'))
  const one = engine(t, directory)
  const image = `${registry.host}/app:latest`
  await one.pull(image)
  const second = publish(registry, directory, which('two'))
  await one.pull(image)
  t.is((await one.run(image, ['cat', '/which'])).stdout, 'two')
  t.is(requests(registry, layerOf(first, 0)), 1)
  const { manifests } = JSON.parse(readFileSync(`${directory}/data/images/index.json`, 'utf8')) as {
    manifests: { digest: string; annotations?: object }[]
  }
  t.deepEqual(
    manifests.map(({ digest, annotations }) => [digest, annotations !== undefined]),
    [
      [first.manifest.digest, false],
      [second.manifest.digest, true],
    ],
  )
  // Back again: nothing but the documents is asked for.
  const before = registry.seen.length
  publish(registry, directory, which('one'))
  await one.pull(image)
  t.is((await one.run(image, ['cat', '/which'])).stdout, 'one')
  t.is(registry.seen.slice(before).filter(({ url }) => layoutsHas(url, first)).length, 0)
})

function layoutsHas(url: string, { layers }: layouts.WrittenImage): boolean {
  return layers.some(({ digest }) => url.endsWith(digest))
}

test('by digest: once it is here no request is made, and the digest is the one that was asked for', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const { manifest } = publish(registry, directory, which('one'))
  const one = engine(t, directory)
  const image = `${registry.host}/app@${manifest.digest}`
  t.is((await one.run(image, ['cat', '/which'])).stdout, 'one')
  const before = registry.seen.length
  await one.pull(image)
  t.is((await one.run(image, ['cat', '/which'], { pull: 'always' })).stdout, 'one')
  t.is(registry.seen.length, before)
  // A tag beside a digest says nothing.
  await one.pull(`${registry.host}/app:nowhere@${manifest.digest}`)
  t.is(registry.seen.length, before)
  t.deepEqual(named(directory), [image])
  // Under the digest of another image other bytes are served.
  const other = layouts.sha256('other')
  const served = registry.manifests.get('app:latest')
  if (served !== undefined) registry.manifests.set(`app@${other}`, served)
  t.like(await t.throwsAsync(one.pull(`${registry.host}/app@${other}`)), { code: 'ERR_DIGEST' })
})

test('two names of one image: its blobs come once', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const written = publish(registry, directory, which('one'), 'a')
  publish(registry, directory, which('one'), 'b')
  const one = engine(t, directory)
  for (const tag of ['a', 'b']) {
    t.is((await one.run(`${registry.host}/app:${tag}`, ['cat', '/which'])).stdout, 'one')
  }
  for (const at of [0, 1]) t.is(requests(registry, layerOf(written, at)), 1)
  t.deepEqual(named(directory), [`${registry.host}/app:a`, `${registry.host}/app:b`])
})

test('a layer that is here of another blob, or of a layout: the image’s own blob is kept too', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const one = engine(t, directory)
  const origin = join(directory, 'layout')
  layouts.layout(origin, which('one'))
  t.is((await one.run(`oci:${origin}`, ['cat', '/which'])).stdout, 'one')
  publish(registry, directory, which('one'), 'gzip')
  publish(registry, directory, { ...which('one'), compress: false }, 'plain')
  for (const tag of ['gzip', 'plain']) {
    t.is((await one.run(`${registry.host}/app:${tag}`, ['cat', '/which'])).stdout, 'one')
    t.notThrows(() => whole(directory))
  }
  t.is(stored(directory).layers.length, 2)
  t.deepEqual(stored(directory).ingest, [])
})

test('an index of several platforms: this one, or the one that is asked for', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const foreign = hostArchitecture() === 'arm64' ? 'amd64' : 'arm64'
  const mine = publish(registry, directory, which('mine'), 'mine')
  const theirs = publish(
    registry,
    directory,
    { ...which('theirs'), document: { architecture: foreign } },
    'theirs',
  )
  const manifests = [
    { ...theirs.manifest, platform: { os: 'linux', architecture: foreign } },
    { ...mine.manifest, platform: { os: 'linux', architecture: hostArchitecture() } },
    {
      ...theirs.manifest,
      platform: { os: 'unknown', architecture: 'unknown' },
      annotations: { 'vnd.docker.reference.type': 'attestation-manifest' },
    },
  ]
  registry.manifest(
    'app',
    'multi',
    JSON.stringify({ schemaVersion: 2, mediaType: layouts.types.index, manifests }),
    layouts.types.index,
  )
  const one = engine(t, directory)
  const image = `${registry.host}/app:multi`
  t.is((await one.run(image, ['cat', '/which'])).stdout, 'mine')
  const before = registry.seen.length
  await one.pull(image)
  t.is(registry.seen.length, before + 1)
  // An image for another processor is pulled for who says so. It replaces the one of the name, as docker's does.
  await one.pull(image, { platform: `linux/${foreign}` })
  t.is(requests(registry, layerOf(theirs, 1)), 1)
  await one.pull(image, { platform: `linux/${foreign}` })
  t.is(requests(registry, layerOf(theirs, 1)), 1)
  t.like(await t.throwsAsync(one.pull(image, { platform: 'linux/s390x' })), { code: 'ERR_IMAGE_NOT_FOUND' })
  t.like(await t.throwsAsync(one.pull(image, { platform: 'a/b/c/d' })), { code: 'ERR_INVALID_OPTION' })
})

test('progress: what the name stands for, each layer’s bytes, the end', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const layers = [base, layouts.tar([{ name: 'noise', content: noise(300_000) }])]
  const written = publish(registry, directory, { layers })
  const one = engine(t, directory)
  const seen: PullProgress[] = []
  const onProgress = (progress: PullProgress): void => void seen.push(progress)
  await one.pull(`${registry.host}/app`, { onProgress })
  t.like(seen[0], { kind: 'resolved', digest: written.manifest.digest })
  t.deepEqual(seen.at(-1), { kind: 'complete', digest: written.manifest.digest, changed: true })
  for (const [at, { digest, size }] of written.layers.entries()) {
    const of = seen.flatMap((step) => (step.kind === 'layer' && step.layer === at ? [step] : []))
    t.true(of.every((step) => step.digest === digest && step.size === size))
    const came = of.map(({ received }) => received)
    t.deepEqual(
      came,
      came.toSorted((a, b) => a - b),
    )
    t.deepEqual([of[0]?.received, of[0]?.state], [0, 'downloading'])
    t.deepEqual([of.at(-1)?.received, of.at(-1)?.state], [size, 'complete'])
  }
  seen.length = 0
  await one.run(`${registry.host}/app`, ['true'], { pull: 'always', onProgress })
  t.deepEqual(seen, [{ kind: 'complete', digest: written.manifest.digest, changed: false }])
})

test('a signal that was aborted before: nothing is asked', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  publish(registry, directory, which('one'))
  const signal = AbortSignal.abort(new Error('before'))
  const pull = engine(t, directory).pull(`${registry.host}/app`, { signal })
  t.is((await t.throwsAsync(pull)).message, 'before')
  t.is(registry.seen.length, 0)
})
