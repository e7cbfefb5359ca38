/** From a reference to layers that can be mounted: what is read and checked, what is unpacked, in which order. */
import { closeSync } from 'node:fs'
import { dirname } from 'node:path'
import type { Readable } from 'node:stream'
import { CaissonError, refuse } from '../errors.ts'
import { tryLockDirectory } from '../state/lock.ts'
import type { Committed, CommittedAs, PackLayer } from './commit.ts'
import { parseConfig } from './config.ts'
import type { ImageConfig } from './config.ts'
import { Content } from './content.ts'
import { Flights } from './flights.ts'
import { identify, Layout } from './layout.ts'
import type { Identity } from './layout.ts'
import type { ImportedAs } from './import.ts'
import { imagesOfId, theOnly } from './known.ts'
import { unpackLayers } from './layers.ts'
import type { UnpackLayer } from './layers.ts'
import type { LoadContext, LoadProgress } from './load.ts'
import { hostPlatform, isIndex, parsePlatform, showPlatform } from './manifest.ts'
import type { Manifest, Platform } from './manifest.ts'
import { memberFor, requireMember } from './platforms.ts'
import type { ImageMember, Member } from './platforms.ts'
import type { PullProgress } from './pull.ts'
import { fullName, isLayout, parseName, parseReference } from './reference.ts'
import type { LayoutReference } from './reference.ts'
import type { ReadArchive } from './spool.ts'
import { ImageStore } from './store.ts'
import type { Facts } from './store.ts'
import type { VerifyContext } from './verify.ts'

/** When an image is pulled that a run wants. */
export type PullPolicy = 'missing' | 'always' | 'never'

/** An image that can be run. */
export interface Image {
  /** Of its manifest. */
  digest: string
  /** The directories to mount, the topmost first. */
  lowers: string[]
  /** The chain id of the topmost; none of an image without layers. */
  layer: string | undefined
  config: ImageConfig
}

/** How an image is to be had. */
export interface ImageOptions {
  signal: AbortSignal
  /** Default `missing`. */
  pull?: PullPolicy | undefined
  /** `OS/ARCH[/VARIANT]`. Default: this machine's. */
  platform?: string | undefined
  /** All platforms are kept; not with `platform`. Default: one. */
  allPlatforms?: boolean | undefined
  report?: ((progress: PullProgress) => void) | undefined
}

/** How an archive is loaded. */
export interface ArchiveOptions {
  signal: AbortSignal
  platform?: string | undefined
  /** All platforms are kept; not with `platform`. Default: one. */
  allPlatforms?: boolean | undefined
  report?: ((progress: LoadProgress) => void) | undefined
}

/** How many layers of a layout are unpacked at a time: it is the processors' work. */
const parallel = 2

/** An id, as `commit` and `images --no-trunc` print it. */
const wholeId = /^(?:sha256:)?([a-f0-9]{64})$/

/** The images of one data root. */
export class Images {
  readonly store: ImageStore
  readonly content: Content
  readonly #root: string
  readonly #unpackLayer: UnpackLayer
  readonly #readArchive: ReadArchive
  /** What this process knows, by layout and tag. */
  readonly #known = new Map<string, { identity: Identity; facts: Facts; image: Image }>()
  readonly #flights = new Flights()
  #grown: ((held: readonly string[]) => Promise<void>) | undefined

  constructor(dataRoot: string, unpackLayer: UnpackLayer, readArchive: ReadArchive) {
    this.#root = dataRoot
    this.store = new ImageStore(dataRoot)
    this.content = new Content(dataRoot)
    this.#unpackLayer = unpackLayer
    this.#readArchive = readArchive
  }

  /** After each pull, a run's too, and each commit this is called with the digest of the manifest that is to stay. */
  whenGrown(act: (held: readonly string[]) => Promise<void>): void {
    this.#grown = act
  }

