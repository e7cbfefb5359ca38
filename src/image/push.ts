/** An image to a registry: blobs that it lacks, then the manifest, so that the name never stands for half an image. */
import { createReadStream } from 'node:fs'
import { CaissonError } from '../errors.ts'
import { Registry } from '../registry/registry.ts'
import type { Content } from './content.ts'
import { mostManifestBytes, parseManifest } from './manifest.ts'
import type { Descriptor, Manifest } from './manifest.ts'
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
    const { path, tag, digest } = this.#reference
    const { signal, report } = this.#options
    const name = fullName(this.#reference)
    const entry = this.#content.entry(name)
    if (entry === undefined) {
      const message = `${name}: no such image here; tag one with this name first`
      throw new CaissonError('ERR_IMAGE_NOT_FOUND', message, { stage: 'push', subject: name })
    }
    const what = `manifest ${entry.digest}`
    const bytes = this.#content.layout.blob(entry, mostManifestBytes, what)
    const document = parseManifest(bytes, what, entry.mediaType)
    if (document.kind !== 'manifest') throw new CaissonError('ERR_INVALID_IMAGE', `${what}: is an index`)
    await this.#blobs(document)
    await this.#blob(document.config, false)
    signal.throwIfAborted()
    const served = await this.#registry.putManifest(path, digest ?? tag ?? '', bytes, entry.mediaType, {
      signal,
    })
    await this.#content.name({ ...entry, served: entry.digest }, signal)
    report?.({ kind: 'complete', digest: entry.digest })
    return served
  }

  async #blobs({ layers }: Manifest): Promise<void> {
    const missing = layers.find(({ digest, size }) => !this.#content.has(digest, size))
    if (missing !== undefined) {
      const message = `layer ${missing.digest}: its blob is not in the store any more; pull the image again`
      throw new CaissonError('ERR_IMAGE_NOT_FOUND', message, { stage: 'push', subject: missing.digest })
    }
    const waiting = [...new Map(layers.map((layer) => [layer.digest, layer])).values()]
    const work = async (): Promise<void> => {
      for (let layer = waiting.shift(); layer !== undefined; layer = waiting.shift()) await this.#blob(layer)
    }
    const settled = await Promise.allSettled(Array.from({ length: parallel }, work))
    const failed = settled.find((one) => one.status === 'rejected')
    if (failed !== undefined) throw failed.reason
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
      const what = `manifest ${entry.digest}`
      const document = parseManifest(
        this.#content.layout.blob(entry, mostManifestBytes, what),
        what,
        entry.mediaType,
      )
      if (document.kind === 'manifest' && document.layers.some((layer) => layer.digest === digest))
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
