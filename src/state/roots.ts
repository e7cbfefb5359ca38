/** Where things live. One value decides all: `--root`, CAISSON_ROOT, or the places that the field uses. */
import { existsSync } from 'node:fs'
import { homedir } from 'node:os'
import { isAbsolute, join } from 'node:path'
import { CaissonError } from '../errors.ts'

/** The directories of one engine, all absolute, all 0700. */
export interface Roots {
  /** Durable: layers, writable layers. */
  data: string
  /** For this boot: journals, engine files. On a tmpfs where the system has one for it. */
  run: string
}

/** What decides. */
export interface RootOptions {
  /** Moves everything below one directory. */
  root?: string | undefined
  /** Moves the run state alone. */
  runRoot?: string | undefined
}

/**
 * The roots for these options: `root`, else CAISSON_ROOT, else `/var/lib/caisson` and `/run/caisson` for root and the XDG
 * directories for everybody else.
 */
export function roots(options: RootOptions = {}, env: NodeJS.ProcessEnv = process.env): Roots {
  const root = absolute('root', options.root ?? env.CAISSON_ROOT)
  const run = absolute('runRoot', options.runRoot)
  if (root !== undefined) return { data: root, run: run ?? join(root, 'run') }
  if (process.geteuid?.() === 0) return { data: '/var/lib/caisson', run: run ?? '/run/caisson' }
  const data = env.XDG_DATA_HOME ?? join(homedir(), '.local/share')
  const uid = process.geteuid?.()
  // Where systemd makes one, it is there without the variable too, as below `su`.
  const session = `/run/user/${uid}`
  const runtime = env.XDG_RUNTIME_DIR ?? (existsSync(session) ? session : `/tmp/caisson-${uid}`)
  return { data: join(data, 'caisson'), run: run ?? join(runtime, 'caisson') }
}

function absolute(name: string, path: string | undefined): string | undefined {
  if (path === undefined || path === '') return undefined
  if (!isAbsolute(path)) {
    throw new CaissonError('ERR_INVALID_OPTION', `${name}: '${path}' is not an absolute path`, {
      subject: name,
    })
  }
  return path
}
