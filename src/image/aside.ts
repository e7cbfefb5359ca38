/** What is damaged in the store is moved out of the way, so that whoever wants it next gets it anew. */
import { existsSync, readdirSync } from 'node:fs'
import { dirname } from 'node:path'
import { tryLockDirectory } from '../state/lock.ts'
import type { Lock } from '../state/lock.ts'
import type { ImageStore } from './store.ts'

/**
 * Throws a layer away, unless a container uses it; answers whether it is gone. `isStill` is asked once nobody else can use
 * it: another program may have mended it meanwhile.
 */
export function setAside(store: ImageStore, chain: string, isStill: () => boolean = () => true): boolean {
  // A container holds the topmost layer of its image. Of one that no record knows it may stand on any other.
  const known = [...store.allFacts().map(({ digest }) => store.image(digest)), ...store.records()]
  const elsewhere = new Set<string>()
  const above = new Set([chain])
  for (const facts of known) {
    const [top] = facts?.chains ?? []
    if (facts === undefined || top === undefined) continue
    if (facts.chains.includes(chain)) above.add(top)
    else elsewhere.add(top)
  }
  const layers = dirname(store.place(chain))
  const locks: Lock[] = []
  try {
    for (const name of existsSync(layers) ? readdirSync(layers) : []) {
      if (elsewhere.has(name) && !above.has(name)) continue
      const lock = tryLockDirectory(store.place(name))
      if (lock === undefined) return false
      if (lock !== null) locks.push(lock)
    }
    if (existsSync(store.place(chain)) && isStill()) store.discard(chain)
    return true
  } finally {
    for (const lock of locks) lock.release()
  }
}
