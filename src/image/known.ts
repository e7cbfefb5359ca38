/** What images the store has: its index, read together with the documents that it names. */
import { CaissonError, refuse } from '../errors.ts'
import type { Content, Entry } from './content.ts'
import { invalid, parse } from './document.ts'
import type { Fields } from './document.ts'
import { mostConfigBytes } from './manifest.ts'
import type { Manifest } from './manifest.ts'
import { isImage, memberFor } from './platforms.ts'
import type { ImageMember, Member } from './platforms.ts'
import { fullName, parseName } from './reference.ts'

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
  const found = memberFor(content.undamaged(entry), undefined)
  if (found === undefined) {
    // Why they cannot be read.
    content.members(entry)
    throw invalid(`index ${entry.digest}`, 'has no image that is here')
  }
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
function otherImages(content: Content, known: readonly Known[]): Known[] {
  const shown = new Set(known.map(({ manifest }) => manifest.config.digest))
  const others = new Map<string, Known>()
  for (const entry of known.flatMap(({ entries }) => entries)) {
    for (const member of content.undamaged(entry).filter(isImage)) {
      const { digest } = member.manifest.config
      if (shown.has(digest)) continue
      const one = others.get(digest) ?? readMember(content, member, true)
      one.entries.push(entry)
      others.set(digest, one)
    }
  }
  return [...others.values()]
}

/**
 * The images of an id, or of the beginning of one: by their configs, their manifests, or their indexes. Another platform of
 * one is meant where nothing else is.
 */
export function imagesOfId(content: Content, hex: string): Known[] {
  const { known } = readImages(content)
  const isMeant = ({ manifest, entries, descriptor, other }: Known): boolean =>
    [manifest.config, descriptor, ...(other ? [] : entries)].some(({ digest }) =>
      digest.slice('sha256:'.length).startsWith(hex),
    )
  const shown = known.filter(isMeant)
  return shown.length === 0 ? otherImages(content, known).filter(isMeant) : shown
}

export function noSuchImage(reference: string): CaissonError {
  const message = `No such image: ${reference}`
  return new CaissonError('ERR_IMAGE_NOT_FOUND', message, { stage: 'resolve', subject: reference })
}

/** The one that a reference means. @throws CaissonError ERR_IMAGE_NOT_FOUND; ERR_INVALID_OPTION where it means several. */
export function theOnly(found: readonly Known[], reference: string): Known {
  const [only] = found
  if (only !== undefined && found.length === 1) return only
  if (found.length > 1) throw refuse('image', `multiple IDs found with provided prefix: ${reference}`)
  throw noSuchImage(reference)
}

/** The whole name, if that is what is meant and there is such an image. */
export function nameMeant(content: Content, reference: string): string | undefined {
  if (/^sha256:[a-f0-9]{64}$/.test(reference)) return undefined
  try {
    const name = fullName(parseName(reference))
    return content.entry(name) === undefined ? undefined : name
  } catch (error) {
    if (error instanceof CaissonError) return undefined
    throw error
  }
}

/**
 * An image by its name, its id, or the beginning of that; the entry that was named is the first of it.
 * @throws CaissonError as {@link theOnly}; as {@link readImage} for a name whose image cannot be read.
 */
export function findImage(content: Content, reference: string): Known {
  if (reference === '') throw refuse('image', 'is empty')
  const name = nameMeant(content, reference)
  const entry = name === undefined ? undefined : content.entry(name)
  if (entry !== undefined) {
    const named = readImage(content, entry)
    const same = readImages(content).known.find(
      ({ manifest }) => manifest.config.digest === named.manifest.config.digest,
    )
    const others = same?.entries.filter((one) => one.name !== name) ?? []
    return { ...named, entries: [entry, ...others] }
  }
  const hex = reference.replace(/^sha256:/, '')
  return theOnly(/^[a-f0-9]{1,64}$/.test(hex) ? imagesOfId(content, hex) : [], reference)
}
