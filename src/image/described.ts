/** What is said of an image: read from its documents, and from what the store has of it. */
import type { Content, Entry } from './content.ts'
import { field, text } from './document.ts'
import type { Fields } from './document.ts'
import type { HistoryEntry, ImageInfo } from './info.ts'
import { stepsOf } from './config.ts'
import type { Known } from './known.ts'
import { showPlatform } from './manifest.ts'
import { isImage } from './platforms.ts'
import { familiar, parseName, showName } from './reference.ts'
import type { ImageStore } from './store.ts'

/** Where it is. */
export interface DescribedContext {
  store: ImageStore
  content: Content
}

function date(fields: Fields, name: string, what: string): Date | undefined {
  const given = text(fields, name, 64, what)
  const at = given === undefined ? Number.NaN : Date.parse(given)
  return Number.isNaN(at) ? undefined : new Date(at)
}

/** Bytes of its layers, the lowest first. */
function sizesOf({ store }: DescribedContext, { descriptor: { digest }, manifest }: Known): number[] {
  const chains = store.image(digest)?.chains ?? []
  const sizes = chains.map((chain) => store.layer(chain)?.bytes ?? 0).toReversed()
  // Those that are hidden by another are not there.
  return [...Array.from({ length: Math.max(0, manifest.layers.length - sizes.length) }, () => 0), ...sizes]
}

/** The platforms that are held under these. */
function platformsOf({ content }: DescribedContext, entries: readonly Entry[]): string[] {
  const images = entries.flatMap((entry) => content.undamaged(entry)).filter(isImage)
  return [...new Set(images.flatMap(({ entry: { platform } }) => (platform ? [showPlatform(platform)] : [])))]
}

/** An image whose documents could be read. */
export function describe(context: DescribedContext, known: Known): ImageInfo {
  const { entries, descriptor, manifest, config } = known
  const what = `config ${manifest.config.digest}`
  const run = field(config, 'config') as Fields | null | undefined
  const labels = run === undefined || run === null ? undefined : field(run, 'Labels')
  const served = entries.flatMap(({ name, served: digest }) =>
    name === undefined || digest === undefined ? [] : [`${familiar(parseName(name))}@${digest}`],
  )
  return {
    id: manifest.config.digest,
    digest: descriptor.digest,
    names: entries.flatMap(({ name }) => (name === undefined || name.includes('@') ? [] : [showName(name)])),
    repoDigests: [...new Set(served)],
    created: date(config, 'created', what),
    size: sizesOf(context, known).reduce((sum, one) => sum + one, 0),
    platform: descriptor.platform === undefined ? '' : showPlatform(descriptor.platform),
    platforms: platformsOf(context, entries),
    labels: { ...(labels as Record<string, string> | undefined) },
  }
}

/** Images whose documents are damaged: what is known without these. */
export function unreadable({ store }: DescribedContext, entries: readonly Entry[]): ImageInfo[] {
  return [...new Set(entries.map(({ digest }) => digest))].map((digest) => {
    const same = entries.filter((entry) => entry.digest === digest)
    const { id = digest, chains = [] } = store.image(digest) ?? {}
    const platform = same.find((entry) => entry.platform !== undefined)?.platform
    return {
      id,
      digest,
      names: same.flatMap(({ name }) => (name === undefined ? [] : [showName(name)])),
      repoDigests: [],
      created: undefined,
      size: chains.reduce((sum, chain) => sum + (store.layer(chain)?.bytes ?? 0), 0),
      platform: platform === undefined ? '' : showPlatform(platform),
      platforms: platform === undefined ? [] : [showPlatform(platform)],
      labels: {},
    }
  })
}

/** How an image was made, the last step first. */
export function historyOf(context: DescribedContext, image: Known): HistoryEntry[] {
  const sizes = sizesOf(context, image)
  const known = stepsOf(image.config, `config ${image.manifest.config.digest}`)
  let layer = 0
  const made = known.map((step): HistoryEntry => {
    const none = field(step, 'empty_layer') === true
    const size = none ? 0 : (sizes[layer] ?? 0)
    if (!none) layer += 1
    return {
      created: date(step, 'created', 'history'),
      createdBy: text(step, 'created_by', 1 << 20, 'history') ?? '',
      comment: text(step, 'comment', 1 << 20, 'history') ?? '',
      size,
    }
  })
  const rest = sizes.slice(layer).map((size) => ({ created: undefined, createdBy: '', comment: '', size }))
  return [...made, ...rest].toReversed()
}
