/**
 * Garbage collection: what no name, no layout and no container needs is thrown away. It decides by what is there, under a
 * lock that pulls share, and holds the topmost layer of what it takes, as containers do; what it takes is renamed at once
 * and removed later, so that a crash leaves a whole image or none.
 */
import { existsSync, readdirSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { CaissonError } from '../errors.ts'
import { tryLockDirectory } from '../state/lock.ts'
import type { Lock } from '../state/lock.ts'
import { parseConfig } from './config.ts'
import type { Content, Entry } from './content.ts'
import { identify } from './layout.ts'
import { isIndex } from './manifest.ts'
import type { Member } from './platforms.ts'
import { chainIds } from './store.ts'
import type { Facts, ImageStore } from './store.ts'

/** What was thrown away. */
export interface Collected {
  layers: number
  blobs: number
  /** Of layers as archives, and of blobs. */
  bytes: number
}

/** What is collected. */
export interface CollectOptions {
  /** Also what only layouts elsewhere need, which can be had from there again. Default false. */
  layouts?: boolean
  /** Also the compressed blobs of layers that are unpacked: a push or a save needs the image pulled again. Default false. */
  blobs?: boolean
}

/** Wanted while a pull was at work: done by whoever ends last. */
const postponed = 'collect-wanted'

class Collector {
  readonly #root: string
  readonly #content: Content
  readonly #store: ImageStore
  readonly #options: CollectOptions
  readonly #chains = new Set<string>()
  readonly #facts = new Set<string>()
  readonly #blobs = new Set<string>()
  readonly #locks: Lock[] = []
  /** Whether a manifest is missing or cannot be read: what it needs is not known. */
  #isDamaged = false
  /** Topmost layers that are held here: no container has them. */
  readonly #held = new Set<string>()
  /** Whether a container uses a layer, and nothing says which are below it. */
  #isUnsure = false
  readonly #done: Collected = { layers: 0, blobs: 0, bytes: 0 }

  constructor(root: string, content: Content, store: ImageStore, options: CollectOptions) {
    this.#root = root
    this.#content = content
    this.#store = store
    this.#options = options
  }

  run(): Collected {
    try {
      this.#markNamed()
      this.#markLayouts()
      this.#markRunning()
      this.#holdLayers()
      this.#sweepFacts()
      this.#sweepLayers()
      this.#sweepBlobs()
      return this.#done
    } finally {
      for (const lock of this.#locks) lock.release()
    }
  }

  #mark(facts: Facts | undefined): void {
    if (facts === undefined) return
    this.#facts.add(facts.digest)
    for (const chain of facts.chains) this.#chains.add(chain)
  }

  #markNamed(): void {
    const unpacked = new Set(this.#store.allFacts().map(({ digest }) => digest))
    for (const entry of this.#content.entries()) {
      this.#blobs.add(entry.digest)
      if (entry.served !== undefined) this.#blobs.add(entry.served)
      for (const digest of [entry.digest, ...this.#content.listed(entry)]) {
        this.#facts.add(digest)
        this.#mark(this.#store.image(digest))
      }
      for (const member of this.#members(entry)) {
        this.#markMember(member)
        // Of an index some platforms were never unpacked, and have no layers of their own.
        if (!isIndex(entry) || entry.pruned === true || unpacked.has(member.entry.digest))
          for (const chain of this.#needed(member)) this.#chains.add(chain)
      }
    }
  }

  /** One that is damaged comes again by a pull, and what it needs is kept until then. */
  #members(entry: Entry): readonly Member[] {
    const listed = new Set(this.#content.listed(entry))
    try {
      const members = this.#content.members(entry)
      if (members.length < listed.size) this.#isDamaged = true
      return members
    } catch (error) {
      if (!(error instanceof CaissonError)) throw error
      this.#isDamaged = true
      // Whose layers these are, the index would say.
      if (isIndex(entry) && listed.size === 0)
        for (const { digest } of this.#store.allFacts()) this.#mark(this.#store.image(digest))
      return []
    }
  }

  #markMember({ entry: { digest }, manifest, blobs }: Member): void {
    const unpacked = this.#store.image(digest)
    this.#blobs.add(digest)
    const spared = this.#options.blobs === true && unpacked !== undefined && this.#store.has(unpacked)
    const wanted = spared && manifest !== undefined ? [manifest.config] : blobs
    for (const blob of wanted) this.#blobs.add(blob.digest)
  }

  /** The layers of an image, whatever is remembered of it: down to one that hides those below. */
  #needed({ manifest }: Member): string[] {
    if (manifest === undefined) return []
    const { config, layers } = manifest
    try {
      const bytes = this.#content.layout.config(config)
      const { diffIds } = parseConfig(bytes, `config ${config.digest}`, layers.length, null)
      const chains = chainIds(diffIds).toReversed()
      const last = chains.findIndex((chain) => this.#store.layer(chain)?.opaque === true)
      return last < 0 ? chains : chains.slice(0, last + 1)
    } catch (error) {
      if (!(error instanceof CaissonError)) throw error
      // Without its config it is pulled again, with what is not here by then.
      return []
    }
  }

  /** A layout that is gone or changed can no longer be meant; one of ours says nothing that the index does not. */
  #markLayouts(): void {
    for (const { path, record } of this.#store.layouts()) {
      const same = identify(record.directory)?.identity === record.identity
      const ours = record.directory === this.#content.directory
      if (same && (ours || this.#options.layouts !== true)) {
        if (!ours) this.#mark(record)
      } else rmSync(path, { force: true })
    }
  }

  /** An image of which a container runs stays. Of any other the topmost layer is held, so that none begins. */
  #markRunning(): void {
    const held = this.#held
    for (const { digest } of this.#store.allFacts()) {
      if (this.#facts.has(digest)) continue
      const facts = this.#store.image(digest)
      const [top] = facts?.chains ?? []
      // Images that differ in their configs alone have one topmost layer: our own lock on it is no container's.
      if (facts === undefined || top === undefined || held.has(top)) continue
      const lock = tryLockDirectory(join(this.#root, 'layers', top))
      if (lock === undefined) this.#mark(facts)
      else if (lock !== null) {
        held.add(top)
        this.#locks.push(lock)
      }
    }
  }

  /**
   * Every layer that is to go is held, too: of an image whose facts are gone a container may stand on any. Those below that
   * one stay with it; where nothing says which these are, all do.
   */
  #holdLayers(): void {
    const going = this.#unmarked().filter((chain) => !this.#held.has(chain))
    const used: string[] = []
    for (const chain of going) {
      const lock = tryLockDirectory(this.#store.place(chain))
      if (lock === undefined) used.push(chain)
      else if (lock !== null) this.#locks.push(lock)
    }
    if (used.length === 0) return
    const known = [
      ...this.#store.allFacts().map(({ digest }) => this.#store.image(digest)),
      ...this.#store.records(),
    ]
    for (const top of used) {
      const facts = known.find((one) => one?.chains.includes(top))
      if (facts === undefined) this.#isUnsure = true
      else for (const chain of facts.chains.slice(facts.chains.indexOf(top))) this.#chains.add(chain)
    }
  }

  /** The layers that nothing needs as far as is known. */
  #unmarked(): string[] {
    const layers = join(this.#root, 'layers')
    const all = existsSync(layers) ? readdirSync(layers) : []
    return all.filter((chain) => chain !== 'empty' && !this.#chains.has(chain))
  }

  #sweepFacts(): void {
    for (const { path, digest } of this.#store.allFacts())
      if (!this.#facts.has(digest)) rmSync(path, { force: true })
  }

  #sweepLayers(): void {
    if (this.#isUnsure) return
    for (const chain of this.#unmarked()) {
      this.#done.bytes += this.#store.layer(chain)?.bytes ?? 0
      this.#done.layers += 1
      this.#store.discard(chain)
    }
  }

  #sweepBlobs(): void {
    if (this.#isDamaged) return
    for (const { digest, size, path } of this.#content.blobs()) {
      if (this.#blobs.has(digest)) continue
      rmSync(path, { force: true })
      this.#done.blobs += 1
      this.#done.bytes += size
    }
    const kept = new Set(this.#content.blobs().map(({ digest }) => digest))
    for (const { path, digest } of this.#store.pairs()) if (!kept.has(digest)) rmSync(path, { force: true })
  }
}

/** Collects, for who has the lock of {@link Content.collect}. */
export function collectHeld(
  root: string,
  content: Content,
  store: ImageStore,
  options: CollectOptions,
): Collected {
  content.unnote(postponed)
  return new Collector(root, content, store, options).run()
}

/**
 * Collects; undefined while somebody pulls, who does it at the end. What was taken stands in `trash/`, for the shim to
 * remove.
 */
export function collect(
  root: string,
  content: Content,
  store: ImageStore,
  options: CollectOptions = {},
): Collected | undefined {
  const lock = content.collect()
  if (lock === undefined) {
    content.note(postponed)
    return undefined
  }
  try {
    return collectHeld(root, content, store, options)
  } finally {
    lock.release()
  }
}

/** Whether somebody wanted to collect while a pull was at work. */
export function isPostponed(root: string): boolean {
  return statSync(join(root, postponed), { throwIfNoEntry: false }) !== undefined
}
