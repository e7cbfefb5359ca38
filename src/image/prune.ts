/** Removing images that nobody asked for by name: the dangling, the unused, the least recently used. */
import { surplus } from './budget.ts'
import type { Weighed } from './budget.ts'
import { collect, collectHeld } from './collect.ts'
import type { Collected } from './collect.ts'
import type { Content, Entry } from './content.ts'
import type { PruneOptions, Removed } from './info.ts'
import { readImages } from './known.ts'
import type { Known } from './known.ts'
import { showName } from './reference.ts'
import type { ImageStore } from './store.ts'

/** Whose images are removed. */
export interface PruneContext {
  root: string
  content: Content
  store: ImageStore
  /** Whether a container runs of one of these. */
  isUsed: (entries: readonly Entry[]) => boolean
}

/** What went, and what of it is to be swept. */
export interface Pruned extends Removed {
  collected: Collected
}

const nothing: Collected = { layers: 0, blobs: 0, bytes: 0 }

function isDangling({ entries }: Known): boolean {
  return entries.every(({ name }) => name === undefined)
}

/** Removes those entries that are still what they were when they were looked at, and changes the others. */
async function drop(
  content: Content,
  gone: readonly Entry[],
  others: (entry: Entry) => Entry = (entry) => entry,
): Promise<void> {
  const keyOf = ({ digest, name }: Entry): string => `${digest} ${name ?? ''}`
  const keys = new Set(gone.map(keyOf))
  await content.change((entries) => entries.filter((entry) => !keys.has(keyOf(entry))).map(others))
}

function removed(
  gone: readonly Known[],
  collected: Collected,
  damaged: readonly Entry[] = [],
  idOf: (digest: string) => string = (digest) => digest,
): Pruned {
  const entriesGone = [...gone.flatMap(({ entries }) => entries), ...damaged]
  return {
    untagged: entriesGone.flatMap(({ name }) => (name === undefined ? [] : [showName(name)])),
    deleted: [
      ...gone.map(({ manifest }) => manifest.config.digest),
      ...new Set(damaged.map(({ digest }) => idOf(digest))),
    ],
    collected,
  }
}

/** Removes all of a kind. */
export async function prune(
  context: PruneContext,
  { all = false, blobs = false }: Pick<PruneOptions, 'all' | 'blobs'>,
): Promise<Pruned> {
  const { root, content, store, isUsed } = context
  const { known, damaged } = readImages(content)
  const gone = known.filter((one) => (all || isDangling(one)) && !isUsed(one.entries))
  // An image that has a name under one manifest needs no other; what cannot be read and has no name no pull mends.
  const isSpare = ({ name }: Entry): boolean => name === undefined
  const spare = known.flatMap((one) => (isDangling(one) ? [] : one.entries.filter(isSpare)))
  const lost = damaged.filter((entry) => isSpare(entry) || (all && !isUsed([entry])))
  const entriesGone = [...gone.flatMap(({ entries }) => entries), ...spare, ...lost]
  // That their blobs are missing is no damage then.
  const isBare = (entry: Entry): boolean =>
    blobs &&
    [entry.digest, ...content.listed(entry)].some((digest) => {
      const facts = store.image(digest)
      return facts !== undefined && store.has(facts)
    })
  // While somebody pulls blobs stay, and are not said to be gone.
  const lock = content.collect()
  const named = lost.filter((entry) => !isSpare(entry))
  const ids = new Map(named.map(({ digest }) => [digest, store.image(digest)?.id ?? digest]))
  const idOf = (digest: string): string => ids.get(digest) ?? digest
  const mark = (entry: Entry): Entry => (isBare(entry) ? { ...entry, pruned: true } : entry)
  try {
    if (entriesGone.length > 0 || (blobs && lock !== undefined))
      await drop(content, entriesGone, lock === undefined ? undefined : mark)
    const collected =
      lock === undefined
        ? collect(root, content, store)
        : collectHeld(root, content, store, { blobs, layouts: all })
    return removed(gone, collected ?? nothing, named, idOf)
  } finally {
    lock?.release()
  }
}

/** How many bytes the store takes. */
function sizeOf({ content, store }: PruneContext): number {
  const layers = store.layers().reduce((sum, { bytes }) => sum + bytes, 0)
  return content.blobs().reduce((sum, { size }) => sum + size, layers)
}

function weigh(
  { content, store, isUsed }: PruneContext,
  image: Known,
  held: ReadonlySet<string>,
): Weighed<Known> {
  const parts = new Map<string, number>()
  const sizes = new Map(content.blobs().map(({ digest, size }) => [digest, size]))
  const blob = (digest: string): void => void parts.set(digest, sizes.get(digest) ?? 0)
  const { entries } = image
  const members = [...new Map(entries.map((one) => [one.digest, one])).values()].flatMap((entry) =>
    content.undamaged(entry),
  )
  for (const { entry, blobs } of members) {
    for (const { digest } of [entry, ...blobs]) blob(digest)
    for (const chain of store.image(entry.digest)?.chains ?? [])
      parts.set(chain, store.layer(chain)?.bytes ?? 0)
  }
  for (const { digest } of entries) blob(digest)
  for (const { served } of entries) if (served !== undefined) blob(served)
  return {
    image,
    parts,
    used: Math.max(0, ...members.map(({ entry }) => store.lastUsed(entry.digest))),
    isNamed: !isDangling(image),
    isHeld: () => members.some(({ entry }) => held.has(entry.digest)) || isUsed(entries),
  }
}

/**
 * Removes images that no container uses until the store is within `limit` bytes: those without a name first, then with `all`
 * those that were not used for longest. Not while somebody pulls, who may need them, and not those of `held`, by their
 * manifests' digests.
 */
export async function shrink(
  context: PruneContext,
  limit: number,
  { all, held = new Set() }: { all: boolean; held?: ReadonlySet<string> },
): Promise<Pruned> {
  const { root, content, store } = context
  if (sizeOf(context) <= limit) return removed([], nothing)
  const lock = content.collect()
  if (lock === undefined) return removed([], nothing)
  try {
    const before = collectHeld(root, content, store, {})
    const weighed = readImages(content).known.map((image) => {
      const one = weigh(context, image, held)
      return all || !one.isNamed ? one : { ...one, isHeld: () => true }
    })
    const gone = surplus(weighed, sizeOf(context), limit)
    if (gone.length > 0)
      await drop(
        content,
        gone.flatMap(({ entries }) => entries),
      )
    const after = collectHeld(root, content, store, {})
    // Last what layouts elsewhere can give again.
    const last =
      all && sizeOf(context) > limit ? collectHeld(root, content, store, { layouts: true }) : nothing
    const sum = (of: (one: Collected) => number): number => of(before) + of(after) + of(last)
    return removed(gone, {
      layers: sum(({ layers }) => layers),
      blobs: sum(({ blobs }) => blobs),
      bytes: sum(({ bytes }) => bytes),
    })
  } finally {
    lock.release()
  }
}
