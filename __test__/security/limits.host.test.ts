/** What an image and its registry may cost, for one that takes more (security.md D7). */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { constants, zstdCompressSync } from 'node:zlib'
import { hostArchitecture } from '../../src/image/manifest.ts'
import { base, chunked, indexed, last, manifest, refusedPull, withLayer, options } from '../image/lies.ts'
import type { Scene } from '../image/lies.ts'
import * as layouts from '../image/layouts.ts'
import { layerOf, program, publish, registryOf, stored, unpackers, wants } from '../image/published.ts'
import { scratch, shimsAreGone } from '../image/store.ts'
import { blobOf, client } from '../registry/scene.ts'
import type { FakeRegistry } from '../registry/server.ts'
import { row } from './row.ts'

/** Publishes an image whose one layer is packed by zstd, with the largest window that is taken. */
function zstdLayer(registry: FakeRegistry, directory: string, layer: Buffer): void {
  const written = layouts.image(join(directory, 'other'), { layers: [layer] })
  const { digest, size } = registry.blob(
    zstdCompressSync(layer, { params: { [constants.ZSTD_c_windowLog]: 27 } }),
  )
  const config = registry.blob(readFileSync(layouts.path(join(directory, 'other'), written.config.digest)))
  const document = {
    schemaVersion: 2,
    mediaType: layouts.types.manifest,
    config: { ...written.config, digest: config.digest },
    layers: [{ mediaType: `${layouts.types.layer}+zstd`, digest, size }],
  }
  registry.manifest('app', 'latest', JSON.stringify(document))
}

/** What is wrong, the code for it, and how the registry comes to it. */
const cases: [string, string, (scene: Scene) => void][] = [
  [
    'a manifest of another size than its index says',
    'ERR_INVALID_IMAGE',
    (scene) => indexed(scene, { size: 7 }),
  ],
  [
    'a config of another size than its descriptor says',
    'ERR_DIGEST',
    (scene) =>
      manifest(scene, (document) => ({ ...document, config: { ...(document.config as object), size: 7 } })),
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
  [
    'a manifest that is nested 100,000 deep',
    'ERR_IMAGE_LIMIT',
    (scene) => {
      const { bytes } = scene.registry.manifests.get('app:latest') ?? { bytes: Buffer.of() }
      const deep = `{"annotations":{"x":${'['.repeat(1e5)}${']'.repeat(1e5)}},${bytes.toString().slice(1)}`
      scene.registry.manifest('app', 'latest', deep)
    },
  ],
  [
    'a config of nine million bytes',
    'ERR_IMAGE_LIMIT',
    ({ registry, directory }) => {
      const document = { history: [{ comment: 'x'.repeat(9e6) }] }
      publish(registry, join(directory, 'other'), { ...options, document })
    },
  ],
  [
    '128 layers',
    'ERR_IMAGE_LIMIT',
    ({ registry, directory }) => {
      const layers = Array.from({ length: 127 }, (_, at) => layouts.tar([{ name: `f${at}` }]))
      publish(registry, join(directory, 'other'), { layers: [base, ...layers] })
    },
  ],
  [
    '10,001 manifests in an index',
    'ERR_IMAGE_LIMIT',
    (scene) => {
      const platform = { os: 'linux', architecture: hostArchitecture() }
      const one = { ...scene.written.manifest, platform }
      const other = { ...one, platform: { ...platform, os: 'other' } }
      const manifests = [one, ...Array.from({ length: 10_000 }, () => other)]
      const document = JSON.stringify({ schemaVersion: 2, manifests })
      scene.registry.manifest('app', 'latest', document, layouts.types.index)
    },
  ],
  [
    'a layer whose PAX header has 100 million bytes',
    'ERR_IMAGE_LIMIT',
    ({ registry, directory }) => {
      const comment = 'x'.repeat(100e6 - 21)
      const header: layouts.Entry = {
        name: 'PaxHeaders/x',
        // Of tar(5)'s kinds the one that only says something of the next.
        kind: 'x' as '0',
        content: `100000000 comment=${comment}\n`,
      }
      const layers = [base, layouts.tar([header, { name: 'x' }])]
      publish(registry, join(directory, 'other'), { layers, compress: true })
    },
  ],
  [
    'zeros by zstd, 20,000 times as many as its bytes',
    'ERR_IMAGE_LIMIT',
    ({ registry, directory }) => {
      const zeros = layouts.tar([{ name: 'zeros', content: Buffer.alloc(80 << 20) }])
      zstdLayer(registry, directory, zeros)
    },
  ],
]

for (const [name, code, make] of cases) row('D7', `${name}: ${code}`, (t) => refusedPull(t, code, make))

/** The most memory that a process has had, in MiB. */
function peak(pid: number): number {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8')
    return Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) / 1024
  } catch {
    // It ended while we looked.
    return 0
  }
}

function shims(): number[] {
  return readdirSync('/proc')
    .filter((pid) => /^\d+$/.test(pid))
    .map(Number)
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/comm`, 'utf8') === 'caisson-shim\n'
      } catch {
        return false
      }
    })
}

row('D7', 'memory: under 250 MiB in each process, whatever is sent', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const zeros = layouts.tar([{ name: 'zeros', content: Buffer.alloc(60 << 20) }])
  zstdLayer(registry, directory, zeros)
  const huge = Buffer.alloc(160 << 20, ' ')
  registry.manifest('huge', 'latest', `{}${huge.toString('latin1')}`)
  const pulls = ['huge', 'app'].map((name) => `await engine.pull('${registry.host}/${name}').catch(() => 0)`)
  const child = program(directory, pulls.join('\n'))
  const exit = once(child, 'exit')
  let most = 0
  while (child.exitCode === null && child.signalCode === null) {
    for (const pid of [child.pid ?? 0, ...shims(), ...unpackers()]) most = Math.max(most, peak(pid))
    await sleep(2)
  }
  t.is(((await exit) as [number])[0], 0)
  await shimsAreGone(directory)
  t.true(registry.asked(/^GET .*\/huge\//).length > 0)
  t.is(stored(directory).layers.length, 1)
  t.log(`${most.toFixed()} MiB`)
  t.true(most > 20 && most < 250, `${most} MiB`)
})

row('D7', 'a registry that says nothing, or a byte now and then', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const one = client(t, registry.host, { limits: { attempts: 1, idle: 300, document: 1000 } })
  const within = async (what: Promise<unknown>): Promise<unknown> =>
    Promise.race([what, sleep(8000).then(() => Promise.reject(new Error('it was still waited for')))])
  registry.fault = () => true
  await t.throwsAsync(within(one.manifest('app', 'latest')), { message: /nothing came for 0\.3 s/ })
  registry.fault = (_, response) => {
    response.writeHead(200)
    const timer = setInterval(() => response.write('x'), 100)
    response.on('close', () => clearInterval(timer))
    return true
  }
  await t.throwsAsync(within(one.manifest('app', 'latest')), { message: /not all came within 1 s/ })
  await t.throwsAsync(within(one.blob('app', { ...blobOf('x'), size: 1000 })), {
    message: /not all came within 1 s/,
  })
})
