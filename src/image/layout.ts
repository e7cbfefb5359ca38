/** An OCI image layout: a directory of blobs that others wrote, and an index of what is in it. */
import { closeSync, constants, fstatSync, openSync, readSync, statSync } from 'node:fs'
import type { BigIntStats } from 'node:fs'
import { join } from 'node:path'
import { CaissonError } from '../errors.ts'
import { native } from '../native.ts'
import { field, invalid, parse, tooLarge } from './document.ts'
import { choose, imagesOf, mostConfigBytes, mostManifestBytes, parseManifest } from './manifest.ts'
import type { Descriptor, Index, IndexEntry, Manifest, Platform } from './manifest.ts'

/** Which file an index.json is, and which version of it: what changes with every way to change the file. */
export type Identity = string

/** A time this close to now could be that of two versions: clocks of file systems tick in milliseconds. */
const racy = 100_000_000n

/**
 * The identity of a layout's index; undefined where there is none to be had, which says nothing about why.
 * `settled` is false while a change could still go unseen.
 */
export function identify(directory: string): { identity: Identity; settled: boolean } | undefined {
  let stat: BigIntStats | undefined
  try {
    stat = statSync(join(directory, 'index.json'), { bigint: true, throwIfNoEntry: false })
  } catch {
    return undefined
  }
  if (stat === undefined) return undefined
  const identity = `${stat.dev}:${stat.ino}:${stat.size}:${stat.ctimeNs}`
  return { identity, settled: BigInt(Date.now()) * 1_000_000n - stat.ctimeNs > racy }
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined
}

function wrongDigest(what: string, message: string): CaissonError {
  return new CaissonError('ERR_DIGEST', `${what}: ${message}`, { stage: 'resolve', subject: what })
}

/** A layout of this machine. */
export class Layout {
  readonly directory: string

  constructor(directory: string) {
    this.directory = directory
  }

