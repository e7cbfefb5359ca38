/** Builds probe.c, a static program that runs inside containers. */
import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const source = fileURLToPath(new URL('probe.c', import.meta.url))

/** The path of the program, made in `dir`. */
export function probe(dir: string): string {
  const path = join(dir, 'probe')
  execFileSync('cc', ['-O1', '-static', '-o', path, source])
  return path
}
