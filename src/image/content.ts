/**
 * What was pulled, loaded or made: an OCI image layout that other tools read too, `images/` below the data root. Its
 * index says which images have which names; one without a name is dangling. Whoever changes it holds the lock.
 */
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { CaissonError } from '../errors.ts'
import { syncDirectory, writeDurably } from '../state/durable.ts'
import { lock, tryLock } from '../state/lock.ts'
import type { Lock } from '../state/lock.ts'
import { field, text } from './document.ts'
import { Layout } from './layout.ts'
import { isIndex } from './manifest.ts'
import type { Descriptor, IndexEntry, Platform } from './manifest.ts'
import { indexOf, listedIn, memberIn } from './platforms.ts'
import type { Member } from './platforms.ts'

/** A name of an image, or an image without one: a manifest, or the index of one with all its platforms. */
export interface Entry extends Descriptor {
  platform: Platform | undefined
  /** The whole name, `docker.io/library/debian:12`; none: it is dangling. */
  name: string | undefined
  /** What a registry calls it under this name: its digest, or that of the index which it came from. */
  served: string | undefined
  /** Whether the blobs of its layers were removed because somebody wanted that: that they are missing is no damage. */
  pruned?: boolean
}

const annotations = {
  name: 'org.opencontainers.image.ref.name',
  /** containerd's. */
  fullName: 'io.containerd.image.name',
  served: 'dev.caisson.served',
  pruned: 'dev.caisson.pruned',
} as const

const blobs = 'blobs/sha256'

function entryOf(entry: IndexEntry): Entry {
  const { mediaType, digest, size, platform, name } = entry
  const served =
    entry.annotations && text(entry.annotations, annotations.served, 255, 'index.json annotations')
  const pruned = entry.annotations !== undefined && field(entry.annotations, annotations.pruned) === 'true'
  return { mediaType, digest, size, platform, name, served, ...(pruned && { pruned }) }
}

function written({ mediaType, digest, size, platform, name, served, pruned }: Entry): object {
  const notes = {
    ...(name !== undefined && { [annotations.name]: name, [annotations.fullName]: name }),
    ...(served !== undefined && { [annotations.served]: served }),
    ...(pruned === true && { [annotations.pruned]: 'true' }),
  }
  return {
    mediaType,
    digest,
    size,
    ...(platform !== undefined && { platform }),
    ...(Object.keys(notes).length > 0 && { annotations: notes }),
  }
}

/** What is read of documents; undefined where one is missing or damaged. */
function orDamaged<Value>(read: () => Value): Value | undefined {
  try {
    return read()
  } catch (error) {
    if (error instanceof CaissonError) return undefined
    throw error
  }
}

/** The images below one data root. */
export class Content {
  readonly directory: string
  readonly layout: Layout
  readonly #root: string

  constructor(root: string) {
    this.#root = root
    this.directory = join(root, 'images')
    this.layout = new Layout(this.directory)
  }

  /** All names and all dangling images; the newest last. */
  entries(): Entry[] {
    return existsSync(join(this.directory, 'index.json')) ? this.layout.entries().map(entryOf) : []
  }

  /** The image of this name. */
  entry(name: string): Entry | undefined {
    return this.entries().find((entry) => entry.name === name)
  }

  /** What an entry leads to: itself, or what of its index is here. */
  members(entry: Entry): readonly Member[] {
    const listed = listedIn(this.layout, entry)
    const here = isIndex(entry) ? listed.filter(({ digest, size }) => this.has(digest, size)) : listed
    return here.map((one) => memberIn(this.layout, one))
  }

  /** As {@link members}; what is damaged is not here. */
  undamaged(entry: Entry): readonly Member[] {
    return (orDamaged(() => listedIn(this.layout, entry)) ?? []).flatMap(
      (one) => orDamaged(() => memberIn(this.layout, one)) ?? [],
    )
  }

  /** What an entry leads to and is not here: entries of its index, and blobs of those that are, each with its entry. */
  missing(entry: Member['entry']): { entry: Member['entry']; digest: string }[] {
    return listedIn(this.layout, entry).flatMap((one) => {
      const wanted = this.has(one.digest, one.size) ? memberIn(this.layout, one).blobs : [one]
      return wanted
        .filter(({ digest, size }) => !this.has(digest, size))
        .map(({ digest }) => ({ entry: one, digest }))
    })
  }

  /** Whether a manifest of it is missing or damaged: which blobs it needs is not known then. */
  isDamaged(entry: Entry): boolean {
    const members = orDamaged(() => this.members(entry))
    return members === undefined || members.length < new Set(this.listed(entry)).size
  }

  /** A document, if it is here and undamaged. */
  document(descriptor: Descriptor, most: number): Buffer | undefined {
    return orDamaged(() => this.layout.blob(descriptor, most, descriptor.digest))
  }

  /** Whether all of an image is here, in its size, on all its platforms: nothing but its manifests is read. */
  isWhole(entry: Entry): boolean {
    const { served, digest } = entry
    if (served !== undefined && served !== digest && !existsSync(this.path(served))) return false
    return orDamaged(() => this.missing(entry).length === 0) ?? false
  }

