/** The tar archive of a root file system into an image with one layer: the archive itself is the layer's blob. */
import type { Readable } from 'node:stream'
import { native } from '../native.ts'
import { manifestOf, typeOf } from './archive.ts'
import type { ArchivedImage } from './archive.ts'
import { changed } from './changes.ts'
import { parseConfig } from './config.ts'
import { settle } from './load.ts'
import type { LoadContext, LoadOptions } from './load.ts'
import { hostPlatform } from './manifest.ts'
import { readSource } from './source.ts'

/** What the image is to be. */
export interface ImportedAs {
  /** Whole; none: it is known by its id alone. */
  name: string | undefined
  /** Changes to its config, in a Dockerfile's words. */
  changes: readonly string[]
  /** What its history says. */
  message: string
}

/** Imports a root file system; the image's id. */
export async function importRootfs(
  context: LoadContext,
  source: string | Readable,
  { name, changes, message }: ImportedAs,
  options: LoadOptions,
): Promise<string> {
  const config = changed(changes)
  const { signal, platform = hostPlatform() } = options
  const read: LoadContext['readArchive'] = (from, directory, ended) =>
    context.readArchive(from, directory, ended, true)
  const spool = await readSource(context.root, source, read, signal)
  try {
    const { diffId, ...file } = spool.layer()
    const created = new Date().toISOString()
    const { os, architecture, variant } = platform
    const document = {
      created,
      architecture,
      os,
      ...(variant !== undefined && { variant }),
      config,
      rootfs: { type: 'layers', diff_ids: [diffId] },
      history: [{ created, comment: message }],
    }
    const bytes = Buffer.from(JSON.stringify(document))
    const digest = native().addon.sha256(bytes)
    const layers = [{ mediaType: typeOf(file), digest: file.digest, size: file.size, file }]
    const image: ArchivedImage = {
      manifest: manifestOf({ digest, size: bytes.length }, layers),
      config: { ...parseConfig(bytes, 'config', 1, platform), digest, bytes },
      layers,
      names: name === undefined ? [] : [name],
    }
    await settle(context, [image], options)
    return digest
  } finally {
    await spool.dispose()
  }
}
