/**
 * What is known of images, below the data root:
 *
 *   images/                          what was pulled, an OCI image layout (content.ts)
 *   ingest/                          blobs on their way there (crates/core/src/ingest.rs)
 *   spool/ID/                        an archive that is being loaded (spool.ts)
 *   layers/CHAIN/{root/,layer.json}  a layer, whole and on the disk (crates/core/src/layers.rs makes them)
 *   facts/DIGEST.json                what a manifest of this digest came to, once verified
 *   layouts/KEY.json                 the same by layout and tag, for as long as the layout's index is the same file
 *   pairs/DIGEST.json                what a layer's blob inflates to, once that was seen
 *
 * The last three are answers that can be had again: what is cut of them is not there; facts alone are synced.
 */
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { native } from '../native.ts'
import { writeDurably } from '../state/durable.ts'
import type { ImageConfig } from './config.ts'
import type { Identity } from './layout.ts'
import type { LayoutReference } from './reference.ts'

/** What an image came to. */
export interface Facts {
  /** The manifest's digest. */
  digest: string
  /** The config's digest: docker's id of the image. */
  id: string
  config: ImageConfig
  /** The chain ids of the layers to mount, the topmost first. Those below one that hides them all are left out. */
  chains: readonly string[]
}

/** A layer in the store. */
export interface Layer {
  /** Whether it hides all layers below it. */
  opaque: boolean
  /** Bytes of its archive. */
  bytes: number
}

/** What a tag of a layout came to. */
export type LayoutRecord = Facts & LayoutReference & { identity: Identity }

/** The form of the records. */
const version = 2

function hex(digest: string): string {
  return digest.slice('sha256:'.length)
}

/** The chain ids of layers: each names a layer on all those below it (OCI image spec, config.md). */
export function chainIds(diffIds: readonly string[]): readonly string[] {
  let chain = ''
  return diffIds.map((diffId) => {
    chain = chain === '' ? diffId : native().addon.sha256(Buffer.from(`${chain} ${diffId}`))
    return hex(chain)
  })
}

let serial = 0

/** How old what was written aside is when whoever wrote it is gone, ms. */
const stale = 60_000

function codeOf(error: unknown): unknown {
  return error instanceof Error && 'code' in error ? error.code : undefined
}

/** A record that cannot be written is an answer that is looked for again. */
function write(path: string, value: object, durable = false): void {
  const aside = `${path}.${process.pid}-${Date.now()}-${(serial += 1)}`
  const record = JSON.stringify({ version, ...value })
  try {
    if (durable) writeDurably(path, record)
    else {
      writeFileSync(aside, record, { mode: 0o600, flag: 'wx' })
      renameSync(aside, path)
    }
  } catch {
    rmSync(aside, { force: true })
  }
  const directory = dirname(path)
  for (const name of readdirSync(directory).filter((one) => !one.endsWith('.json'))) {
    const at = join(directory, name)
    const known = statSync(at, { throwIfNoEntry: false })
    if (known !== undefined && known.mtimeMs < Date.now() - stale) rmSync(at, { force: true })
  }
}

/**
 * A record is ours, in a directory that nobody else can write. One of another version says nothing, nor does one that is
 * cut; that one cannot be read now does not mean that it is not there.
 */
function read(path: string): object | undefined {
  try {
    const value: unknown = JSON.parse(readFileSync(path, 'utf8'))
    return typeof value === 'object' && value !== null && 'version' in value && value.version === version
      ? value
      : undefined
  } catch (error) {
    if (error instanceof SyntaxError || codeOf(error) === 'ENOENT') return undefined
    throw error
  }
}

/** The complete paths of the records in a directory. */
function files(directory: string): string[] {
  return existsSync(directory)
    ? readdirSync(directory).flatMap((name) => (name.endsWith('.json') ? [join(directory, name)] : []))
    : []
}

/** The records of one data root. */
export class ImageStore {
  readonly #root: string
  #made = false

  constructor(root: string) {
    this.#root = root
  }

