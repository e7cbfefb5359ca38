/** Registries that lie: each refused with the code for it, nothing of it in the store, and the next pull works. */
import { existsSync, readFileSync } from 'node:fs'
import type { ServerResponse } from 'node:http'
import { join } from 'node:path'
import test from 'ava'
import { hostArchitecture } from '../../src/image/manifest.ts'
import type { FakeRegistry } from '../registry/server.ts'
import { refuse } from '../registry/server.ts'
import * as layouts from './layouts.ts'
import { layerOf, named, noise, publish, registryOf, stored, wants, whole } from './published.ts'
import { engine, scratch } from './store.ts'

const base = layouts.busybox()
const options: layouts.ImageOptions = {
  layers: [base, layouts.tar([{ name: 'noise', content: noise(300_000) }])],
  compress: true,
}

/** A registry with the image `app:latest`, which is right. */
interface Scene {
  registry: FakeRegistry
  directory: string
  written: layouts.WrittenImage
}

/** What `app:latest` says, changed. */
function manifest(
  { registry }: Scene,
  change: (document: Record<string, unknown>) => object,
  type?: string,
): void {
  const { bytes } = registry.manifests.get('app:latest') ?? { bytes: Buffer.of() }
  registry.manifest(
    'app',
    'latest',
    JSON.stringify(change(JSON.parse(bytes.toString()) as Record<string, unknown>)),
    type,
  )
}

function flipped(bytes: Buffer | undefined, at: number): Buffer {
  const copy = Buffer.from(bytes ?? '')
  copy[at] = (copy[at] ?? 0) ^ 1
  return copy
}

/** Serves other bytes for a blob, in pieces without a promised length. */
function chunked({ registry }: Scene, digest: string, bytes: Buffer): void {
  registry.fault = (seen, response) => {
    if (!wants(seen, digest)) return false
    response.writeHead(200)
    response.end(bytes)
    return true
  }
}

/** Puts the image into an index, whose entry says this of it. */
function indexed(scene: Scene, entry: object, type = layouts.types.index): void {
  const manifests = [
    { ...scene.written.manifest, platform: { os: 'linux', architecture: hostArchitecture() }, ...entry },
  ]
  const document = JSON.stringify({ schemaVersion: 2, mediaType: layouts.types.index, manifests })
  scene.registry.manifest('app', 'latest', document, type)
}

const withLayer =
  (change: object) =>
  (document: Record<string, unknown>): object => {
    const [first, last] = document.layers as object[]
    return { ...document, layers: [first, { ...last, ...change }] }
  }

const last = ({ written }: Scene): string => layerOf(written, 1)
const absent = `sha256:${'a'.repeat(64)}`

