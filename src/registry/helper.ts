/**
 * docker-credential-NAME: a program that keeps passwords in a keyring or asks a cloud for them. The one place where this
 * package starts a program from Node: it is the user's own, small, and gone before a container begins.
 */
import { spawn } from 'node:child_process'
import { accessSync, constants, realpathSync, statSync } from 'node:fs'
import { delimiter, dirname, isAbsolute, join } from 'node:path'
import { CaissonError } from '../errors.ts'
import { parseObject, word } from './json.ts'
import type { Login } from './login.ts'
import { isRoot } from './places.ts'
import type { Environment } from './places.ts'
import { said } from './said.ts'

/** What may come of its output, in bytes. */
const mostOutput = 64 << 10
/** How long it may take, in milliseconds. */
const mostTime = 15_000

/** What a helper needs to find its keyring or its cloud. Not LD_*, not NODE_OPTIONS. */
const passed =
  /^(?:PATH|HOME|USER|LOGNAME|LANG|LC_ALL|TMPDIR|XDG_(?:RUNTIME_DIR|CONFIG_HOME|DATA_HOME)|DBUS_SESSION_BUS_ADDRESS|DISPLAY|WAYLAND_DISPLAY|GNUPGHOME|GPG_TTY|PASSWORD_STORE_\w+|DOCKER_CONFIG|AWS_\w+|AZURE_\w+|GOOGLE_\w+|CLOUDSDK_\w+|(?:HTTPS?|NO)_PROXY|(?:https?|no)_proxy)$/

export interface HelperOptions {
  env: Environment
  signal?: AbortSignal | undefined
  /** Milliseconds; default 15 s. */
  limit?: number | undefined
  /** Whether its place must be root's alone. Default: whether this is root. */
  strict?: boolean | undefined
}

function failed(name: string, message: string): CaissonError {
  const subject = `docker-credential-${said(name, 64)}`
  return new CaissonError('ERR_REGISTRY_AUTH', `${subject}: ${message}`, { stage: 'login', subject })
}

/** Whether nobody but root can change this, or what is above it. A sticky directory's entries are safe from others. */
function isRoots(path: string): boolean {
  for (let at = path; ; at = dirname(at)) {
    const { uid, mode } = statSync(at)
    const sticky = (mode & constants.S_IFMT) === constants.S_IFDIR && (mode & 0o1000) !== 0 && at !== path
    if (uid !== 0 || ((mode & 0o022) !== 0 && !sticky)) return false
    if (at === '/') return true
  }
}

/** The program on PATH. Root runs none that somebody else could have put there (security.md E4). */
function program(name: string, { env, strict = isRoot() }: HelperOptions): string {
  let unsafe = ''
  for (const directory of (env.PATH ?? '').split(delimiter)) {
    if (!isAbsolute(directory)) continue
    try {
      const path = realpathSync(join(directory, `docker-credential-${name}`))
      accessSync(path, constants.X_OK)
      if (!statSync(path).isFile()) continue
      if (!strict || (isRoots(path) && isRoots(realpathSync(directory)))) return path
      unsafe = path
    } catch {
      continue
    }
  }
  throw failed(
    name,
    unsafe === ''
      ? 'is not on PATH, but the configuration names it'
      : `${unsafe} can be changed by others than root: not run as root`,
  )
}

/** Runs `docker-credential-NAME ACTION` with `input`; answers what it printed, or undefined if it knows no such registry. */
async function run(
  name: string,
  action: 'get' | 'store' | 'erase',
  input: string,
  options: HelperOptions,
): Promise<Buffer | undefined> {
  const { env, signal, limit = mostTime } = options
  if (!/^[A-Za-z0-9._-]{1,64}$/.test(name)) throw failed(name, 'is no name of a credential helper')
  signal?.throwIfAborted()
  const child = spawn(program(name, options), [action], {
    env: Object.fromEntries(Object.entries(env).filter(([key]) => passed.test(key))),
    stdio: ['pipe', 'pipe', 'ignore'],
    cwd: '/',
  })
  const { promise, resolve, reject } = Promise.withResolvers<Buffer | undefined>()
  const late = setTimeout(() => reject(failed(name, `did not end within ${limit / 1000} s`)), limit)
  const abort = (): void => reject(signal?.reason as Error)
  signal?.addEventListener('abort', abort, { once: true })
  const chunks: Buffer[] = []
  let length = 0
  child.stdout.on('data', (chunk: Buffer) => {
    length += chunk.length
    if (length > mostOutput) reject(failed(name, `printed more than ${mostOutput} bytes`))
    else chunks.push(chunk)
  })
  // A helper that does not read what it is told breaks the pipe: its exit code says what that means.
  child.stdin.on('error', () => undefined)
  child.on('error', (error) => reject(failed(name, said(error.message))))
  child.on('close', (code, killed) => {
    const output = Buffer.concat(chunks)
    if (code === 0) {
      resolve(output)
      return
    }
    const text = output.toString().trim()
    if (/credentials not found|no credentials/i.test(text)) {
      resolve(undefined)
      return
    }
    // By the protocol it says on stdout what is wrong. What looks like its other answers is not repeated.
    const why = text === '' || text.includes('{') ? '' : `: ${said(text, 300)}`
    reject(failed(name, `${action} ended with ${killed ?? code}${why}`))
  })
  child.stdin.end(input)
  try {
    return await promise
  } finally {
    clearTimeout(late)
    signal?.removeEventListener('abort', abort)
    // Its own children may hold the pipes open: they are not waited for.
    child.kill('SIGKILL')
    child.stdin.destroy()
    child.stdout.destroy()
  }
}

/**
 * What a helper knows of a registry; undefined for nothing.
 * @throws CaissonError ERR_REGISTRY_AUTH where it is missing, fails, or takes longer than 15 s.
 */
export async function helperGet(
  name: string,
  server: string,
  options: HelperOptions,
): Promise<Login | undefined> {
  const output = await run(name, 'get', server, options)
  if (output === undefined) return undefined
  const fields = parseObject(output)
  const [username, secret] = fields === undefined ? [] : [word(fields, 'Username'), word(fields, 'Secret')]
  if (username === undefined || secret === undefined) throw failed(name, 'get printed no Username and Secret')
  if (username === '' && secret === '') return undefined
  return username === '<token>'
    ? { kind: 'identity', token: secret }
    : { kind: 'password', username, password: secret }
}

/** Gives a helper a password or token to keep. */
export async function helperStore(
  name: string,
  server: string,
  { username, secret }: { username: string; secret: string },
  options: HelperOptions,
): Promise<void> {
  const input = JSON.stringify({ ServerURL: server, Username: username, Secret: secret })
  if ((await run(name, 'store', input, options)) === undefined) throw failed(name, 'store did not keep it')
}

/** Makes a helper forget a registry; false if it knew nothing of it. */
export async function helperErase(name: string, server: string, options: HelperOptions): Promise<boolean> {
  return (await run(name, 'erase', server, options)) !== undefined
}
