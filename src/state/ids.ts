/** Which ids the containers of this program's user have: root's own, a range from /etc/subuid, or the one that it is. */
import { accessSync, constants, readFileSync } from 'node:fs'
import { userInfo } from 'node:os'
import { delimiter, join } from 'node:path'

/** `root`: the machine's own ids. `range`: this user's and a range of others. `single`: this user's alone. */
export type IdKind = 'root' | 'range' | 'single'

/** A user namespace to work in. A range is three numbers: the first id inside, the first outside, how many. */
export interface IdMap {
  kind: IdKind
  uids: number[]
  gids: number[]
  /** The paths of newuidmap(1) and newgidmap(1). */
  helpers?: [string, string]
}

/** The subordinate ids of a user, subuid(5): lines of `name:first:count`, the name or its number. */
export function subordinate(text: string, user: { name: string; id: number }): [number, number][] {
  const ranges: [number, number][] = []
  for (const line of text.split('\n')) {
    const [name, first, count] = line.split(':')
    if (name === '' || (name !== user.name && name !== String(user.id))) continue
    const range: [number, number] = [Number(first), Number(count)]
    if (range.every((number) => Number.isInteger(number) && number > 0 && number <= 0xffff_ffff))
      ranges.push(range)
  }
  return ranges
}

/** The own id as 0, and the ranges from 1 on. */
function mapped(own: number, ranges: readonly [number, number][]): number[] {
  const numbers = [0, own, 1]
  let inside = 1
  for (const [first, count] of ranges) {
    numbers.push(inside, first, count)
    inside += count
  }
  return numbers
}

function lines(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}

function find(program: string, path: string): string | undefined {
  return [...path.split(delimiter), '/usr/bin', '/bin']
    .filter((directory) => directory.startsWith('/'))
    .map((directory) => join(directory, program))
    .find((file) => {
      try {
        accessSync(file, constants.X_OK)
        return true
      } catch {
        return false
      }
    })
}

function userName(): string {
  try {
    return userInfo().username
  } catch {
    // A user without an entry has a number alone.
    return ''
  }
}

function probe(): IdMap {
  const [uid = 0, gid = 0] = [process.geteuid?.(), process.getegid?.()]
  if (uid === 0) return { kind: 'root', uids: [], gids: [] }
  const single: IdMap = { kind: 'single', uids: [0, uid, 1], gids: [0, gid, 1] }
  const user = { name: userName(), id: uid }
  const [uids, gids] = ['/etc/subuid', '/etc/subgid'].map((file) => subordinate(lines(file), user))
  const [newuidmap, newgidmap] = ['newuidmap', 'newgidmap'].map((name) => find(name, process.env.PATH ?? ''))
  if (uids?.[0] === undefined || gids?.[0] === undefined) return single
  if (newuidmap === undefined || newgidmap === undefined) return single
  return { kind: 'range', uids: mapped(uid, uids), gids: mapped(gid, gids), helpers: [newuidmap, newgidmap] }
}

let known: IdMap | undefined

/** What this program's user has; looked at once. */
export function idMap(): IdMap {
  known ??= probe()
  return known
}