/** What is wrong, the code for it, and how the registry comes to it. */
const cases: [string, string, (scene: Scene) => void][] = [
  [
    'a bit of a manifest that is asked for by digest',
    'ERR_DIGEST',
    (scene) => {
      const key = `app@${scene.written.manifest.digest}`
      const { bytes, type } = scene.registry.manifests.get(key) ?? { bytes: Buffer.of(), type: '' }
      indexed(scene, {})
      scene.registry.manifests.set(key, { bytes: flipped(bytes, bytes.length - 3), type })
    },
  ],
  [
    'a manifest of another size than its index says',
    'ERR_INVALID_IMAGE',
    (scene) => indexed(scene, { size: 7 }),
  ],
  [
    'a bit of the config',
    'ERR_DIGEST',
    ({ registry, written: { config } }) => {
      registry.blobs.set(config.digest, flipped(registry.blobs.get(config.digest), 5))
    },
  ],
  [
    'a config of another size than its descriptor says',
    'ERR_DIGEST',
    (scene) =>
      manifest(scene, (document) => ({ ...document, config: { ...(document.config as object), size: 7 } })),
  ],
  [
    'a bit of a layer',
    'ERR_DIGEST',
    ({ registry, directory }) => {
      const layers = options.layers.slice(1)
      const written = publish(registry, join(directory, 'other'), { layers })
      registry.blobs.set(layerOf(written, 0), flipped(registry.blobs.get(layerOf(written, 0)), 150_000))
    },
  ],
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
    'a layer with a byte more',
    'ERR_DIGEST',
    (scene) => {
      const bytes = scene.registry.blobs.get(last(scene)) ?? Buffer.of()
      chunked(scene, last(scene), Buffer.concat([bytes, Buffer.of(0)]))
    },
  ],
  [
    'a layer that has no end',
    'ERR_DIGEST',
    (scene) => {
      const bytes = scene.registry.blobs.get(last(scene)) ?? Buffer.of()
      scene.registry.fault = (seen, response) => {
        if (!wants(seen, last(scene))) return false
        response.write(bytes)
        const more = (): void => {
          if (!response.destroyed) response.write(Buffer.alloc(65_536), () => setImmediate(more))
        }
        more()
        return true
      }
    },
  ],
  [
    'a layer with a byte less, by its length',
    'ERR_DIGEST',
    ({ registry, written }) => {
      const digest = layerOf(written, 1)
      registry.blobs.set(digest, registry.blobs.get(digest)?.subarray(1) ?? Buffer.of())
    },
  ],
  [
    'a layer of another size than its descriptor says',
    'ERR_DIGEST',
    (scene) => manifest(scene, withLayer({ size: 7 })),
  ],
  [
    'a layer that the registry does not know',
    'ERR_REGISTRY',
    (scene) => manifest(scene, withLayer({ digest: absent })),
  ],
  [
    'a layer that inflates to something else than the config says',
    'ERR_DIGEST',
    (scene) => {
      const rootfs = { type: 'layers', diff_ids: [layouts.sha256(base), absent] }
      publish(scene.registry, join(scene.directory, 'other'), { ...options, document: { rootfs } })
    },
  ],
  [
    'a lower layer, in the store already, that inflates to something else than the config says',
    'ERR_DIGEST',
    (scene) => {
      const rootfs = { type: 'layers', diff_ids: [absent] }
      const layers = [base]
      publish(scene.registry, join(scene.directory, 'other'), { ...options, layers, document: { rootfs } })
    },
  ],
  [
    'another blob for a layer that is in the store already',
    'ERR_DIGEST',
    (scene) => {
      publish(scene.registry, join(scene.directory, 'other'), { layers: [base], compress: true })
      const { digest, size } = scene.registry.blob(layouts.tar([{ name: 'x' }]))
      const layers = [{ mediaType: layouts.types.layer, digest, size }]
      manifest(scene, (document) => ({ ...document, layers }))
    },
  ],
  [
    'a document that is a manifest and an index',
    'ERR_INVALID_IMAGE',
    (scene) => manifest(scene, (document) => ({ ...document, manifests: [] })),
  ],
  [
    'a document that is a manifest and an index, served as an index',
    'ERR_INVALID_IMAGE',
    (scene) =>
      manifest(
        scene,
        (document) => ({ ...document, mediaType: undefined, manifests: [] }),
        layouts.types.index,
      ),
  ],
  [
    'a manifest that is served as an index',
    'ERR_INVALID_IMAGE',
    (scene) => manifest(scene, (document) => document, layouts.types.index),
  ],
  [
    'schema 1',
    'ERR_UNSUPPORTED',
    ({ registry }) => {
      const type = 'application/vnd.docker.distribution.manifest.v1+prettyjws'
      registry.manifest('app', 'latest', '{"schemaVersion":1,"name":"app","fsLayers":[]}', type)
    },
  ],
  [
    'an index in an index',
    'ERR_INVALID_IMAGE',
    (scene) => {
      indexed(scene, {})
      const inner = scene.registry.manifests.get('app:latest')?.bytes ?? Buffer.of()
      const digest = layouts.sha256(inner)
      indexed(scene, { mediaType: layouts.types.index, digest, size: inner.length })
    },
  ],
  [
    'an index without this platform',
    'ERR_IMAGE_NOT_FOUND',
    (scene) => indexed(scene, { platform: { os: 'linux', architecture: 's390x' } }),
  ],
  [
    'an index with two images for this platform',
    'ERR_INVALID_IMAGE',
    (scene) => {
      const platform = { os: 'linux', architecture: hostArchitecture() }
      const manifests = [scene.written.manifest, { ...scene.written.manifest, digest: absent }]
      const document = { schemaVersion: 2, manifests: manifests.map((one) => ({ ...one, platform })) }
      scene.registry.manifest('app', 'latest', JSON.stringify(document), layouts.types.index)
    },
  ],
  [
    'an image for another platform than its index says',
    'ERR_UNSUPPORTED',
    (scene) => {
      const document = { architecture: 's390x' }
      const { manifest: foreign } = publish(
        scene.registry,
        join(scene.directory, 'other'),
        { ...options, document },
        'x',
      )
      indexed(scene, foreign)
    },
  ],
  [
    'an artifact',
    'ERR_UNSUPPORTED',
    (scene) =>
      manifest(scene, (document) => ({
        ...document,
        artifactType: 'application/vnd.docker.compose.project',
        config: { ...(document.config as object), mediaType: 'application/vnd.oci.empty.v1+json' },
        annotations: { 'org.opencontainers.image.title': '../../.bashrc' },
      })),
  ],
  [
    'a layer of another type',
    'ERR_UNSUPPORTED',
    (scene) => manifest(scene, withLayer({ mediaType: 'text/yaml' })),
  ],
  [
    'a digest that is a path',
    'ERR_DIGEST',
    (scene) => manifest(scene, withLayer({ digest: 'sha256:../../../x' })),
  ],
  [
    'a digest in upper case',
    'ERR_DIGEST',
    (scene) => manifest(scene, withLayer({ digest: absent.toUpperCase() })),
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
  [
    'a manifest of five million bytes',
    'ERR_IMAGE_LIMIT',
    (scene) => manifest(scene, (document) => ({ ...document, annotations: { x: 'x'.repeat(5_000_000) } })),
  ],
  [
    'a layer that inflates without end',
    'ERR_IMAGE_LIMIT',
    (scene) => {
      const zeros = layouts.tar([{ name: 'zeros', content: Buffer.alloc(80 << 20) }])
      publish(scene.registry, join(scene.directory, 'other'), { layers: [zeros], compress: 'best' })
    },
  ],
]

