/** Documents that are two things, or none (security.md D9). */
import { absent, indexed, manifest, options, refusedPull, withLayer } from '../image/lies.ts'
import type { Scene } from '../image/lies.ts'
import * as layouts from '../image/layouts.ts'
import { publish, registryOf } from '../image/published.ts'
import { empty, engine, held, scratch } from '../image/store.ts'
import { hostArchitecture } from '../../src/image/manifest.ts'
import { row } from './row.ts'

/** What is wrong, the code for it, and how the registry comes to it. */
const cases: [string, string, (scene: Scene) => void][] = [
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
]

for (const [name, code, make] of cases) row('D9', `${name}: ${code}`, (t) => refusedPull(t, code, make))

row('D9', 'fields of other types: a code each, and the program lives', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const one = engine(t, directory)
  const right = publish(registry, directory, options)
  const original = registry.manifests.get('app:latest')?.bytes.toString() ?? ''
  const wrong = [null, 7, true, 'x', [], {}, [[]], [null], { length: 1 }, -1, 0.5]
  for (const field of ['schemaVersion', 'config', 'layers', 'mediaType']) {
    for (const value of wrong) {
      // Absent it may be.
      if (field === 'mediaType' && value === null) continue
      const document = { ...(JSON.parse(original) as object), [field]: value }
      registry.manifest('app', 'latest', JSON.stringify(document))
      const error = await t.throwsAsync(
        one.pull(`${registry.host}/app`),
        undefined,
        `${field} ${JSON.stringify(value)}`,
      )
      t.regex((error as Error & { code: string }).code, /^ERR_(INVALID_IMAGE|UNSUPPORTED)$/, error.message)
      t.true(error.message.includes(field), error.message)
    }
  }
  t.deepEqual(held(directory), empty)
  // An index that names itself has another digest than it says.
  const { digest, size } = right.manifest
  const platform = { os: 'linux', architecture: hostArchitecture() }
  const self = { schemaVersion: 2, manifests: [{ mediaType: layouts.types.index, digest, size, platform }] }
  const bytes = Buffer.from(JSON.stringify(self))
  for (const key of ['app:latest', `app@${digest}`])
    registry.manifests.set(key, { bytes, type: layouts.types.index })
  t.like(await t.throwsAsync(one.pull(`${registry.host}/app`)), { code: 'ERR_DIGEST' })
  t.deepEqual(held(directory), empty)
})