  /** Changes the index while nobody else does. */
  async change(change: (entries: Entry[]) => Entry[], signal?: AbortSignal): Promise<void> {
    const held = await this.#lock('lock', 'exclusive', signal)
    try {
      const manifests = change(this.entries()).map(written)
      const index = { schemaVersion: 2, mediaType: 'application/vnd.oci.image.index.v1+json', manifests }
      writeDurably(join(this.directory, 'index.json'), JSON.stringify(index))
    } finally {
      held.release()
    }
  }

  /**
   * Gives an image a name. What had it is dangling from then on, if it has no other; what is dangling and gets a name
   * is so no more.
   */
  async name(given: Entry, signal?: AbortSignal): Promise<void> {
    await this.nameAll([given], signal)
  }

  /**
   * As {@link name}, several at once: all have their names then, or none. Of two for one name the last has it. A function
   * is given what is there, while nobody else changes it.
   */
  async nameAll(
    named: readonly Entry[] | ((entries: readonly Entry[]) => readonly Entry[]),
    signal?: AbortSignal,
  ): Promise<void> {
    await this.change((entries) => {
      const given = typeof named === 'function' ? named(entries) : named
      const last = new Map(given.map((entry) => [entry.name ?? entry, entry]))
      const bare = (entry: Entry): Entry =>
        entry.name !== undefined && last.has(entry.name)
          ? { ...entry, name: undefined, served: undefined }
          : entry
      const outdone = given.filter((entry) => last.get(entry.name ?? entry) !== entry)
      return this.#withoutIdle([...entries.map(bare), ...outdone.map(bare), ...last.values()])
    }, signal)
  }

  /** Of an image without a name one entry is enough, and none if it has a name, or is in an index that has one. */
  #withoutIdle(entries: Entry[]): Entry[] {
    const named = entries.filter(({ name }) => name !== undefined)
    const known = new Set(named.flatMap((entry) => [entry.digest, ...this.listed(entry)]))
    return entries.filter(({ name, digest }) => {
      if (name !== undefined) return true
      if (known.has(digest)) return false
      known.add(digest)
      return true
    })
  }

  /** The manifests that an index lists, and nothing of what is none. One that is damaged lists nothing here. */
  listed(entry: Entry): string[] {
    return orDamaged(() => indexOf(this.layout, entry))?.manifests.map(({ digest }) => digest) ?? []
  }

  /** A blob that is small and whole; its bytes were verified. */
  put(digest: string, bytes: Uint8Array): void {
    this.#make()
    const path = this.path(digest)
    // One of the right size may be damaged.
    if (this.has(digest, bytes.length) && readFileSync(path).equals(bytes)) return
    writeDurably(path, bytes, false)
  }

  /** As {@link put}, for one that lies in a file of the same file system: it is moved here. */
  async adopt(digest: string, size: number, path: string): Promise<void> {
    this.#make()
    if (this.has(digest, size)) return
    const file = await open(path, 'r')
    try {
      await file.sync()
    } finally {
      await file.close()
    }
    renameSync(path, this.path(digest))
  }

  /** What was put is there after a crash, too. */
  sync(): void {
    syncDirectory(join(this.directory, blobs))
  }

  /** Whether a blob is there, in its size. */
  has(digest: string, size: number): boolean {
    return statSync(this.path(digest), { throwIfNoEntry: false })?.size === size
  }

  /** Removes a blob. Who has it open keeps it. */
  remove(digest: string): void {
    rmSync(this.path(digest), { force: true })
  }

  /** The digests of all blobs, and their sizes. */
  blobs(): { digest: string; size: number; path: string }[] {
    const directory = join(this.directory, blobs)
    if (!existsSync(directory)) return []
    return readdirSync(directory).flatMap((name) => {
      const path = join(directory, name)
      const known = statSync(path, { throwIfNoEntry: false })
      return known === undefined ? [] : [{ digest: `sha256:${name}`, size: known.size, path }]
    })
  }

  /** Nothing is collected while this is held. Several may hold it. */
  async keep(signal?: AbortSignal): Promise<Lock> {
    return this.#lock('keep', 'shared', signal)
  }

  /** Nothing is put while this is held; undefined while somebody keeps. */
  collect(): Lock | undefined {
    this.#make()
    return tryLock(join(this.#root, 'keep'), 'exclusive')
  }

  /** Leaves a note for other programs: an empty file of this name. */
  note(name: string): void {
    writeFileSync(join(this.#root, name), '', { mode: 0o600 })
  }

  unnote(name: string): void {
    rmSync(join(this.#root, name), { force: true })
  }

  #lock(name: string, how: 'shared' | 'exclusive', signal: AbortSignal | undefined): Promise<Lock> {
    this.#make()
    return lock(join(this.#root, name), how, signal)
  }

  /** Where a blob is. */
  path(digest: string): string {
    return join(this.directory, blobs, digest.slice('sha256:'.length))
  }

  #make(): void {
    const marker = join(this.directory, 'oci-layout')
    if (existsSync(marker)) return
    mkdirSync(this.#root, { recursive: true, mode: 0o700 })
    mkdirSync(join(this.directory, blobs), { recursive: true, mode: 0o700 })
    writeDurably(marker, JSON.stringify({ imageLayoutVersion: '1.0.0' }))
  }
}