for (const [name, code, make] of cases) {
  test(`${name}: ${code}`, async (t) => {
    const directory = scratch(t)
    const registry = await registryOf(t, directory)
    const one = engine(t, directory)
    // Another image is there, of the same base.
    publish(registry, directory, { layers: [base], compress: true }, 'there')
    await one.pull(`${registry.host}/app:there`)
    const index = join(directory, 'data/images/index.json')
    const [before, kept] = [readFileSync(index), stored(directory)]
    const written = publish(registry, directory, options)
    make({ registry, directory, written })
    for (let round = 0; round < 2; round += 1) {
      t.like(await t.throwsAsync(one.run(`${registry.host}/app`, ['true'])), { code })
      t.deepEqual(stored(directory), kept)
      t.deepEqual(readFileSync(index), before)
    }
    t.notThrows(() => whole(directory))
    t.false(existsSync(join(directory, 'x')))
    registry.fault = undefined
    publish(registry, directory, options)
    t.is((await one.run(`${registry.host}/app`, ['ls', '/noise'])).stdout, '/noise\n')
    t.deepEqual(
      named(directory),
      ['there', 'latest'].map((tag) => `${registry.host}/app:${tag}`),
    )
    t.notThrows(() => whole(directory))
  })
}

test('a layer’s urls are nobody’s order', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const written = publish(registry, directory, options)
  const urls = [`${registry.origin}/elsewhere`]
  const mediaType = 'application/vnd.oci.image.layer.nondistributable.v1.tar+gzip'
  manifest({ registry, directory, written }, withLayer({ urls, mediaType }))
  const one = engine(t, directory)
  t.is((await one.run(`${registry.host}/app`, ['ls', '/noise'])).stdout, '/noise\n')
  t.deepEqual(registry.asked(/elsewhere/), [])
})

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
