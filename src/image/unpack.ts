/** From a reference to layers that can be mounted: what is read and checked, what is unpacked, in which order. */
import { closeSync } from 'node:fs'
import { CaissonError } from '../errors.ts'
import { parseConfig } from './config.ts'
import type { ImageConfig } from './config.ts'
import { identify, Layout } from './layout.ts'
import type { Identity } from './layout.ts'
import type { Manifest } from './manifest.ts'
import { parseReference } from './reference.ts'
import type { LayoutReference } from './reference.ts'
import { chainIds, ImageStore } from './store.ts'
import type { Facts } from './store.ts'

/** A layer to be put into the store. */
export interface LayerRequest {
  /** Its name there. */
  chain: string
  /** The chain ids of the layers below it, the topmost first; all are there. */
  lowers: readonly string[]
  /** What the blob must hash to, and its size. */
  digest: string
  size: number
  /** What it must hash to when it is inflated. */
  diffId: string
  /** The blob, opened; it stays the caller's. */
  blob: number
}

/** Unpacks a layer; settles once it is in the store, or once nothing of it is left. */
export type UnpackLayer = (layer: LayerRequest, signal: AbortSignal) => Promise<void>

/** An image that can be run. */
export interface Image {
  /** The directories to mount, the topmost first. */
  lowers: string[]
  config: ImageConfig
}

/** One unpacking that several callers wait for. It goes on for as long as one of them does. */
interface Flight {
  facts: Promise<Facts>
  cancel: AbortController
  waiting: number
}

/** The images of one data root. */
export class Images {
  readonly #store: ImageStore
  readonly #unpackLayer: UnpackLayer
  /** What this process knows, by layout and tag. */
  readonly #known = new Map<string, { identity: Identity; facts: Facts; image: Image }>()
  readonly #flights = new Map<string, Flight>()

  constructor(dataRoot: string, unpackLayer: UnpackLayer) {
    this.#store = new ImageStore(dataRoot)
    this.#unpackLayer = unpackLayer
  }

  /**
   * An image that was unpacked before and whose layout has not changed since: a stat of its index, and in a new process
   * one small file. Undefined for any other.
   */
  find(name: string): Image | undefined {
    const reference = parseReference(name)
    const index = identify(reference.directory)
    return index && this.#find(reference, index.identity)
  }

  #find(reference: LayoutReference, identity: Identity): Image | undefined {
    const key = keyOf(reference)
    const known = this.#known.get(key)
    const same = known?.identity === identity ? known : undefined
    const facts = same?.facts ?? this.#store.layout(reference, identity)
    if (facts === undefined || !this.#store.has(facts)) return undefined
    return same?.image ?? this.#keep(reference, identity, facts)
  }

  /**
   * Makes an image ready: reads and verifies what is not known yet, unpacks what is not there.
   * @throws CaissonError with the codes of reference.ts, layout.ts, manifest.ts, config.ts and of the unpacking; the
   * signal's reason when it is aborted.
   */
  async prepare(name: string, signal: AbortSignal): Promise<Image> {
    signal.throwIfAborted()
    const reference = parseReference(name)
    // Before the index is read, so that a later change is seen.
    const index = identify(reference.directory)
    const layout = new Layout(reference.directory)
    const known = layout.manifest(reference.tag, (digest) => {
      const facts = this.#store.image(digest)
      return facts !== undefined && this.#store.has(facts) ? facts : undefined
    })
    const facts =
      'known' in known ? known.known : await this.#join(layout, known.digest, known.manifest, signal)
    if (index?.settled === true) {
      this.#store.rememberLayout(reference, index.identity, facts)
      return this.#keep(reference, index.identity, facts)
    }
    return this.#image(facts)
  }

  #keep(reference: LayoutReference, identity: Identity, facts: Facts): Image {
    const image = this.#image(facts)
    this.#known.set(keyOf(reference), { identity, facts, image })
    return image
  }

  #image({ chains, config }: Facts): Image {
    const lowers = chains.map((chain) => this.#store.tree(chain))
    return { lowers: lowers.length === 0 ? [this.#store.empty()] : lowers, config }
  }

  /** Unpacks an image together with whoever wants the same one now. */
  #join(layout: Layout, digest: string, manifest: Manifest, signal: AbortSignal): Promise<Facts> {
    let flight = this.#flights.get(digest)
    if (flight === undefined || flight.cancel.signal.aborted) {
      const cancel = new AbortController()
      const facts = this.#unpack(layout, digest, manifest, cancel.signal)
      const started: Flight = { facts, cancel, waiting: 0 }
      const over = (): void => {
        if (this.#flights.get(digest) === started) this.#flights.delete(digest)
      }
      facts.then(over, over)
      this.#flights.set(digest, started)
      flight = started
    }
    return wait(flight, signal)
  }

  async #unpack(layout: Layout, digest: string, manifest: Manifest, signal: AbortSignal): Promise<Facts> {
    const { config, diffIds } = parseConfig(
      layout.config(manifest.config),
      `config ${manifest.config.digest}`,
      manifest.layers.length,
    )
    const ids = chainIds(diffIds)
    let chains: string[] = []
    for (const [at, layer] of manifest.layers.entries()) {
      const [chain, diffId] = [ids[at] ?? '', diffIds[at] ?? '']
      let found = this.#store.layer(chain)
      if (found === undefined) {
        const blob = layout.open(layer)
        try {
          await this.#unpackLayer(
            { chain, lowers: chains, digest: layer.digest, size: layer.size, diffId, blob },
            signal,
          )
        } finally {
          closeSync(blob)
        }
        found = this.#store.layer(chain)
      }
      if (found === undefined)
        throw new CaissonError('ERR_INTERNAL', `layer ${chain} was unpacked and is not there`)
      // overlayfs has no mark for a layer that hides all others: they are left out.
      chains = found.opaque ? [chain] : [chain, ...chains]
    }
    const facts = { digest, config, chains }
    this.#store.remember(facts)
    return facts
  }
}

function keyOf({ directory, tag }: LayoutReference): string {
  return `${directory}\0${tag ?? ''}`
}

/** Waits with the others. Who leaves last ends the unpacking, and waits until nothing of it is left. */
async function wait(flight: Flight, signal: AbortSignal): Promise<Facts> {
  let leave: (() => void) | undefined
  const left = new Promise<never>((_, reject) => {
    leave = () => {
      flight.waiting -= 1
      if (flight.waiting === 0) flight.cancel.abort(signal.reason)
      else reject(signal.reason)
    }
    signal.addEventListener('abort', leave, { once: true })
  })
  flight.waiting += 1
  try {
    return await Promise.race([flight.facts, left])
  } catch (error) {
    signal.throwIfAborted()
    throw error
  } finally {
    if (leave !== undefined) signal.removeEventListener('abort', leave)
  }
}
