/** Whose rights are used at a registry: what `docker login` and `podman login` left, read in their order; and written. */
import { randomBytes } from 'node:crypto'
import {
  closeSync,
  fchownSync,
  fsyncSync,
  mkdirSync,
  openSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import { CaissonError } from '../errors.ts'
import { helperErase, helperGet, helperStore } from './helper.ts'
import type { HelperOptions } from './helper.ts'
import { field, isObject, parseObject, word } from './json.ts'
import type { Fields } from './json.ts'
import type { Login } from './login.ts'
import { checkHost } from './names.ts'
import { home, isRoot, readObject, wrong } from './places.ts'
import type { Environment } from './places.ts'

/** Docker's Hub by the name under which passwords for it have always been kept. */
const hubKey = 'https://index.docker.io/v1/'
const hubNames: ReadonlySet<string> = new Set(['docker.io', 'index.docker.io', 'registry-1.docker.io'])

/** What was found. `trouble` says why something could not be asked that might have known. */
export interface Found {
  login: Login | undefined
  trouble: string | undefined
}

/** What a person gives at a login. */
export type Given =
  { username: string; password: string } | { username?: string | undefined; identityToken: string }

function set(value: string | undefined): string | undefined {
  return value === '' ? undefined : value
}

/** Docker's file of configuration for this user: `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`. */
export function dockerConfig(env: Environment): string {
  return join(resolve(set(env.DOCKER_CONFIG) ?? join(home(env), '.docker')), 'config.json')
}

/** Podman's files, the first that has the registry wins. */
function podmanConfigs(env: Environment): string[] {
  const given = set(env.REGISTRY_AUTH_FILE)
  if (given !== undefined) return [given]
  const runtime = set(env.XDG_RUNTIME_DIR)
  const session = runtime ?? (isRoot() ? undefined : `/run/user/${process.geteuid?.()}`)
  return [
    ...(session === undefined ? [] : [join(session, 'containers/auth.json')]),
    ...(isRoot() ? ['/run/containers/0/auth.json'] : []),
    join(set(env.XDG_CONFIG_HOME) ?? join(home(env), '.config'), 'containers/auth.json'),
  ]
}

/** The name under which helpers and files know a registry. */
function keyOf(host: string): string {
  return host === 'docker.io' ? hubKey : host
}

/** Whether a key of `auths` means this host: scheme and path do not count. */
function isKeyOf(key: string, host: string): boolean {
  const name = key
    .replace(/^https?:\/\//, '')
    .replace(/\/.*$/s, '')
    .toLowerCase()
  return name === host || (host === 'docker.io' && hubNames.has(name))
}

/** The login in an entry of `auths`; undefined for an empty one, as docker leaves it where a helper has the password. */
function entryLogin(entry: unknown, where: string, path: string): Login | undefined {
  if (!isObject(entry)) throw wrong(path, `${where} is no object`)
  let [username, password] = [set(word(entry, 'username')), set(word(entry, 'password'))]
  const auth = set(word(entry, 'auth'))
  if (auth !== undefined) {
    const decoded = Buffer.from(auth, 'base64').toString()
    const colon = decoded.indexOf(':')
    // What is in there is not repeated.
    if (colon <= 0) throw wrong(path, `${where}.auth is not base64 of USER:PASSWORD`)
    username = decoded.slice(0, colon)
    // Docker pads with NUL.
    password = decoded.slice(colon + 1).replace(/\0+$/, '')
  }
  const registry = set(word(entry, 'registrytoken'))
  if (registry !== undefined) return { kind: 'registry', token: registry }
  const identity = set(word(entry, 'identitytoken'))
  if (identity !== undefined) return { kind: 'identity', token: identity, username }
  return username === undefined || password === undefined || password === ''
    ? undefined
    : { kind: 'password', username, password }
}

/** The login for a host in docker's `auths`: the very key before those that mean the same. */
function dockerLogin(fields: Fields, host: string, path: string): Login | undefined {
  const auths = field(fields, 'auths') ?? {}
  if (!isObject(auths)) throw wrong(path, 'auths is no object')
  const key = keyOf(host)
  const keys = Object.keys(auths).filter((one) => isKeyOf(one, host))
  for (const one of keys.toSorted((a, b) => Number(b === key) - Number(a === key))) {
    const login = entryLogin(field(auths, one) ?? {}, `auths.${one}`, path)
    if (login !== undefined) return login
  }
  return undefined
}

/** The login for a repository in podman's `auths`: the longest key that it begins with, by whole words. */
function podmanLogin(
  fields: Fields,
  host: string,
  repository: string | undefined,
  path: string,
): Login | undefined {
  const auths = field(fields, 'auths') ?? {}
  if (!isObject(auths)) throw wrong(path, 'auths is no object')
  const whole = repository === undefined ? host : `${host}/${repository}`
  for (let name = whole; name.includes('/'); name = name.slice(0, name.lastIndexOf('/'))) {
    const entry = field(auths, name)
    const login = entry === undefined ? undefined : entryLogin(entry, `auths.${name}`, path)
    if (login !== undefined) return login
  }
  const plain = Object.fromEntries(
    Object.entries(auths).filter(([key]) => !/^[^/:]+(?::\d+)?\/(?!\/)/.test(key)),
  )
  return dockerLogin({ auths: plain }, host, path)
}

/** The helper that a configuration names for a host: its own, else the one for all. */
function helperName(fields: Fields, host: string, path: string): string | undefined {
  const helpers = field(fields, 'credHelpers') ?? {}
  if (!isObject(helpers)) throw wrong(path, 'credHelpers is no object')
  const own = Object.keys(helpers).find((key) => isKeyOf(key, host))
  const name = (own === undefined ? undefined : word(helpers, own)) ?? word(fields, 'credsStore')
  return name === '' ? undefined : name
}

/**
 * Looks for a login: $DOCKER_AUTH_CONFIG, docker's helper for the registry, docker's file, podman's files.
 * A helper that fails is no error by itself, since most images are for everybody: `trouble` says it.
 *
 * @param repository without the host: podman keeps logins for parts of a registry.
 * @throws CaissonError ERR_INVALID_OPTION with the path for a file that cannot be understood; the signal's reason.
 */
export async function find(
  registry: string,
  repository: string | undefined,
  options: HelperOptions,
): Promise<Found> {
  const { env, signal } = options
  const host = checkHost(registry)
  let trouble: string | undefined
  const inline = set(env.DOCKER_AUTH_CONFIG)
  if (inline !== undefined) {
    const fields = parseObject(Buffer.from(inline))
    if (fields === undefined) throw wrong('DOCKER_AUTH_CONFIG', 'is no JSON object')
    const login = dockerLogin(fields, host, 'DOCKER_AUTH_CONFIG')
    if (login !== undefined) return { login, trouble }
  }
  const path = dockerConfig(env)
  const fields = readObject(path)
  if (fields !== undefined) {
    const helper = helperName(fields, host, path)
    if (helper !== undefined) {
      try {
        const login = await helperGet(helper, keyOf(host), options)
        if (login !== undefined) return { login, trouble }
      } catch (error) {
        signal?.throwIfAborted()
        if (!(error instanceof CaissonError)) throw error
        trouble = error.message
      }
    }
    const login = dockerLogin(fields, host, path)
    if (login !== undefined) return { login, trouble }
  }
  for (const file of podmanConfigs(env)) {
    const known = readObject(file)
    const login = known && podmanLogin(known, host, repository, file)
    if (login !== undefined) return { login, trouble }
  }
  return { login: undefined, trouble }
}

/** Where a login went. */
export interface Kept {
  /** The helper's program, or the file. */
  place: string
  /** Whether it can be read there by whoever can read the file. */
  plain: boolean
  /** What is set and comes before it, so that it will not be used. */
  shadowed: 'DOCKER_AUTH_CONFIG' | undefined
}

/**
 * Keeps a login as `docker login` does: with the helper that docker's configuration names, else in its file.
 * @throws CaissonError ERR_INVALID_OPTION for what cannot be kept or a file that cannot be understood, ERR_REGISTRY_AUTH
 * for a helper that fails.
 */
export async function store(registry: string, given: Given, options: HelperOptions): Promise<Kept> {
  const { env } = options
  const host = checkHost(registry)
  const { username = '' } = given
  const secret = 'identityToken' in given ? given.identityToken : given.password
  // A colon would be the password's beginning.
  if (secret === '' || username.includes(':') || (username === '' && !('identityToken' in given))) {
    const message = `login: a user name without ':' and a password that is not empty are needed`
    throw new CaissonError('ERR_INVALID_OPTION', message, { subject: 'username' })
  }
  const path = dockerConfig(env)
  const fields = readObject(path) ?? {}
  const shadowed = set(env.DOCKER_AUTH_CONFIG) === undefined ? undefined : 'DOCKER_AUTH_CONFIG'
  const helper = helperName(fields, host, path)
  let entry: Fields
  if (helper !== undefined) {
    const user = 'identityToken' in given ? '<token>' : username
    await helperStore(helper, keyOf(host), { username: user, secret }, options)
    entry = {}
  } else if ('identityToken' in given) {
    const auth = username === '' ? {} : { auth: Buffer.from(`${username}:`).toString('base64') }
    entry = { ...auth, identitytoken: secret }
  } else {
    entry = { auth: Buffer.from(`${username}:${secret}`).toString('base64') }
  }
  const auths = field(fields, 'auths') ?? {}
  if (!isObject(auths)) throw wrong(path, 'auths is no object')
  const others = Object.entries(auths).filter(([key]) => !isKeyOf(key, host))
  replace(path, { ...fields, auths: Object.fromEntries([...others, [keyOf(host), entry]]) })
  const place = helper === undefined ? path : `docker-credential-${helper}`
  return { place, plain: helper === undefined, shadowed }
}

/**
 * Forgets a login as `docker logout` does; podman's files stay as they are.
 * @returns whether there was one.
 */
export async function erase(registry: string, options: HelperOptions): Promise<boolean> {
  const host = checkHost(registry)
  const path = dockerConfig(options.env)
  const fields = readObject(path)
  if (fields === undefined) return false
  const helper = helperName(fields, host, path)
  const forgotten = helper !== undefined && (await helperErase(helper, keyOf(host), options))
  const auths = field(fields, 'auths') ?? {}
  if (!isObject(auths)) throw wrong(path, 'auths is no object')
  const others = Object.entries(auths).filter(([key]) => !isKeyOf(key, host))
  if (others.length === Object.keys(auths).length) return forgotten
  replace(path, { ...fields, auths: Object.fromEntries(others) })
  return true
}

/** Writes a file of configuration beside itself, for its owner's eyes only, and puts it in place at once. */
function replace(path: string, fields: Fields): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
  let target = path
  let owner: { uid: number; gid: number } | undefined
  try {
    // Where it is a link, as in a directory of dotfiles, the link stays.
    target = realpathSync(path)
    owner = statSync(target)
  } catch {
    target = path
  }
  const aside = join(dirname(target), `.${basename(target)}.${randomBytes(8).toString('hex')}`)
  const file = openSync(aside, 'wx', 0o600)
  try {
    try {
      // Of somebody whose HOME root has by sudo: it stays theirs.
      if (owner !== undefined && isRoot()) fchownSync(file, owner.uid, owner.gid)
      writeSync(file, `${JSON.stringify(fields, undefined, '\t')}\n`)
      fsyncSync(file)
    } finally {
      closeSync(file)
    }
    renameSync(aside, target)
  } catch (error) {
    rmSync(aside, { force: true })
    throw error
  }
  const directory = openSync(dirname(target), 'r')
  try {
    fsyncSync(directory)
  } finally {
    closeSync(directory)
  }
}
