/** Images in registries for tests, what a store came to, and another program that pulls. */
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { createCipheriv, createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import type { ServerResponse } from 'node:http'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { ExecutionContext } from 'ava'
import { environment } from '../registry/scene.ts'
import { serve } from '../registry/server.ts'
import type { FakeRegistry, Seen } from '../registry/server.ts'
import * as layouts from './layouts.ts'

/** A registry of a test's own; this process, and what it starts, knows no logins and no configuration but the test's. */
export async function registryOf(t: ExecutionContext, directory: string): Promise<FakeRegistry> {
  alone(t, directory)
  return serve(t)
}

/** Whatever this machine knows of registries is not found. */
export function alone(t: ExecutionContext, directory: string): void {
  mkdirSync(directory, { recursive: true })
  const before = { ...process.env }
  Object.assign(process.env, environment(directory))
  t.teardown(() => {
    for (const name of Object.keys(process.env)) if (before[name] === undefined) delete process.env[name]
    Object.assign(process.env, before)
  })
}

/** Puts the blobs that a layout has into a registry. */
export function upload(registry: FakeRegistry, directory: string): void {
  const blobs = join(directory, 'blobs/sha256')
  for (const name of readdirSync(blobs)) registry.blob(readFileSync(join(blobs, name)))
}

/** Puts an image into a registry, as `app:TAG`. */
export function publish(
  registry: FakeRegistry,
  directory: string,
  options: layouts.ImageOptions,
  tag = 'latest',
  name = 'app',
): layouts.WrittenImage {
  const origin = join(directory, `origin-${name.replaceAll('/', '-')}-${tag}`)
  const written = layouts.image(origin, options)
  upload(registry, origin)
  const bytes = readFileSync(layouts.path(origin, written.manifest.digest), 'utf8')
  registry.manifest(name, tag, bytes)
  return written
}

/** Bytes that do not compress, the same each time. */
export function noise(length: number, seed = 1): Buffer {
  const key = createHash('md5').update(`${seed}`).digest()
  return createCipheriv('aes-128-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(length))
}

/** The offset that a request begins at. */
export function offsetOf({ headers }: Seen): number {
  return Number(/^bytes=(\d+)-$/.exec(headers.range ?? '')?.[1] ?? 0)
}

/** Begins the answer to a request for a blob; gives the bytes that are wanted. */
export function begin(registry: FakeRegistry, seen: Seen, response: ServerResponse, digest: string): Buffer {
  const bytes = registry.blobs.get(digest) ?? Buffer.alloc(0)
  const from = registry.ranges ? offsetOf(seen) : 0
  const rest = bytes.subarray(from)
  response.writeHead(from > 0 ? 206 : 200, {
    'content-length': rest.length,
    ...(from > 0 && { 'content-range': `bytes ${from}-${bytes.length - 1}/${bytes.length}` }),
  })
  return rest
}

/** Whether a request is for the bytes of a blob. */
export function wants({ method, url }: Seen, digest: string): boolean {
  return method === 'GET' && url.endsWith(`/blobs/${digest}`)
}

/** A blob whose end comes later. */
export interface Held {
  /** Its beginning was sent. */
  reached: Promise<void>
  /** Sends the rest of it, and of what is asked for from then on. */
  release: () => void
}

/** Sends a blob up to `most` bytes, and the rest once it is let go. Further requests are held as well. */
export function hold(registry: FakeRegistry, digest: string, most: number): Held {
  let release = (): void => {}
  let told = (): void => {}
  const reached = new Promise<void>((resolve) => (told = resolve))
  const released = new Promise<void>((resolve) => (release = resolve))
  const { fault } = registry
  registry.fault = async (seen, response) => {
    if (!wants(seen, digest)) return (await fault?.(seen, response)) ?? false
    const rest = begin(registry, seen, response, digest)
    const now = Math.max(0, most - (registry.ranges ? offsetOf(seen) : 0))
    if (now > 0) response.write(rest.subarray(0, now))
    else response.flushHeaders()
    told()
    await released
    response.end(rest.subarray(now))
    return true
  }
  return { reached, release }
}

/** How many requests for the bytes of a blob there were. */
export function requests(registry: FakeRegistry, digest: string): number {
  return registry.seen.filter((seen) => wants(seen, digest)).length
}

function names(directory: string, name: string): string[] {
  const path = join(directory, 'data', name)
  return existsSync(path) ? readdirSync(path).toSorted() : []
}

/** What is in the store below `directory`. */
export function stored(directory: string): Record<'layers' | 'unpacking' | 'ingest' | 'blobs', string[]> {
  return {
    layers: names(directory, 'layers'),
    unpacking: names(directory, 'unpacking'),
    ingest: names(directory, 'ingest'),
    blobs: names(directory, 'images/blobs/sha256'),
  }
}

/** How many bytes of a blob are there already. */
export function arrived(directory: string, digest: string): number {
  const path = join(directory, 'data/ingest', digest.slice('sha256:'.length))
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0
}

/** Waits until so many bytes of a blob are in the store. */
export async function until(what: () => boolean, said: string): Promise<void> {
  for (let look = 0; look < 4000; look += 1) {
    if (what()) return
    await sleep(5)
  }
  throw new Error(`${said}: it did not happen within 20 s`)
}

interface Descriptor {
  digest: string
  size: number
  annotations?: Record<string, string>
}

/** The names in the store's index. */
export function named(directory: string): string[] {
  const path = join(directory, 'data/images/index.json')
  if (!existsSync(path)) return []
  const { manifests } = JSON.parse(readFileSync(path, 'utf8')) as { manifests: Descriptor[] }
  return manifests.flatMap(({ annotations }) => annotations?.['org.opencontainers.image.ref.name'] ?? [])
}

function blobIn(directory: string, { digest, size }: Descriptor): Buffer {
  const bytes = readFileSync(layouts.path(join(directory, 'data/images'), digest))
  if (bytes.length !== size || layouts.sha256(bytes) !== digest)
    throw new Error(`${digest} is not what it says`)
  return bytes
}

/** Throws unless the store is whole: all that has a name is there and hashes right, each layer has its mark. */
export function whole(directory: string): void {
  const path = join(directory, 'data/images/index.json')
  const { manifests } = (existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')) : { manifests: [] }) as {
    manifests: Descriptor[]
  }
  const known = new Set<string>()
  for (const entry of manifests) {
    const manifest = JSON.parse(blobIn(directory, entry).toString()) as {
      config: Descriptor
      layers: Descriptor[]
    }
    for (const blob of [manifest.config, ...manifest.layers]) {
      if (!known.has(blob.digest)) blobIn(directory, blob)
      known.add(blob.digest)
    }
  }
  for (const chain of names(directory, 'layers')) {
    const mark = readFileSync(join(directory, 'data/layers', chain, 'layer.json'), 'utf8')
    if (!/^sha256:[a-f0-9]{64}$/.test((JSON.parse(mark) as { diffId: string }).diffId)) throw new Error(mark)
  }
}

/** Another Node that does something with an engine of the same roots, `engine`. */
export function program(directory: string, body: string): ChildProcess {
  const script = join(directory, `program-${process.hrtime.bigint()}.mjs`)
  const source = new URL('../../src/container/engine.ts', import.meta.url).href
  const roots = JSON.stringify({ root: join(directory, 'data'), runRoot: join(directory, 'run') })
  writeFileSync(
    script,
    `import { Engine } from '${source}'\nconst engine = new Engine(${roots})\n${body}\nawait engine.close()\n`,
  )
  return spawn(process.execPath, [script], { stdio: ['ignore', 'pipe', 'pipe'] })
}

/** The processes that unpack. */
export function unpackers(): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/comm`, 'utf8') === 'caisson-unpack\n'
      } catch {
        // It ended while we looked.
        return false
      }
    })
    .map(Number)
}

export function parentOf(pid: number): number {
  return Number(/^PPid:\s+(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1])
}

/** The digest of the one layer at this place. */
export function layerOf({ layers }: layouts.WrittenImage, at: number): string {
  return layers[at]?.digest ?? ''
}
