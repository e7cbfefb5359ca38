/** Registries that lie, or lack what they name. What known holes are about is in __test__/security/. */
import test from 'ava'
import type { ServerResponse } from 'node:http'
import { refuse } from '../registry/server.ts'
import {
  absent,
  base,
  chunked,
  flipped,
  indexed,
  last,
  manifest,
  refusedPull,
  withLayer,
  options,
} from './lies.ts'
import type { Scene } from './lies.ts'
import * as layouts from './layouts.ts'
import { layerOf, named, noise, publish, registryOf, stored, wants, whole } from './published.ts'
import { engine, scratch } from './store.ts'

/** What is wrong, the code for it, and how the registry comes to it. */
const cases: [string, string, (scene: Scene) => void][] = [
  [
    // gzip's own sum is found wrong first.
    'a bit of a layer that is compressed',
    'ERR_ARCHIVE',
    ({ registry, written }) => {
      const digest = layerOf(written, 1)
      registry.blobs.set(digest, flipped(registry.blobs.get(digest), 150_000))
    },
  ],
  [
    'a layer that the registry does not know',
    'ERR_REGISTRY',
    (scene) => manifest(scene, withLayer({ digest: absent })),
  ],
  [
    'an index without this platform',
    'ERR_IMAGE_NOT_FOUND',
    (scene) => indexed(scene, { platform: { os: 'linux', architecture: 's390x' } }),
  ],
  ['no manifest', 'ERR_IMAGE_NOT_FOUND', ({ registry }) => registry.manifests.clear()],
  ['no config', 'ERR_REGISTRY', ({ registry, written }) => void registry.blobs.delete(written.config.digest)],
  ['no layer', 'ERR_REGISTRY', ({ registry, written }) => void registry.blobs.delete(layerOf(written, 1))],
  [
    'rights to the manifest alone',
    'ERR_REGISTRY_AUTH',
    (scene) => {
      scene.registry.fault = (seen, response: ServerResponse) =>
        wants(seen, last(scene)) && refuse(response, 403, 'DENIED', 'denied')
    },
  ],
]

for (const [name, code, make] of cases) test(`${name}: ${code}`, (t) => refusedPull(t, code, make))

test('a registry that moves a tag between its answers', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const which = (content: string): layouts.ImageOptions => ({
    layers: [base, layouts.tar([{ name: 'which', content }])],
  })
  publish(registry, directory, which('old'))
  registry.fault = ({ url }) => {
    if (url.includes('/manifests/')) setImmediate(() => publish(registry, directory, which('new')))
    return false
  }
  const one = engine(t, directory)
  const runs = [one, one].map((by) => by.run(`${registry.host}/app`, ['cat', '/which']))
  for (const { stdout } of await Promise.all(runs)) t.is(stdout, 'old')
  t.is((await one.run(`${registry.host}/app`, ['cat', '/which'], { pull: 'always' })).stdout, 'new')
})

test('a layer that ends early is a line that is cut; that its beginning was a lie the next pull finds out and mends', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const written = publish(registry, directory, { ...options, compress: false })
  const scene = { registry, directory, written }
  chunked(scene, last(scene), layouts.tar([{ name: 'noise', content: noise(100_000, 2) }]))
  const one = engine(t, directory)
  const image = `${registry.host}/app`
  t.like(await t.throwsAsync(one.pull(image)), { code: 'ERR_REGISTRY' })
  registry.fault = undefined
  t.deepEqual(named(directory), [])
  await one.pull(image)
  t.deepEqual(stored(directory).ingest, [])
  t.is((await one.run(image, ['ls', '/noise'], { pull: 'never' })).stdout, '/noise\n')
  t.notThrows(() => whole(directory))
})
