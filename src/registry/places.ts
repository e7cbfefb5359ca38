/** Where configuration lies, and how it is read: files of this user's or the administrator's, never a registry's. */
import { readFileSync, statSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { CaissonError } from '../errors.ts'
import { parseObject } from './json.ts'
import type { Fields } from './json.ts'

export type Environment = Readonly<NodeJS.ProcessEnv>

/** The most bytes of a file of configuration. */
const mostBytes = 1 << 20

export function isRoot(): boolean {
  return process.geteuid?.() === 0
}

/** This user's home. */
export function home(env: Environment): string {
  return env.HOME !== undefined && env.HOME !== '' ? env.HOME : homedir()
}

/** Directories of configuration, the first wins: for a user the own one before the machine's. */
export function configDirectories(env: Environment, root: boolean): string[] {
  if (root) return ['/etc']
  const own =
    env.XDG_CONFIG_HOME !== undefined && env.XDG_CONFIG_HOME !== '' ? env.XDG_CONFIG_HOME : undefined
  return [own ?? join(home(env), '.config'), '/etc']
}

/** A configuration that says something wrong. */
export function wrong(path: string, message: string): CaissonError {
  return new CaissonError('ERR_INVALID_OPTION', `${path}: ${message}`, { subject: path })
}

/**
 * A file's bytes; undefined where there is none.
 * @throws CaissonError ERR_INVALID_OPTION with the path for one that cannot be read or is larger than 1 MiB.
 */
export function readConfig(path: string): Buffer | undefined {
  try {
    const stat = statSync(path)
    // A FIFO would be waited for.
    if (!stat.isFile()) throw wrong(path, 'is no regular file')
    if (stat.size > mostBytes) throw wrong(path, `is larger than ${mostBytes} bytes`)
    return readFileSync(path)
  } catch (error) {
    if (error instanceof CaissonError) throw error
    const { code = String(error) } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined
    throw new CaissonError('ERR_INVALID_OPTION', `${path}: ${code}`, { subject: path, cause: error })
  }
}

/** The JSON object in a file; undefined where there is no file, or nothing in it. */
export function readObject(path: string): Fields | undefined {
  const bytes = readConfig(path)
  if (bytes === undefined || bytes.length === 0) return undefined
  const fields = parseObject(bytes)
  if (fields === undefined) throw wrong(path, 'is no JSON object')
  return fields
}
