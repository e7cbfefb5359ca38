/** OCI image layouts made for tests: tar archives and documents, right ones and wrong ones. */
import { createHash } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'

/** An entry of a layer. */
export interface Entry {
  name: string
  /** A file with this content; absent: by `kind`. */
  content?: Buffer | string
  /** Of tar(5): `5` directory, `2` symbolic link, `1` hard link, `3` and `4` devices. Default `0`, a file. */
  kind?: '0' | '1' | '2' | '3' | '4' | '5'
  mode?: number
  uid?: number
  gid?: number
  link?: string
  device?: [number, number]
}

function octal(value: number, length: number): string {
  return `${value.toString(8).padStart(length - 1, '0')}\0`
}

function header(entry: Entry, size: number): Buffer {
  const block = Buffer.alloc(512)
  const put = (text: string, at: number): void => {
    block.write(text, at, 'latin1')
  }
  put(entry.name, 0)
  put(octal(entry.mode ?? (entry.kind === '5' ? 0o755 : 0o644), 8), 100)
  put(octal(entry.uid ?? 0, 8), 108)
  put(octal(entry.gid ?? 0, 8), 116)
  put(octal(size, 12), 124)
  put(octal(1_000_000_000, 12), 136)
  put('        ', 148)
  put(entry.kind ?? '0', 156)
  put(entry.link ?? '', 157)
  put('ustar\x0000', 257)
  put(octal(entry.device?.[0] ?? 0, 8), 329)
  put(octal(entry.device?.[1] ?? 0, 8), 337)
  put(
    `${octal(
      block.reduce((sum, byte) => sum + byte, 0),
      7,
    )} `,
    148,
  )
  return block
}

/** A tar archive. */
export function tar(entries: readonly Entry[]): Buffer {
  const parts = entries.flatMap((entry) => {
    const content = Buffer.from(entry.content ?? '')
    return [header(entry, content.length), content, Buffer.alloc((512 - (content.length % 512)) % 512)]
  })
  // The end mark, and what fills GNU tar's record: nobody's entry, but part of the digest.
  return Buffer.concat([...parts, Buffer.alloc(10_240)])
}

/** busybox and its links, the base of images that run. */
export function busybox(...more: Entry[]): Buffer {
  const commands = [
    'cat',
    'id',
    'ls',
    'pwd',
    'env',
    'sh',
    'sleep',
    'stat',
    'true',
    'touch',
    'head',
    'echo',
    'readlink',
  ]
  return tar([
    { name: 'bin/', kind: '5' },
    { name: 'bin/busybox', mode: 0o755, content: readFileSync('/bin/busybox') },
    ...commands.map((name): Entry => ({ name: `bin/${name}`, kind: '2', link: 'busybox' })),
    ...more,
  ])
}

export function sha256(bytes: Buffer | string): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`
}

/** A descriptor as it stands in a document. */
export interface Written {
  mediaType: string
  digest: string
  size: number
}

/** Puts a blob into a layout. */
export function blob(directory: string, bytes: Buffer | string, mediaType: string): Written {
  const digest = sha256(bytes)
  mkdirSync(join(directory, 'blobs/sha256'), { recursive: true })
  writeFileSync(path(directory, digest), bytes)
  return { mediaType, digest, size: Buffer.from(bytes).length }
}

/** Where a blob lies. */
export function path(directory: string, digest: string): string {
  return join(directory, 'blobs', digest.replace(':', '/'))
}

export const types = {
  index: 'application/vnd.oci.image.index.v1+json',
  manifest: 'application/vnd.oci.image.manifest.v1+json',
  config: 'application/vnd.oci.image.config.v1+json',
  layer: 'application/vnd.oci.image.layer.v1.tar',
  gzip: 'application/vnd.oci.image.layer.v1.tar+gzip',
}

/** What an image is made of. */
export interface ImageOptions {
  layers: readonly Buffer[]
  /** The config's `config`. */
  config?: Record<string, unknown>
  /** More of the config itself. */
  document?: Record<string, unknown>
  /** More of the manifest. */
  manifest?: Record<string, unknown>
  compress?: boolean | 'best'
}

/** What was written of an image. */
export interface WrittenImage {
  manifest: Written
  config: Written
  layers: Written[]
}

/** Puts an image into a layout, without a tag. */
export function image(directory: string, options: ImageOptions): WrittenImage {
  const layers = options.layers.map((layer) =>
    options.compress !== undefined && options.compress !== false
      ? blob(directory, gzipSync(layer, { level: options.compress === 'best' ? 9 : 1 }), types.gzip)
      : blob(directory, layer, types.layer),
  )
  const document = {
    architecture: process.arch === 'x64' ? 'amd64' : process.arch,
    os: 'linux',
    config: options.config ?? {},
    rootfs: { type: 'layers', diff_ids: options.layers.map(sha256) },
    ...options.document,
  }
  const config = blob(directory, JSON.stringify(document), types.config)
  const manifest = blob(
    directory,
    JSON.stringify({ schemaVersion: 2, mediaType: types.manifest, config, layers, ...options.manifest }),
    types.manifest,
  )
  return { manifest, config, layers }
}

/** Writes the index of a layout, with these entries by tag. */
export function index(directory: string, entries: Record<string, object>): void {
  mkdirSync(directory, { recursive: true })
  writeFileSync(join(directory, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}')
  const manifests = Object.entries(entries).map(([tag, descriptor]) => ({
    ...descriptor,
    ...(tag !== '' && { annotations: { 'org.opencontainers.image.ref.name': tag } }),
  }))
  writeFileSync(join(directory, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests }))
}

/** A layout with one image. */
export function layout(directory: string, options: ImageOptions, tag = 'latest'): WrittenImage {
  const written = image(directory, options)
  index(directory, { [tag]: written.manifest })
  return written
}
