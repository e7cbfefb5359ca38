/** A store held against what it should be: each blob, each layer's tree, and what another program reads of it. */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'
import * as layouts from './layouts.ts'
import { named, stored, whole } from './published.ts'

/** A tree, a line an entry: kind and mode, owner, links, content; of what is no directory the time too. */
function tree(root: string): string[] {
  return readdirSync(root, { recursive: true, withFileTypes: true })
    .map((entry) => {
      const path = join(entry.parentPath, entry.name)
      const { mode, uid, gid, nlink, mtimeMs } = lstatSync(path)
      const shown = `${path.slice(root.length + 1)} ${mode.toString(8)} ${uid}:${gid}`
      if (entry.isDirectory()) return shown
      const content = entry.isSymbolicLink()
        ? readlinkSync(path)
        : createHash('sha256').update(readFileSync(path)).digest('hex')
      return `${shown} ${nlink} ${mtimeMs} ${content}`
    })
    .toSorted()
}

/** The trees of all layers of a store that have their mark, by chain id. */
export function trees(directory: string): Map<string, string[]> {
  const layers = join(directory, 'data/layers')
  return new Map(stored(directory).layers.map((chain) => [chain, tree(join(layers, chain, 'root'))]))
}

/** What a store without a fault has. */
export interface Right {
  /** By chain id. */
  trees: ReadonlyMap<string, readonly string[]>
  /** The blobs' digests. */
  blobs: readonly string[]
}

/** What is in a store that nothing happened to. */
export function rightOf(directory: string): Right {
  whole(directory)
  return { trees: trees(directory), blobs: stored(directory).blobs }
}

/**
 * Throws unless each blob of a store has the bytes that its name says and is one of the right ones, each layer with a mark
 * has the right tree, and skopeo reads each image that has a name, layers and all.
 */
export function judge(directory: string, right: Right): void {
  whole(directory)
  const images = join(directory, 'data/images')
  for (const name of stored(directory).blobs) {
    if (!right.blobs.includes(name)) throw new Error(`blob ${name} is nobody's`)
    const found = layouts.sha256(readFileSync(join(images, 'blobs/sha256', name)))
    if (found !== `sha256:${name}`) throw new Error(`blob ${name} has the digest ${found}`)
  }
  for (const [chain, lines] of trees(directory)) {
    const expected = right.trees.get(chain)
    if (expected === undefined) throw new Error(`layer ${chain} is nobody's`)
    const differing = lines.find((line, at) => line !== expected[at]) ?? expected[lines.length]
    if (differing !== undefined) throw new Error(`layer ${chain}: ${differing}`)
  }
  for (const name of named(directory)) readBySkopeo(directory, name)
}

/** Has skopeo copy an image of a store, which reads every byte of it. */
function readBySkopeo(directory: string, name: string): void {
  const copy = join(directory, 'copy')
  const [from, to] = [`oci:${join(directory, 'data/images')}:${name}`, `dir:${copy}`]
  execFileSync('skopeo', ['--insecure-policy', 'copy', '--quiet', from, to], { stdio: 'pipe' })
  execFileSync('rm', ['-rf', copy])
}

/** What is there of the layers' blobs: whether they are whole, and else how many bytes of them are kept. */
export function had(directory: string): Map<string, 'whole' | number> {
  const found = new Map<string, 'whole' | number>()
  const { ingest, blobs } = stored(directory)
  for (const name of ingest) {
    const path = join(directory, 'data/ingest', name)
    if (existsSync(path)) found.set(`sha256:${name}`, lstatSync(path).size)
  }
  for (const name of blobs) found.set(`sha256:${name}`, 'whole')
  return found
}
