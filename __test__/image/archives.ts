/** Archives of images made for tests: docker's in the forms that it wrote over the years, and layouts in a tar. */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { ExecutionContext } from 'ava'
import { makeBait, safe } from '../security/bait.ts'
import { sha256, tar } from './layouts.ts'
import type { Entry } from './layouts.ts'
import { engine, held, scratch } from './store.ts'

/** What says hello. */
export const hello: string[] = ['echo', 'hello']

/** A config of an image with these layers, as bytes. */
export function config(layers: readonly Buffer[], run: object = { Cmd: hello }, more: object = {}): string {
  return JSON.stringify({
    architecture: process.arch === 'x64' ? 'amd64' : process.arch,
    os: 'linux',
    config: run,
    rootfs: { type: 'layers', diff_ids: layers.map(sha256) },
    ...more,
  })
}

/** The hex digits of a digest. */
export function hex(bytes: Buffer | string): string {
  return sha256(bytes).slice('sha256:'.length)
}

export interface DockerImage {
  layers: readonly Buffer[]
  /** Default: `HEX.json`. */
  Config?: string
  Layers?: readonly string[]
  RepoTags?: readonly string[] | null
  config?: string
}

/** The entries of an archive as docker wrote it before 25, its `manifest.json` last. */
export function docker(images: readonly DockerImage[], ...more: Entry[]): Entry[] {
  const entries: Entry[] = []
  const manifest = images.map(({ layers, RepoTags = ['hello:1'], ...given }) => {
    const document = given.config ?? config(layers)
    const Config = given.Config ?? `${hex(document)}.json`
    entries.push({ name: Config, content: document })
    const Layers = layers.map((layer) => {
      const id = hex(`layer ${hex(layer)}`)
      entries.push({ name: `${id}/`, kind: '5' }, { name: `${id}/VERSION`, content: '1.0' })
      entries.push({ name: `${id}/layer.tar`, content: layer })
      return `${id}/layer.tar`
    })
    return { Config, RepoTags, Layers: given.Layers ?? Layers }
  })
  return [...entries, ...more, { name: 'manifest.json', content: JSON.stringify(manifest) }]
}

/** The entries of a directory. */
export function directory(path: string, prefix = ''): Entry[] {
  return readdirSync(join(path, prefix), { withFileTypes: true }).flatMap((entry): Entry[] => {
    const name = prefix + entry.name
    if (entry.isDirectory()) return [{ name: `${name}/`, kind: '5' }, ...directory(path, `${name}/`)]
    return [{ name, content: readFileSync(join(path, name)) }]
  })
}

/** Writes an archive, and answers where. */
export function archive(path: string, entries: readonly Entry[]): string {
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, tar(entries))
  return path
}

/** All that a load could have left below `directory`. */
export function remains(root: string): Record<string, unknown> {
  const data = join(root, 'data')
  const list = (name: string): string[] => (existsSync(join(data, name)) ? readdirSync(join(data, name)) : [])
  const index = join(data, 'images/index.json')
  return {
    ...held(root),
    spool: existsSync(join(data, 'spool')),
    blobs: list('images/blobs/sha256').length,
    names: existsSync(index)
      ? (JSON.parse(readFileSync(index, 'utf8')) as { manifests: [] }).manifests.length
      : 0,
  }
}

/** Nothing. */
export const nothing = { layers: 0, unpacking: 0, facts: 0, layouts: 0, spool: false, blobs: 0, names: 0 }

/** Loads what `make` makes; fails unless that is this error, the host untouched, and nothing left. */
export async function refusedLoad(
  t: ExecutionContext,
  code: string,
  make: (directory: string, bait: string) => Entry[],
): Promise<void> {
  const below = scratch(t)
  const file = archive(join(below, 'a.tar'), [])
  const bait = makeBait(below)
  writeFileSync(file, tar(make(below, bait)))
  const one = engine(t, below)
  await safe(t, bait, async () => {
    const error = await t.throwsAsync(one.images.load(file), { code })
    t.notRegex(error.message, /\p{Cc}/u)
    t.true(error.message.length < 1000)
  })
  t.deepEqual(remains(below), nothing)
}
