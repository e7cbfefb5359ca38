/** The engine that a command works with. */
import { Engine } from '../index.ts'

/** The one at `root`, or where everybody's is. */
export function engineAt(root: string | undefined): Engine {
  return new Engine(root === undefined ? {} : { root })
}