  /** Where an image is looked for: in the layout that it names, else in the one of what was pulled. */
  #place(name: string): LayoutReference {
    if (isLayout(name)) return parseReference(name)
    return { directory: this.content.directory, tag: fullName(parseName(name)) }
  }

  /**
   * An image that was unpacked before and whose layout has not changed since: a stat of its index, and in a new process
   * one small file. Undefined for any other.
   */
  find(name: string): Image | undefined {
    if (wholeId.test(name)) return undefined
    const reference = this.#place(name)
    const index = identify(reference.directory)
    return index && this.#find(reference, index.identity)
  }

  #find(reference: LayoutReference, identity: Identity): Image | undefined {
    const key = keyOf(reference)
    const known = this.#known.get(key)
    const same = known?.identity === identity ? known : undefined
    const facts = same?.facts ?? this.store.layout(reference, identity)
    if (facts === undefined || !this.store.has(facts)) return undefined
    this.store.touch(facts.digest)
    return same?.image ?? this.#keep(reference, identity, facts)
  }

  /**
   * Makes an image ready: pulls what is in no layout here, reads and verifies what is not known yet, unpacks what is not
   * there.
   * @throws CaissonError with the codes of reference.ts, layout.ts, manifest.ts, config.ts, of the registry and of the
   * unpacking; the signal's reason when it is aborted.
   */
  async prepare(name: string, options: ImageOptions): Promise<Image> {
    const { signal, pull = 'missing' } = options
    signal.throwIfAborted()
    const wanted = platformOf(options)
    const known = this.#byId(name, wanted)
    if (known !== undefined) {
      const facts = await this.#ready(known, signal)
      this.store.touch(facts.digest)
      return this.#image(facts)
    }
    const reference = this.#place(name)
    if (!isLayout(name) && (pull === 'always' || !this.#isHere(reference.tag ?? '', wanted))) {
      if (pull === 'never') {
        throw new CaissonError(
          'ERR_IMAGE_NOT_FOUND',
          `${name}: no such image here, and it is not to be pulled`,
          {
            stage: 'resolve',
            subject: name,
          },
        )
      }
      await this.pull(name, options)
    }
    // Before the index is read, so that a later change is seen.
    const index = identify(reference.directory)
    const layout = new Layout(reference.directory)
    // Whether it is for a platform that is asked for, its config says.
    const plain = (digest: string): Facts | undefined =>
      wanted === undefined ? this.#unpacked(digest) : undefined
    const found = layout.manifest(reference.tag, plain, wanted)
    const facts =
      'known' in found
        ? found.known
        : await this.#flights.join(
            wanted === undefined ? found.digest : `${found.digest} ${showPlatform(wanted)}`,
            (ended) => this.#unpack(layout, found.digest, found.manifest, wanted, ended),
            signal,
          )
    this.store.touch(facts.digest)
    // What is kept of a name is what it is for this machine.
    if (wanted === undefined && index?.settled === true) {
      this.store.rememberLayout(reference, index.identity, facts)
      return this.#keep(reference, index.identity, facts)
    }
    return this.#image(facts)
  }

  /** What a manifest came to, if all of that is there. */
  #unpacked(digest: string): Facts | undefined {
    const facts = this.store.image(digest)
    return facts !== undefined && this.store.has(facts) ? facts : undefined
  }

  /**
   * The image in the content store of this id, `sha256:…` or its digits, or of this beginning of one, if no name is so; of
   * one with all its platforms the one that is wanted.
   * @throws CaissonError ERR_INVALID_OPTION where a beginning means several, ERR_IMAGE_NOT_FOUND for a whole one that is
   * not here, and for one that is not for what is wanted.
   */
  #byId(name: string, wanted: Platform | undefined): Pick<ImageMember, 'entry' | 'manifest'> | undefined {
    const [, whole] = wholeId.exec(name) ?? []
    const [, hex = whole] = /^([a-f0-9]{4,63})$/.exec(name) ?? []
    if (hex === undefined) return undefined
    if (whole === undefined && this.content.entry(fullName(parseName(name))) !== undefined) return undefined
    const found = imagesOfId(this.content, hex)
    if (found.length === 0 && whole === undefined) return undefined
    const { descriptor, manifest, entries, other } = theOnly(found, name)
    if (wanted === undefined) return { entry: descriptor, manifest }
    // The newest first.
    const offered = entries.toReversed().map((entry) => this.content.undamaged(entry))
    const own = ({ entry }: Member): boolean => !other || entry.digest === descriptor.digest
    const members = offered.map((list) => list.filter(own))
    const suits = members.map((list) => memberFor(list, wanted)).find((one) => one !== undefined)
    return suits ?? requireMember(members.flat(), name, wanted)
  }

  /** Unpacks an image of the content store, if that is to be done. */
  async #ready(
    { entry, manifest }: Pick<ImageMember, 'entry' | 'manifest'>,
    signal: AbortSignal,
  ): Promise<Facts> {
    const { digest, platform } = entry
    const start = async (ended: AbortSignal): Promise<Facts> =>
      this.#unpack(this.content.layout, digest, manifest, platform, ended)
    return this.#unpacked(digest) ?? this.#flights.join(digest, start, signal)
  }

  /** Whether an image is in the content store, with its layers or their blobs. */
  #isHere(name: string, wanted: Platform | undefined): boolean {
    const entry = this.content.entry(name)
    if (entry === undefined) return false
    const plain = wanted === undefined ? this.store.image(entry.digest) : undefined
    if (plain !== undefined && this.store.has(plain)) return true
    const members = this.content.undamaged(entry)
    const found = memberFor(members, wanted ?? (isIndex(entry) ? hostPlatform() : undefined))
    if (found === undefined) return false
    const facts = this.store.image(found.entry.digest)
    if (facts !== undefined && this.store.has(facts)) return true
    return found.blobs.every(({ digest, size }) => this.content.has(digest, size))
  }

  /** Pulls an image, together with whoever wants the same one now. */
  async pull(name: string, options: ImageOptions): Promise<Facts> {
    const { signal, platform, allPlatforms = false, report } = options
    const reference = parseName(name)
    const key = `${fullName(reference)} ${allPlatforms ? '*' : (platform ?? '')}`
    const wanted = platformOf(options)
    const start = async (ended: AbortSignal, tell: (progress: PullProgress) => void): Promise<Facts> => {
      // The registry's client is loaded by who needs it.
      const { pull } = await import('./pull.ts')
      const how = { signal: ended, platform: wanted, allPlatforms, report: tell }
      const facts = await pull(this.context, reference, how)
      await this.#grown?.([facts.digest])
      return facts
    }
    return this.#flights.join(key, start, signal, report)
  }

  /** Loads the images of an archive; their ids. */
  async load(source: string | Readable, options: ArchiveOptions): Promise<string[]> {
    const { signal, allPlatforms, report } = options
    const wanted = platformOf(options)
    const { load } = await import('./load.ts')
    return load(this.#loading, source, { signal, platform: wanted, allPlatforms, report })
  }

  /** Imports a root file system; the image's id. */
  async import(
    source: string | Readable,
    as: ImportedAs,
    { signal, platform, report }: ArchiveOptions,
  ): Promise<string> {
    const wanted = platform === undefined ? undefined : parsePlatform(platform)
    const { importRootfs } = await import('./import.ts')
    return importRootfs(this.#loading, source, as, { signal, platform: wanted, report })
  }

  /** Makes an image of a container; its id. */
  async commit(container: Committed, pack: PackLayer, as: CommittedAs, signal: AbortSignal): Promise<string> {
    const { commit } = await import('./commit.ts')
    const id = await commit(this.#loading, container, pack, as, signal)
    const made = imagesOfId(this.content, id.slice('sha256:'.length))
    await this.#grown?.(made.map(({ descriptor }) => descriptor.digest))
    return id
  }

  /** What images are verified with. */
  get context(): VerifyContext {
    return { store: this.store, content: this.content, unpackLayer: this.#unpackLayer }
  }

  get #loading(): LoadContext {
    return {
      root: this.#root,
      store: this.store,
      content: this.content,
      unpackLayer: this.#unpackLayer,
      readArchive: this.#readArchive,
    }
  }

  /** Whether a container runs of one of these. */
  isUsed(entries: readonly { digest: string }[]): boolean {
    return entries.some(({ digest }) => {
      const [top] = this.store.image(digest)?.chains ?? []
      const lock = top === undefined ? null : tryLockDirectory(dirname(this.store.tree(top)))
      if (lock !== undefined && lock !== null) lock.release()
      return lock === undefined
    })
  }

  #keep(reference: LayoutReference, identity: Identity, facts: Facts): Image {
    const image = this.#image(facts)
    this.#known.set(keyOf(reference), { identity, facts, image })
    return image
  }

  #image({ digest, chains, config }: Facts): Image {
    const lowers = chains.map((chain) => this.store.tree(chain))
    const [layer] = chains
    return { digest, lowers: lowers.length === 0 ? [this.store.empty()] : lowers, layer, config }
  }

  async #unpack(
    layout: Layout,
    digest: string,
    manifest: Manifest,
    wanted: Platform | undefined,
    signal: AbortSignal,
  ): Promise<Facts> {
    const { config, diffIds } = parseConfig(
      layout.config(manifest.config),
      `config ${manifest.config.digest}`,
      manifest.layers.length,
      wanted,
    )
    const kept = await this.content.keep(signal)
    try {
      const chains = await unpackLayers({
        store: this.store,
        layers: manifest.layers,
        diffIds,
        unpackLayer: this.#unpackLayer,
        parallel,
        signal,
        open: (layer) => {
          const blob = layout.open(layer)
          return { blob, keep: false, close: async () => closeSync(blob) }
        },
      })
      const facts = { digest, id: manifest.config.digest, config, chains }
      this.store.remember(facts)
      return facts
    } finally {
      kept.release()
    }
  }
}

/** The one platform that is wanted, if one was named. @throws CaissonError ERR_INVALID_OPTION. */
function platformOf({
  platform,
  allPlatforms,
}: Pick<ImageOptions, 'platform' | 'allPlatforms'>): Platform | undefined {
  if (platform !== undefined && allPlatforms === true)
    throw refuse('allPlatforms', 'and platform say two different things')
  return platform === undefined ? undefined : parsePlatform(platform)
}

function keyOf({ directory, tag }: LayoutReference): string {
  return `${directory}\0${tag ?? ''}`
}
