/** What an attack is after: a directory of the host, outside every root file system, and whether it was touched. */
import { chownSync, lstatSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'
import { isRoot } from '../host/ground.ts'

const owner = 1234

/** Makes the bait: a directory with a few files of a stranger's. */
export function makeBait(dir: string, names: readonly string[] = ['f', 'ptmx']): string {
  const bait = join(dir, 'bait')
  mkdirSync(bait)
  for (const name of names) {
    writeFileSync(join(bait, name), `bait ${name}\n`, { mode: 0o640 })
    if (isRoot) chownSync(join(bait, name), owner, owner)
  }
  if (isRoot) chownSync(bait, owner, owner)
  return bait
}

function describe(path: string): string {
  const { mode, uid, gid, rdev, ino } = lstatSync(path)
  return `${path} ${mode.toString(8)} ${uid}:${gid} ${rdev} ${ino}`
}

/** All that can be changed of it. */
export function lookAt(bait: string): string {
  const files = readdirSync(bait, { recursive: true, withFileTypes: true })
    .map((entry) => join(entry.parentPath, entry.name))
    .toSorted()
  const texts = files.filter((path) => lstatSync(path).isFile()).map((path) => readFileSync(path, 'utf8'))
  return [describe(bait), ...files.map(describe), ...texts].join('\n')
}

/** Fails if the bait is not what it was, nor this host's mounts. */
export async function safe(t: ExecutionContext, bait: string, attack: () => Promise<unknown>): Promise<void> {
  const [before, mounts] = [lookAt(bait), readFileSync('/proc/self/mountinfo', 'utf8')]
  await attack()
  t.is(lookAt(bait), before)
  t.is(readFileSync('/proc/self/mountinfo', 'utf8'), mounts)
}
