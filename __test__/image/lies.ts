/** Registries that lie: what is pulled from one is refused, nothing of it is in the store, and the next pull works. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'
import { hostArchitecture } from '../../src/image/manifest.ts'
import type { FakeRegistry } from '../registry/server.ts'
import * as layouts from './layouts.ts'
import { layerOf, named, noise, publish, registryOf, stored, wants, whole } from './published.ts'
import { engine, scratch } from './store.ts'

/** The base of all images here. */
export const base: Buffer = layouts.busybox()
/** An image of two packed layers, the second of which holds `/noise`. */
export const options: layouts.ImageOptions = {
  layers: [base, layouts.tar([{ name: 'noise', content: noise(300_000) }])],
  compress: true,
}

/** A registry with the image `app:latest`, which is right. */
export interface Scene {
  registry: FakeRegistry
  directory: string
  written: layouts.WrittenImage
}

/** What `app:latest` says, changed. */
export function manifest(
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

/** A copy with one bit turned. */
export function flipped(bytes: Buffer | undefined, at: number): Buffer {
  const copy = Buffer.from(bytes ?? '')
  copy[at] = (copy[at] ?? 0) ^ 1
  return copy
}

/** Serves other bytes for a blob, in pieces without a promised length. */
export function chunked({ registry }: Scene, digest: string, bytes: Buffer): void {
  registry.fault = (seen, response) => {
    if (!wants(seen, digest)) return false
    response.writeHead(200)
    response.end(bytes)
    return true
  }
}

/** Puts the image into an index, whose entry says this of it. */
export function indexed(scene: Scene, entry: object, type: string = layouts.types.index): void {
  const manifests = [
    { ...scene.written.manifest, platform: { os: 'linux', architecture: hostArchitecture() }, ...entry },
  ]
  const document = JSON.stringify({ schemaVersion: 2, mediaType: layouts.types.index, manifests })
  scene.registry.manifest('app', 'latest', document, type)
}

/** Changes what a manifest says of its second layer. */
export const withLayer =
  (change: object) =>
  (document: Record<string, unknown>): object => {
    const [first, last] = document.layers as object[]
    return { ...document, layers: [first, { ...last, ...change }] }
  }

/** The digest of the second layer. */
export const last = ({ written }: Scene): string => layerOf(written, 1)
/** What no registry has. */
export const absent: string = `sha256:${'a'.repeat(64)}`

/** Runs an image of a registry that lies as `make` has it; fails unless that is this error, and no more. */
export async function refusedPull(
  t: ExecutionContext,
  code: string,
  make: (scene: Scene) => void,
): Promise<void> {
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
}
