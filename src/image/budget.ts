/** Which images go where the store is to take no more than so many bytes: those that were not used for longest. */

/** An image, and what it takes. */
export interface Weighed<Image> {
  image: Image
  /** Bytes of its blobs and layers, by their names: what others have too is freed with the last of them. */
  parts: ReadonlyMap<string, number>
  /** When it was last used, ms since 1970. */
  used: number
  /** Whether it has a name: those without go first. */
  isNamed: boolean
  /** Asked last: whether it must stay. */
  isHeld: () => boolean
}

/**
 * What is to go of a store of `total` bytes, until it is within `limit` or all has gone that may. What would go and free
 * nothing stays.
 */
export function surplus<Image>(images: readonly Weighed<Image>[], total: number, limit: number): Image[] {
  const holders = new Map<string, number>()
  for (const { parts } of images)
    for (const name of parts.keys()) holders.set(name, (holders.get(name) ?? 0) + 1)
  const change = ({ parts }: Weighed<Image>, by: 1 | -1): number => {
    let bytes = 0
    for (const [name, size] of parts) {
      const count = (holders.get(name) ?? 0) + by
      holders.set(name, count)
      // The last that goes, or the first that is back.
      if (count === (by === 1 ? 1 : 0)) bytes += size
    }
    return bytes
  }
  let size = total
  const gone: Weighed<Image>[] = []
  const order = images.toSorted(
    (one, other) => Number(one.isNamed) - Number(other.isNamed) || one.used - other.used,
  )
  for (const one of order) {
    if (size <= limit) break
    if (one.isHeld()) continue
    size -= change(one, -1)
    gone.push(one)
  }
  const stay = new Set<Weighed<Image>>()
  for (const one of gone.toReversed()) {
    const back = change(one, 1)
    if (back === 0 || size + back <= limit) {
      size += back
      stay.add(one)
    } else change(one, -1)
  }
  return gone.filter((one) => !stay.has(one)).map(({ image }) => image)
}
