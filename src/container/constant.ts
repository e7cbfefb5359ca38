/** Parts of specs that are the same in every run, known by a number: two specs are compared by what is their own. */

const numbers = new WeakMap<object, number>()
let last = 0

/** Gives a value its number, since it never changes. */
export function constant<T extends object>(value: T): T {
  last += 1
  numbers.set(value, last)
  return value
}

/** How deep in a spec constants are: in itself, in `process`, in `process.capabilities`. Below may be callers' objects. */
const depth = 3

/** A copy with numbers in place of constants, which are never where a number of a caller's could be. */
export function abridged(value: object, levels: number = depth): object {
  const copy: Record<string, unknown> = {}
  for (const [name, field] of Object.entries(value) as [string, unknown][]) {
    if (typeof field !== 'object' || field === null) copy[name] = field
    else
      copy[name] =
        numbers.get(field) ?? (levels === 0 || Array.isArray(field) ? field : abridged(field, levels - 1))
  }
  return copy
}
