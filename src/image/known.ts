/** What images the store has: its index, read together with the documents that it names. */
import { CaissonError } from '../errors.ts'
import type { Content, Entry } from './content.ts'
import { parse } from './document.ts'
import type { Fields } from './document.ts'
import { mostConfigBytes } from './manifest.ts'
import type { Manifest } from './manifest.ts'

/** One image and all names of it. */
export interface Known {
  entries: Entry[]
  manifest: Manifest
  config: Fields
}

/** Reads the documents of an entry. */
export function readImage(content: Content, entry: Entry): Known {
  const manifest = content.manifest(entry)
  const what = `config ${manifest.config.digest}`
  const config = parse(content.layout.blob(manifest.config, mostConfigBytes, what), what)
  return { entries: [], manifest, config }
}

/**
 * What is here, by config: an image is one thing whatever its names, and however its layers are compressed. Entries whose
 * documents cannot be read stand apart.
 */
export function readImages(content: Content): { known: Known[]; damaged: Entry[] } {
  const known = new Map<string, Known>()
  const digests = new Map<string, Known>()
  const damaged: Entry[] = []
  for (const entry of content.entries()) {
    try {
      const read = digests.get(entry.digest) ?? readImage(content, entry)
      const one = known.get(read.manifest.config.digest) ?? read
      one.entries.push(entry)
      known.set(one.manifest.config.digest, one)
      digests.set(entry.digest, one)
    } catch (error) {
      if (!(error instanceof CaissonError)) throw error
      damaged.push(entry)
    }
  }
  return { known: [...known.values()], damaged }
}
