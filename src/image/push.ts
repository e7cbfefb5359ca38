/**
 * An image to a registry: blobs that it lacks, then the manifest, so that the name never stands for half an image. One with
 * all its platforms goes manifest after manifest, and last the index, byte for byte.
 */
import { createReadStream } from 'node:fs'
import { CaissonError } from '../errors.ts'
import { Registry } from '../registry/registry.ts'
import type { Content, Entry } from './content.ts'
import { isIndex, mostManifestBytes } from './manifest.ts'
import type { Descriptor, Platform } from './manifest.ts'
import { requireMember, showMember } from './platforms.ts'
import type { Member } from './platforms.ts'
import { fullName, parseName } from './reference.ts'
import type { RegistryReference } from './reference.ts'

/** What a push is doing. */
export type PushProgress =
  | {
      kind: 'layer'
      digest: string
      /** `present`: the registry has it. `mounted`: it took it over from another repository of its own. */
      state: 'present' | 'mounted' | 'uploading' | 'complete'
      sent: number
      size: number
    }
  | { kind: 'complete'; digest: string }

export interface PushOptions {
  /** The one platform to push, as an image of its own. Default: what the name stands for. */
  platform?: Platform | undefined
  signal: AbortSignal
  report?: ((progress: PushProgress) => void) | undefined
}

/** How many blobs go at a time. */
const parallel = 3

class Push {
  readonly #content: Content
  readonly #reference: RegistryReference
  readonly #registry: Registry
  readonly #options: PushOptions

  constructor(content: Content, reference: RegistryReference, registry: Registry, options: PushOptions) {
    this.#content = content
    this.#reference = reference
    this.#registry = registry
    this.#options = options
  }

  async run(): Promise<string> {
    const { tag, digest } = this.#reference
    const { signal, report, platform } = this.#options
    const name = fullName(this.#reference)
    const entry = this.#content.entry(name)
    if (entry === undefined) {
      const message = `${name}: no such image here; tag one with this name first`
      throw new CaissonError('ERR_IMAGE_NOT_FOUND', message, { stage: 'push', subject: name })
    }
    const one = platform && requireMember(this.#content.undamaged(entry), name, platform)
    const members = one === undefined ? this.#content.members(entry) : [one]
    this.#checkMissing(entry, one)
    for (const member of members) await this.#blobs(member)
    signal.throwIfAborted()
    const top: Descriptor = one?.entry ?? entry
    // Whoever reads the index asks for these by their digests.
    for (const member of members)
      if (member.entry.digest !== top.digest) await this.#manifest(member.entry, member.entry.digest)
    const served = await this.#manifest(top, digest ?? tag ?? '')
    // One platform under the name of all is another image there than here.
    if (top.digest === entry.digest)
      await this.#content.change(
        // Meanwhile the name may have gone, or stand for another image.
        (entries) =>
          entries.map((now) =>
            now.name === name && now.digest === entry.digest ? { ...now, served: entry.digest } : now,
          ),
        signal,
      )
    report?.({ kind: 'complete', digest: top.digest })
    return served
  }

  #manifest(document: Descriptor, reference: string): Promise<string> {
    const { path } = this.#reference
    const { signal } = this.#options
    const bytes = this.#content.layout.blob(document, mostManifestBytes, `manifest ${document.digest}`)
    return this.#registry.putManifest(path, reference, bytes, document.mediaType, { signal })
  }

  /** That all is here, or all of `one`, before anything is sent. */
  #checkMissing(entry: Entry, one: Member | undefined): void {
    const missing = this.#content.missing(one?.entry ?? entry)
    const [first] = missing
    if (first === undefined) return
    const details = { stage: 'push', subject: first.digest }
    if (one !== undefined || !isIndex(entry)) {
      const message = `layer ${first.digest}: its blob is not in the store any more; pull the image again`
      throw new CaissonError('ERR_IMAGE_NOT_FOUND', message, details)
    }
    const lacking = new Map(missing.map((blob) => [blob.entry.digest, blob.entry]))
    const shown = [...lacking.values()].slice(0, 20).map(showMember).join(', ')
    const what = `${fullName(this.#reference)}: not all of it is in the store any more: ${shown}`
    const message = `${what}; pull it again with all platforms, or push one platform`
    throw new CaissonError('ERR_IMAGE_NOT_FOUND', message, details)
  }

  async #blobs({ manifest, blobs }: Member): Promise<void> {
    const config = manifest?.config.digest
    const layers = blobs.filter(({ digest }) => digest !== config)
    const waiting = [...new Map(layers.map((layer) => [layer.digest, layer])).values()]
    const work = async (): Promise<void> => {
      for (let layer = waiting.shift(); layer !== undefined; layer = waiting.shift()) await this.#blob(layer)
    }
    const settled = await Promise.allSettled(Array.from({ length: parallel }, work))
    const failed = settled.find((one) => one.status === 'rejected')
    if (failed !== undefined) throw failed.reason
    if (manifest !== undefined) await this.#blob(manifest.config, false)
  }

  async #blob(blob: Descriptor, told = true): Promise<void> {
    const { path } = this.#reference
    const { signal, report } = this.#options
    const { digest, size } = blob
    const tell = (state: 'present' | 'mounted' | 'uploading' | 'complete', sent: number): void => {
      if (told) report?.({ kind: 'layer', digest, state, sent, size })
    }
    if (await this.#registry.hasBlob(path, digest, { signal })) return tell('present', size)
    for (const from of this.#others(digest))
      if (await this.#registry.mount(path, digest, from, { signal })) return tell('mounted', size)
    const open = () => createReadStream(this.#content.path(digest), { highWaterMark: 1 << 18 })
    await this.#registry.upload(path, blob, open, { signal, onBytes: (sent) => tell('uploading', sent) })
    tell('complete', size)
  }

  /** Repositories of the same registry that are known to have a blob: one is enough to ask. */
  #others(digest: string): string[] {
    const { domain, path } = this.#reference
    for (const entry of this.#content.entries()) {
      if (entry.name === undefined || entry.served === undefined) continue
      const other = parseName(entry.name)
      if (other.domain !== domain || other.path === path) continue
      if (this.#content.undamaged(entry).some(({ blobs }) => blobs.some((blob) => blob.digest === digest)))
        return [other.path]
    }
    return []
  }
}

/** Pushes the image of this name; the digest of its manifest. */
export async function push(
  content: Content,
  reference: RegistryReference,
  options: PushOptions,
): Promise<string> {
  const kept = await content.keep(options.signal)
  const registry = new Registry(reference.domain)
  try {
    return await new Push(content, reference, registry, options).run()
  } finally {
    registry.close()
    kept.release()
  }
}
