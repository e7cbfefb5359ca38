/**
 * Images into an OCI image layout on the disk, a new one or one that is there (OCI image spec, image-layout.md): blobs first,
 * the index last, so that nobody finds a name without what it stands for.
 */
import { constants, existsSync, lstatSync, readFileSync } from 'node:fs'
import { copyFile, mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { CaissonError, refuse } from '../errors.ts'
import { lockDirectory } from '../state/lock.ts'
import type { Content } from './content.ts'
import { field, objects, parse } from './document.ts'
import type { Fields } from './document.ts'
import { Layout } from './layout.ts'
import { mostManifests } from './manifest.ts'
import type { Descriptor } from './manifest.ts'

const refName = 'org.opencontainers.image.ref.name'
const empty = { schemaVersion: 2, mediaType: 'application/vnd.oci.image.index.v1+json', manifests: [] }

let serial = 0

function aside(path: string): string {
  return `${path}.${process.pid}-${Date.now()}-${(serial += 1)}`
}

async function whole(path: string, write: (path: string) => Promise<void>): Promise<void> {
  const name = aside(path)
  try {
    await write(name)
    await rename(name, path)
  } catch (error) {
    await rm(name, { force: true })
    throw error
  }
}

function nameOf(entry: object): string | undefined {
  const annotations = field(entry as Fields, 'annotations')
  const name =
    typeof annotations === 'object' && annotations !== null
      ? field(annotations as Fields, refName)
      : undefined
  return typeof name === 'string' ? name : undefined
}

/** What is to be written. */
export interface LayoutParts {
  /** The entries of the index, as `save` has them. */
  manifests: readonly object[]
  blobs: ReadonlyMap<string, Descriptor>
}

/**
 * Writes blobs and entries into a layout; an entry of the same name is replaced.
 * @throws CaissonError ERR_INVALID_OPTION for a directory that is something else, or cannot be written;
 * ERR_INVALID_IMAGE for a layout that is damaged.
 */
export async function writeLayout(
  content: Content,
  directory: string,
  { manifests, blobs }: LayoutParts,
  signal: AbortSignal,
): Promise<void> {
  const names = manifests.flatMap((entry) => nameOf(entry) ?? [])
  const twice = names.find((name, at) => names.indexOf(name) !== at)
  if (twice !== undefined)
    throw refuse('image', `two of them have the tag '${twice}': a layout knows images by it alone`)
  try {
    await mkdir(directory, { recursive: true })
    const marked = existsSync(join(directory, 'oci-layout'))
    const others = (await readdir(directory)).filter((name) => name !== 'blobs')
    if (!marked && others.length > 0)
      throw refuse('target', `'${directory}' is a directory, and no OCI image layout`)
    await mkdir(join(directory, 'blobs/sha256'), { recursive: true })
    // A layout of somebody else's leads nowhere else.
    for (const part of ['blobs', 'blobs/sha256'])
      if (!lstatSync(join(directory, part)).isDirectory())
        throw refuse('target', `'${join(directory, part)}' is no directory`)
    const held = await lockDirectory(directory, signal)
    try {
      const index = join(directory, 'index.json')
      // It is a plain file of bounded size, or no layout.
      const there = existsSync(index)
      if (there) new Layout(directory).entries()
      const before = there ? parse(readFileSync(index), index) : empty
      const stay = objects(before, 'manifests', mostManifests, index).filter(
        (entry) => !names.includes(nameOf(entry) ?? ''),
      )
      for (const [path, { digest, size }] of blobs) {
        signal.throwIfAborted()
        const to = join(directory, path)
        const known = lstatSync(to, { throwIfNoEntry: false })
        if (known?.isFile() !== true || known.size !== size)
          await whole(to, (name) => copyFile(content.path(digest), name, constants.COPYFILE_FICLONE))
      }
      if (!marked) await writeFile(join(directory, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}')
      const after = JSON.stringify({ ...before, manifests: [...stay, ...manifests] })
      await whole(index, (name) => writeFile(name, after))
    } finally {
      held.release()
    }
  } catch (error) {
    signal.throwIfAborted()
    if (error instanceof CaissonError || !(error instanceof Error && 'code' in error)) throw error
    throw refuse('target', `'${directory}' cannot be written: ${String(error.code)}`)
  }
}
