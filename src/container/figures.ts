/** Figures of what runs, asked of its shim. */
import { toError } from '../native.ts'
import type { CaissonError } from '../errors.ts'
import { statsOf } from './result.ts'
import type { Connection } from './shim.ts'

/** Figures of a running container, or of a command in one. */
export type Stats = ReturnType<typeof statsOf>

/** Asks for the figures of what has this number; `ended` is thrown if it has ended. */
export async function statsOver(
  connection: Connection,
  target: number,
  ended: () => CaissonError,
): Promise<Stats> {
  const request = connection.token()
  return new Promise((resolve, reject) => {
    const { shim, forget } = connection.get(request, (event) => {
      forget()
      if (event instanceof Error) reject(event)
      else if (event.usage === undefined) reject(ended())
      else resolve(statsOf(event.usage))
    })
    const failure = shim.stats(target, request)
    if (failure === null) return
    forget()
    reject(toError(failure))
  })
}
