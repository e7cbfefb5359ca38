/** The store of a test: an engine on a root of its own, and what is left in it. */
import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { ExecutionContext } from 'ava'
import { Engine } from '../../src/container/engine.ts'
import { hasUsers, isRoot, runtime } from '../host/ground.ts'
import { leavesNothing } from '../host/ledger.ts'

/** A directory of one test, in which nothing stays. */
export function scratch(t: ExecutionContext): string {
  const directory = `${runtime}/image-${t.title.replaceAll(/\W+/g, '-').slice(0, 60)}`
  leavesNothing(t, directory)
  t.teardown(async () => {
    await shimsAreGone(directory)
    // A range's other users own files that this user has rights over in a user namespace alone.
    if (hasUsers && !isRoot)
      execFileSync('unshare', ['--user', '--map-root-user', '--map-auto', 'rm', '-rf', directory])
    rmSync(directory, { recursive: true, force: true })
  })
  return directory
}

/** An engine whose state lies below `directory`. */
export function engine(t: ExecutionContext, directory: string): Engine {
  const made = new Engine({ root: join(directory, 'data'), runRoot: join(directory, 'run') })
  t.teardown(() => made.close())
  return made
}

/** Waits for the shims of `directory`, which end by themselves once their programs are gone. */
export async function shimsAreGone(directory: string): Promise<void> {
  // An engine's of a test, and the command line's.
  const places = ['run/shims', 'data/run/shims'].map((name) => join(directory, name))
  const isThere = (): boolean => places.some((shims) => existsSync(shims) && readdirSync(shims).length > 0)
  for (let look = 0; look < 500 && isThere(); look += 1) await sleep(10)
}

/** What the store below `directory` holds, by kind. */
export function held(directory: string): Record<string, number> {
  const count = (name: string): number => {
    const path = join(directory, 'data', name)
    return existsSync(path) ? readdirSync(path).length : 0
  }
  return {
    layers: count('layers'),
    unpacking: count('unpacking'),
    facts: count('facts'),
    layouts: count('layouts'),
  }
}

/** Nothing. */
export const empty = { layers: 0, unpacking: 0, facts: 0, layouts: 0 }
