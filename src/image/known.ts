/** What images the store has: its index, read together with the documents that it names. */
import { CaissonError } from '../errors.ts'
import type { Content, Entry } from './content.ts'
import { invalid, parse } from './document.ts'
import type { Fields } from './document.ts'
import { mostConfigBytes } from './manifest.ts'
import type { Manifest } from './manifest.ts'
import { isImage, memberFor } from './platforms.ts'
import type { ImageMember, Member } from './platforms.ts'

/** One image and all names of it; of one with all its platforms, the one that stands for them. */
export interface Known {
  entries: Entry[]
  /** Of its manifest. */
  descriptor: Member['entry']
  manifest: Manifest
  config: Fields
  /** It is another platform of what has these names. */
  other: boolean
}

function readMember(content: Content, { entry: descriptor, manifest }: ImageMember, other: boolean): Known {
  const what = `config ${manifest.config.digest}`
  const config = parse(content.layout.blob(manifest.config, mostConfigBytes, what), what)
  return { entries: [], descriptor, manifest, config, other }
}

/** Reads the documents of an entry. */
export function readImage(content: Content, entry: Entry): Known {
  const found = memberFor(content.members(entry), undefined)
  if (found === undefined) throw invalid(`index ${entry.digest}`, 'has no image that is here')
  return readMember(content, found, false)
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

/** The other platforms of these: they are no images of their own. */
export function otherImages(content: Content, known: readonly Known[]): Known[] {
  const shown = new Set(known.map(({ manifest }) => manifest.config.digest))
  const others = new Map<string, Known>()
  for (const entry of known.flatMap(({ entries }) => entries)) {
    for (const member of content.members(entry).filter(isImage)) {
      const { digest } = member.manifest.config
      if (shown.has(digest)) continue
      const one = others.get(digest) ?? readMember(content, member, true)
      one.entries.push(entry)
      others.set(digest, one)
    }
  }
  return [...others.values()]
}
