/** Bytes that are not what they are called (security.md D8). */
import { join } from 'node:path'
import { absent, base, flipped, indexed, manifest, options, refusedPull, withLayer } from '../image/lies.ts'
import type { Scene } from '../image/lies.ts'
import * as layouts from '../image/layouts.ts'
import { layerOf, publish, registryOf } from '../image/published.ts'
import { empty, engine, held, scratch } from '../image/store.ts'
import { client, digestOf } from '../registry/scene.ts'
import { row } from './row.ts'

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
    'a bit of the config',
    'ERR_DIGEST',
    ({ registry, written: { config } }) => {
      registry.blobs.set(config.digest, flipped(registry.blobs.get(config.digest), 5))
    },
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
]

for (const [name, code, make] of cases) row('D8', `${name}: ${code}`, (t) => refusedPull(t, code, make))

/** Digests that are none, or none that is taken. */
const odd = [
  'sha256:../../../x',
  absent.toUpperCase(),
  `sha256:${'A'.repeat(64)}`,
  absent.slice(0, -1),
  `${absent}a`,
  `md5:${'a'.repeat(32)}`,
  `sha1:${'a'.repeat(40)}`,
  `sha256:${'a'.repeat(63)}/`,
  'a'.repeat(64),
  '',
]
for (const digest of odd) {
  row('D8', `the digest '${digest.slice(0, 24)}' of ${digest.length}`, async (t) => {
    const where = [
      ['layer', withLayer({ digest })],
      [
        'config',
        (document: Record<string, unknown>) => ({
          ...document,
          config: { ...(document.config as object), digest },
        }),
      ],
    ] as const
    const directory = scratch(t)
    const registry = await registryOf(t, directory)
    const one = engine(t, directory)
    for (const [what, change] of where) {
      const written = publish(registry, directory, options)
      manifest({ registry, directory, written }, change)
      registry.seen.length = 0
      // It would be had.
      const bytes = registry.blobs.get(what === 'layer' ? layerOf(written, 1) : written.config.digest)
      registry.fault = ({ method, url }, response) => {
        const known = registry.blobs.has(url.split('/').at(-1) ?? '')
        if (method !== 'GET' || !url.includes('/blobs/') || known) return false
        response.end(bytes)
        return true
      }
      t.like(await t.throwsAsync(one.pull(`${registry.host}/app`)), { code: 'ERR_DIGEST' }, what)
      t.deepEqual(held(directory), empty)
      t.deepEqual(registry.asked(/blobs/), [], what)
    }
  })
}

row('D8', 'what the header says is nobody’s digest', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const asked = digestOf('{"asked":"for"}')
  registry.fault = (_, response) => {
    response.writeHead(200, { 'docker-content-digest': asked })
    response.end('{"other":1}')
    return true
  }
  const one = client(t, registry.host)
  await t.throwsAsync(one.manifest('app', asked), { code: 'ERR_DIGEST' })
  t.is((await one.manifest('app', 'latest')).digest, digestOf('{"other":1}'))
})
