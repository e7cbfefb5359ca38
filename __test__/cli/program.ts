/** The program itself. */
import { fileURLToPath } from 'node:url'

export const main: string = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url))

/** How it ended. */
export interface Ended {
  status: number | null
  stdout: string
  stderr: string
}