  /** Where a layer is, or would be. */
  place(chain: string): string {
    return join(this.#root, 'layers', chain)
  }

  /** The directory that is mounted for a layer. */
  tree(chain: string): string {
    return join(this.place(chain), 'root')
  }

  /** A layer, if it is there. */
  layer(chain: string): Layer | undefined {
    try {
      const mark = JSON.parse(readFileSync(join(this.place(chain), 'layer.json'), 'utf8')) as Layer
      const { opaque, bytes } = mark
      return typeof opaque === 'boolean' && typeof bytes === 'number' ? { opaque, bytes } : undefined
    } catch {
      return undefined
    }
  }

  /** Whether something stands at a layer's place that is no layer: its mark cannot be read, or its tree is gone. */
  isBroken(chain: string): boolean {
    const isThere = (path: string): boolean => statSync(path, { throwIfNoEntry: false }) !== undefined
    return isThere(this.place(chain)) && (this.layer(chain) === undefined || !isThere(this.tree(chain)))
  }

  /** Throws a layer away that nobody uses: at once it is not there any more, and the shim removes it. */
  discard(chain: string): void {
    const trash = join(this.#root, 'trash')
    mkdirSync(trash, { recursive: true, mode: 0o700 })
    renameSync(this.place(chain), join(trash, `${chain}-${process.pid}-${Date.now()}`))
  }

  /** All layers that are there. */
  layers(): (Layer & { chain: string })[] {
    const directory = join(this.#root, 'layers')
    return (existsSync(directory) ? readdirSync(directory) : []).flatMap((chain) => {
      const layer = this.layer(chain)
      return layer === undefined ? [] : [{ chain, ...layer }]
    })
  }

  /** Whether all layers of an image are there. */
  has({ chains }: Facts): boolean {
    return chains.every((chain) => statSync(this.tree(chain), { throwIfNoEntry: false }) !== undefined)
  }

  /** As {@link has}, and whether each is a layer: dearer, since each mark is read. */
  isWhole({ chains }: Facts): boolean {
    return chains.every((chain) => this.layer(chain) !== undefined && !this.isBroken(chain))
  }

  /** A directory with nothing in it, for an image without layers. */
  empty(): string {
    const path = join(this.#root, 'layers', 'empty')
    mkdirSync(path, { recursive: true, mode: 0o755 })
    return path
  }

  /** What a manifest came to. */
  image(digest: string): Facts | undefined {
    return read(this.#facts(digest)) as Facts | undefined
  }

  /** What a tag of a layout came to when its index was this one. */
  layout(reference: LayoutReference, identity: Identity): Facts | undefined {
    const record = read(this.#layout(reference)) as LayoutRecord | undefined
    const { directory, tag } = reference
    const same = record?.identity === identity && record.directory === directory && record.tag === tag
    return same ? record : undefined
  }

  /** All that is known of layouts: their files' names, and what they say. */
  layouts(): { path: string; record: LayoutRecord }[] {
    return files(join(this.#root, 'layouts')).flatMap((path) => {
      const record = read(path) as LayoutRecord | undefined
      return record === undefined ? [] : [{ path, record }]
    })
  }

  /** What is known of layouts elsewhere. */
  records(): LayoutRecord[] {
    return this.layouts().map(({ record }) => record)
  }

  /** The files of all facts, and whose they are. */
  allFacts(): { path: string; digest: string }[] {
    return this.#named('facts')
  }

  remember(facts: Facts): void {
    this.#make()
    write(this.#facts(facts.digest), facts, true)
  }

  /** Whether a blob was seen to inflate to this. */
  isPair(digest: string, diffId: string): boolean {
    if (digest === diffId) return true
    const record: { diffId?: unknown } | undefined = read(this.#pair(digest))
    return record?.diffId === diffId
  }

  rememberPair(digest: string, diffId: string): void {
    if (this.isPair(digest, diffId)) return
    this.#make()
    write(this.#pair(digest), { diffId })
  }

  /** The files of all pairs, and whose they are. */
  pairs(): { path: string; digest: string }[] {
    return this.#named('pairs')
  }

  /**
   * An image is used now: the time of its facts says so, or of one that is not unpacked that of its manifest. One call or
   * two, and nothing is written.
   */
  touch(digest: string): void {
    const now = Date.now() / 1000
    for (const path of [this.#facts(digest), this.#manifest(digest)]) {
      try {
        return utimesSync(path, now, now)
      } catch {
        // What is gone says nothing.
      }
    }
  }

  /** When an image was last used, ms since 1970; 0 where nothing says so. */
  lastUsed(digest: string): number {
    const [known] = [this.#facts(digest), this.#manifest(digest)].flatMap(
      (path) => statSync(path, { throwIfNoEntry: false }) ?? [],
    )
    return known?.mtimeMs ?? 0
  }

  #named(directory: string): { path: string; digest: string }[] {
    return files(join(this.#root, directory)).map((path) => ({
      path,
      digest: `sha256:${path.slice(path.lastIndexOf('/') + 1, -'.json'.length)}`,
    }))
  }

  rememberLayout(reference: LayoutReference, identity: Identity, facts: Facts): void {
    this.#make()
    write(this.#layout(reference), { ...facts, ...reference, identity })
  }

  #make(): void {
    if (this.#made) return
    for (const name of ['facts', 'layouts', 'pairs'])
      mkdirSync(join(this.#root, name), { recursive: true, mode: 0o700 })
    this.#made = true
  }

  #facts(digest: string): string {
    return join(this.#root, 'facts', `${hex(digest)}.json`)
  }

  #manifest(digest: string): string {
    return join(this.#root, 'images/blobs/sha256', hex(digest))
  }

  #pair(digest: string): string {
    return join(this.#root, 'pairs', `${hex(digest)}.json`)
  }

  #layout({ directory, tag }: LayoutReference): string {
    const key = native().addon.sha256(Buffer.from(`${directory}\0${tag ?? ''}`))
    return join(this.#root, 'layouts', `${hex(key)}.json`)
  }
}
