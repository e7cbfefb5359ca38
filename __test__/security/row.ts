/** A test of a row of the table, by whose name its control finds it. */
import test from 'ava'
import type { ExecutionContext } from 'ava'
import { hasUsers, isRoot } from '../host/ground.ts'
import { rows } from './rows.ts'

/** Seconds that a race runs. */
export const raceSeconds: number = Number(process.env.CAISSON_RACE_SECONDS ?? 10)

/** A test of a row. `needs`: what it itself does is root's alone, or its container has other users than 0. */
export function row(
  id: string,
  title: string,
  run: (t: ExecutionContext) => Promise<void>,
  needs?: 'root' | 'users',
): void {
  if ((needs === 'root' && !isRoot) || (needs === 'users' && !hasUsers)) return
  if (rows[id] === undefined) throw new Error(`${id} is no row of __test__/security/rows.ts`)
  test(`${id}: ${title}`, async (t) => {
    t.timeout(raceSeconds * 1000 + 60_000)
    await run(t)
  })
}
