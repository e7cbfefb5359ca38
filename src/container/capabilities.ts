/** Which capabilities a container gets: the default ones, more, fewer. */
import { capabilities, capabilityNames } from './defaults.ts'
import { refuse } from '../errors.ts'
import { bare } from './options.ts'
import type { RunOptions } from './options.ts'
import { constant } from './constant.ts'

function name(option: string, word: string): string {
  const upper = word.toUpperCase()
  if (upper === 'ALL') return upper
  const full = upper.startsWith('CAP_') ? upper : `CAP_${upper}`
  if (!capabilityNames.includes(full)) throw refuse(option, `invalid capability: "${word}"`)
  return full
}

/** What an exec keeps of what its container has. */
export function without(held: readonly string[], capDrop: readonly string[]): readonly string[] {
  const drop = capDrop.map((word) => name('capDrop', word))
  return drop.includes('ALL') ? [] : held.filter((word) => !drop.includes(word))
}

/**
 * Docker's rules. `ALL` is what the engine itself holds, `bounding`: a nested or restricted host has less.
 */
export function capabilitySets(options: RunOptions, bounding: bigint): readonly string[] {
  if (options.capAdd !== undefined || options.capDrop !== undefined) return changed(options, bounding)
  if (unchanged?.bounding !== bounding) unchanged = { bounding, sets: constant(changed(bare({}), bounding)) }
  return unchanged.sets
}

/** The default ones, which most runs have: equal objects are made once, and written once (constant.ts). */
let unchanged: { bounding: bigint; sets: readonly string[] } | undefined

function changed(options: RunOptions, bounding: bigint): readonly string[] {
  const add = (options.capAdd ?? []).map((word) => name('capAdd', word))
  const drop = (options.capDrop ?? []).map((word) => name('capDrop', word))
  const held = capabilityNames.filter((_, number) => ((bounding >> BigInt(number)) & 1n) === 1n)
  const missing = add.find((word) => word !== 'ALL' && !held.includes(word))
  if (missing !== undefined)
    throw refuse('capAdd', `${missing} is not held by this process, so it cannot be given`)
  if (add.includes('ALL')) return held.filter((word) => !drop.includes(word))
  const base = drop.includes('ALL')
    ? []
    : capabilities.filter((word) => held.includes(word) && !drop.includes(word))
  return [...base, ...add.filter((word) => !base.includes(word))].toSorted()
}