  /**
   * Opens a regular file of the layout: not a link, which could lead anywhere, and without waiting for a FIFO's writer.
   * @throws the system's error with its code; CaissonError ERR_INVALID_IMAGE for what is no regular file.
   */
  #open(name: string): { file: number; size: number } {
    const file = openSync(
      join(this.directory, name),
      constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK,
    )
    const stat = fstatSync(file)
    if (stat.isFile()) return { file, size: stat.size }
    closeSync(file)
    throw invalid(`${this.directory}/${name}`, 'is no regular file')
  }

  #read(name: string, most: number): Buffer {
    const { file, size } = this.#open(name)
    try {
      const what = `${this.directory}/${name}`
      if (size > most) throw tooLarge(what, `is larger than ${most} bytes`)
      const bytes = Buffer.allocUnsafe(size)
      let filled = 0
      while (filled < size) {
        const read = readSync(file, bytes, filled, size - filled, null)
        if (read === 0) throw invalid(what, 'is being changed')
        filled += read
      }
      return bytes
    } finally {
      closeSync(file)
    }
  }

  /** The layout's index, once the layout says that it is one. */
  #index(): Index {
    let version: unknown
    let bytes: Buffer
    try {
      bytes = this.#read('index.json', mostManifestBytes)
      version = field(
        parse(this.#read('oci-layout', 4096), `${this.directory}/oci-layout`),
        'imageLayoutVersion',
      )
    } catch (error) {
      const code = codeOf(error)
      if (code !== 'ENOENT' && code !== 'ENOTDIR') throw this.#explained(error, 'index.json')
      const message = `${this.directory}: no OCI image layout: it has no index.json or no oci-layout`
      throw new CaissonError('ERR_IMAGE_NOT_FOUND', message, {
        stage: 'resolve',
        subject: this.directory,
        cause: error,
      })
    }
    if (version !== '1.0.0') throw invalid(`${this.directory}/oci-layout`, 'imageLayoutVersion is not 1.0.0')
    const what = `${this.directory}/index.json`
    const index = parseManifest(bytes, what)
    if (index.kind !== 'index') throw invalid(what, 'is no index')
    return index
  }

  /** An error of the system as one of ours. */
  #explained(error: unknown, name: string): unknown {
    const code = codeOf(error)
    if (error instanceof CaissonError || code === undefined) return error
    const what = `${this.directory}/${name}`
    if (code === 'ELOOP') return invalid(what, 'is a symbolic link')
    return new CaissonError('ERR_INVALID_IMAGE', `${what}: ${code}`, {
      stage: 'resolve',
      subject: what,
      cause: error,
    })
  }

  /** What the index lists. */
  entries(): readonly IndexEntry[] {
    return this.#index().manifests
  }

  #select(tag: string | undefined, wanted: Platform | undefined): IndexEntry {
    const manifests = this.entries()
    const named = tag === undefined ? manifests : manifests.filter(({ name }) => name === tag)
    const details = { stage: 'resolve', subject: this.directory }
    const names = [...new Set(manifests.flatMap(({ name }) => (name === undefined ? [] : [name])))]
    const list = names.slice(0, 20).join(', ')
    if (named.length === 0) {
      const message =
        tag === undefined
          ? 'holds no image'
          : `has no image tagged ${tag}${list === '' ? '' : `; it has ${list}`}`
      throw new CaissonError('ERR_IMAGE_NOT_FOUND', `${this.directory}: ${message}`, details)
    }
    if (tag === undefined && new Set(named.map(({ name }) => name)).size > 1) {
      const message = `image: ${this.directory} holds several images; say which: oci:DIR:TAG, with ${list}`
      throw new CaissonError('ERR_INVALID_OPTION', message, { subject: 'image' })
    }
    const [only] = named
    // What its platform is, its config says too.
    if (only !== undefined && named.length === 1) return only
    return choose(named, `${this.directory}${tag === undefined ? '' : `:${tag}`}`, wanted)
  }

  /**
   * The manifest with this tag, for a platform or this machine, and its digest. `known` is asked before a manifest is read.
   */
  manifest<Known>(
    tag: string | undefined,
    known: (digest: string) => Known | undefined,
    wanted?: Platform,
  ): { known: Known } | { digest: string; manifest: Manifest } {
    let entry = this.#select(tag, wanted)
    // index.json, an index in it, its manifests: no deeper (security.md D9).
    for (let depth = 0; depth < 2; depth += 1) {
      const found = known(entry.digest)
      if (found !== undefined) return { known: found }
      const what = `manifest ${entry.digest}`
      const document = parseManifest(this.blob(entry, mostManifestBytes, what), what, entry.mediaType)
      if (document.kind === 'manifest') return { digest: entry.digest, manifest: document }
      entry = choose(imagesOf(document), what, wanted)
    }
    throw invalid(`manifest ${entry.digest}`, 'is an index in an index')
  }

  /** The bytes of an image's config. */
  config(descriptor: Descriptor): Buffer {
    return this.blob(descriptor, mostConfigBytes, `config ${descriptor.digest}`)
  }

  /** The bytes of a small blob, of the size and with the digest that its descriptor says. */
  blob({ digest, size }: Descriptor, most: number, what: string): Buffer {
    if (size > most) throw tooLarge(what, `is larger than ${most} bytes`)
    const name = blobName(digest)
    let bytes: Buffer
    try {
      bytes = this.#read(name, most)
    } catch (error) {
      throw this.#missing(error, what, name)
    }
    if (bytes.length !== size) throw wrongDigest(what, `has ${bytes.length} bytes, not ${size}`)
    const found = native().addon.sha256(bytes)
    if (found !== digest) throw wrongDigest(what, `its bytes have the digest ${found}`)
    return bytes
  }

  /** A descriptor of a layer's blob, the caller's to close. Its bytes are checked by who reads them. */
  open({ digest, size }: Descriptor): number {
    const what = `layer ${digest}`
    const name = blobName(digest)
    let opened: { file: number; size: number }
    try {
      opened = this.#open(name)
    } catch (error) {
      throw this.#missing(error, what, name)
    }
    if (opened.size === size) return opened.file
    closeSync(opened.file)
    throw wrongDigest(what, `has ${opened.size} bytes, not ${size}`)
  }

  #missing(error: unknown, what: string, name: string): unknown {
    return codeOf(error) === 'ENOENT'
      ? invalid(what, `is not in ${this.directory}`)
      : this.#explained(error, name)
  }
}

function blobName(digest: string): string {
  return `blobs/${digest.replace(':', '/')}`
}
