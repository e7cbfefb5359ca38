/** Locks between programs, which the kernel gives up with their holder (flock(2)). */
import { setTimeout as sleep } from 'node:timers/promises'
import { native } from '../native.ts'

/** A lock that is held. */
export interface Lock {
  release(): void
}

/** How long between two looks at a lock that somebody else has, ms: at first, at most. */
const looks = { first: 2, most: 50 }

/** Takes a lock if nobody else has it, on a file that is made if it is not there. */
export function tryLock(path: string, how: 'shared' | 'exclusive'): Lock | undefined {
  const { addon } = native()
  const number = addon.lock(path, how === 'exclusive', true)
  return number < 0 ? undefined : { release: () => addon.unlock(number) }
}

/** Takes a lock on a directory if nobody else has it: undefined if somebody has, null if it is not there. */
export function tryLockDirectory(path: string): Lock | undefined | null {
  const { addon } = native()
  const number = addon.lock(path, true, false)
  if (number === -2) return null
  return number < 0 ? undefined : { release: () => addon.unlock(number) }
}

/** Takes a lock on a directory that is there, once it can be had. Rejects with the signal's reason. */
export async function lockDirectory(path: string, signal: AbortSignal): Promise<Lock> {
  for (;;) {
    signal.throwIfAborted()
    const taken = tryLockDirectory(path)
    if (taken === null) throw Object.assign(new Error(`${path}: it is gone`), { code: 'ENOENT' })
    if (taken !== undefined) return taken
    await sleep(looks.most, undefined, { signal })
  }
}

/** Takes a lock once it can be had. Rejects with the signal's reason. */
export async function lock(
  path: string,
  how: 'shared' | 'exclusive',
  signal: AbortSignal | undefined,
): Promise<Lock> {
  let wait = looks.first
  for (;;) {
    signal?.throwIfAborted()
    const taken = tryLock(path, how)
    if (taken !== undefined) return taken
    await sleep(wait, undefined, { signal })
    wait = Math.min(wait * 2, looks.most)
  }
}
