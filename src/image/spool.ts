/**
 * An archive of images on its way into the store: `spool/ID` below the data root, in which the shim's reader has put the
 * archive's files under numbers, and a table of what they are called. Names are words here: none becomes a path of this
 * machine, and a link leads to another name of the archive or to nothing (security.md D14).
 *
 * Its maker holds a lock on the directory; what a crash leaves is unlocked, and the next shim removes it.
 */
import { closeSync, constants, mkdirSync, openSync, readFileSync, readSync } from 'node:fs'
import { open, rm, rmdir } from 'node:fs/promises'
import { join, posix } from 'node:path'
import { CaissonError } from '../errors.ts'
import { tryLockDirectory } from '../state/lock.ts'
import type { Lock } from '../state/lock.ts'
import { invalid, tooLarge } from './document.ts'

/**
 * Reads an archive, an open one, into an open empty directory, or with `layer` what is one layer to be; settles once it is
 * there or nobody writes any more.
 */
export type ReadArchive = (
  source: number,
  directory: number,
  signal: AbortSignal,
  layer?: boolean,
) => Promise<void>

/** A file of the archive. */
export interface SpooledFile {
  /** Its place in the spool. */
  path: string
  size: number
  /** What its bytes hash to, `sha256:…`. */
  digest: string
}

/** A row of the table, as crates/core/src/archive/spool.rs writes it. */
type Row =
  { name: string; file: number; size: number; digest: string } | { name: string; link: string; hard: boolean }

/** The one row of what was read as a layer. */
interface LayerRow {
  file: number
  size: number
  digest: string
  diffId: string
}

/** How many links may lead to one another. */
const mostLinks = 16
/** How often a directory may be taken for a dead one's before it is locked. */
const claims = 100

/** A name in its one form; undefined for what leads out of the archive, or nowhere. */
function plain(name: string): string | undefined {
  if (name.startsWith('/')) return undefined
  const path = posix.normalize(name)
  return path === '.' || path === '..' || path.startsWith('../') || path.endsWith('/') ? undefined : path
}

function isSame(one: Row, other: Row): boolean {
  if ('link' in one) return 'link' in other && one.link === other.link && one.hard === other.hard
  return 'digest' in other && one.digest === other.digest
}

let serial = 0

/** Makes a directory of a new name, and locks it. */
function claim(root: string): { directory: string; lock: Lock } {
  const all = join(root, 'spool')
  for (let tries = 0; tries < claims; tries += 1) {
    const directory = join(all, `${process.pid}-${Date.now()}-${(serial += 1)}`)
    try {
      mkdirSync(all, { recursive: true, mode: 0o700 })
      mkdirSync(directory, { mode: 0o700 })
    } catch (error) {
      // The other one was just removed because it was empty.
      if (error instanceof Error && 'code' in error && error.code === 'ENOENT') continue
      throw error
    }
    // Before it is locked a cleaner may take it away.
    const lock = tryLockDirectory(directory)
    if (lock !== undefined && lock !== null) return { directory, lock }
  }
  throw new CaissonError('ERR_INTERNAL', `${all}: no directory in it can be held`)
}

/** An archive that was read. */
export class Spool {
  readonly #directory: string
  readonly #lock: Lock
  readonly #rows = new Map<string, Row>()
  #layer: LayerRow | undefined
  /** Names that stand for two things. */
  readonly #doubled = new Set<string>()

  private constructor(root: string) {
    const { directory, lock } = claim(root)
    this.#directory = directory
    this.#lock = lock
  }

  /**
   * Reads an archive, from its beginning to its end. To be disposed of.
   * @throws CaissonError of the reading; the signal's reason.
   */
  static async read(root: string, source: number, read: ReadArchive, signal: AbortSignal): Promise<Spool> {
    const spool = new Spool(root)
    try {
      const directory = openSync(spool.#directory, constants.O_RDONLY | constants.O_DIRECTORY)
      try {
        await read(source, directory, signal)
      } finally {
        closeSync(directory)
      }
      signal.throwIfAborted()
      spool.#index()
      return spool
    } catch (error) {
      await spool.dispose()
      signal.throwIfAborted()
      throw error
    }
  }

  #index(): void {
    const rows = JSON.parse(readFileSync(join(this.#directory, 'table.json'), 'utf8')) as (
      Row | (Row & LayerRow)
    )[]
    for (const row of rows) {
      if ('diffId' in row) this.#layer = row
      const name = plain(row.name)
      if (name === undefined) continue
      const before = this.#rows.get(name)
      if (before === undefined) this.#rows.set(name, row)
      // Two readers would take two different ones.
      else if (!isSame(before, row)) this.#doubled.add(name)
    }
  }

  /** Whether the archive has something of this name. */
  has(name: string): boolean {
    return this.#rows.has(name)
  }

  /**
   * The file of this name, or the one that a link of this name leads to.
   * @throws CaissonError ERR_INVALID_IMAGE where there is none, or two.
   */
  find(name: string): SpooledFile {
    const shown = JSON.stringify(name.slice(0, 300)).slice(1, -1)
    let at = plain(name)
    for (let links = 0; at !== undefined && links <= mostLinks; links += 1) {
      const row = this.#rows.get(at)
      if (row === undefined) break
      if (this.#doubled.has(at)) throw invalid(shown, 'is in the archive twice, with different contents')
      if ('digest' in row) return { ...row, path: join(this.#directory, String(row.file)) }
      // A symbolic link begins at its own directory, a hard link at the archive's root (tar(5)).
      at = row.link.startsWith('/')
        ? undefined
        : plain(row.hard ? row.link : posix.join(posix.dirname(at), row.link))
    }
    throw invalid(
      shown,
      at === plain(name) ? 'is no file of the archive' : 'is a link to no file of the archive',
    )
  }

  /** The one layer that was read as a whole, and what it hashes to when it is inflated. */
  layer(): SpooledFile & { diffId: string } {
    const row = this.#layer
    if (row === undefined) throw new CaissonError('ERR_INTERNAL', 'no layer was read')
    return { ...row, path: join(this.#directory, String(row.file)) }
  }

  /** The bytes of a document. */
  async bytes(name: string, most: number): Promise<Buffer> {
    const { path, size } = this.find(name)
    if (size > most) throw tooLarge(name.slice(0, 300), `is larger than ${most} bytes`)
    const file = await open(path, 'r')
    try {
      return await file.readFile()
    } finally {
      await file.close()
    }
  }

  /** Removes what is left of it. */
  async dispose(): Promise<void> {
    try {
      // While it is still locked.
      await rm(this.#directory, { recursive: true, force: true })
      // Others may be in it.
      await rmdir(join(this.#directory, '..')).catch(() => {})
    } finally {
      this.#lock.release()
    }
  }
}

/** The first bytes of a file, which tell its compression. */
export function head({ path }: SpooledFile): Buffer {
  const file = openSync(path, 'r')
  try {
    const bytes = Buffer.alloc(4)
    return bytes.subarray(0, readSync(file, bytes, 0, bytes.length, 0))
  } finally {
    closeSync(file)
  }
}
