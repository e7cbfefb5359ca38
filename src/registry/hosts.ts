/** Which servers stand for a registry, and how each is reached: registries.json, docker's certs.d, and what is built in. */
import { readdirSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { nearness } from './addresses.ts'
import { field, isObject } from './json.ts'
import type { Fields } from './json.ts'
import { checkHost, checkRepository } from './names.ts'
import { configDirectories, home, isRoot, readConfig, readObject, wrong } from './places.ts'
import type { Environment } from './places.ts'
import type { Tls } from './tls.ts'

/** One server that may answer for a registry. */
export interface Endpoint {
  /** Its name as credentials know it: `HOST[:PORT]`, or `docker.io`. */
  host: string
  /** `https://HOST[:PORT]`; a mirror's may be `http:`. */
  origin: string
  /** What stands before a repository's name here: empty, or `name/`. */
  prefix: string
  tls: Tls
  /** Whether plain http is tried where https is not spoken. */
  plain: boolean
  mirror: boolean
  /** What to tell a mirror that may stand for several registries: the registry's name, as `?ns=`. */
  namespace: string | undefined
  /** The longest silence, in milliseconds, if it is another than that of all. */
  idle: number | undefined
}

/** What registries.json says about one registry; certificates are paths. */
interface Entry {
  mirrors: readonly string[]
  insecure: boolean | undefined
  ca: string | undefined
  cert: string | undefined
  key: string | undefined
  /** Milliseconds. */
  idle: number | undefined
}

/** Whose configuration counts. */
interface Place {
  env: Environment
  root: boolean
}

const none: Entry = {
  mirrors: [],
  insecure: undefined,
  ca: undefined,
  cert: undefined,
  key: undefined,
  idle: undefined,
}
const known: ReadonlySet<string> = new Set(['mirrors', 'insecure', 'ca', 'cert', 'key', 'idle'])
/** The longest silence that can be asked for, in seconds. */
const mostIdle = 3600

/** `$CAISSON_REGISTRIES`, else `caisson/registries.json` of the first directory of configuration that has it. */
export function registriesFile(
  env: Environment,
  root: boolean,
): { path: string; fields: Fields } | undefined {
  const given = env.CAISSON_REGISTRIES
  const asked = given !== undefined && given !== ''
  const paths = asked
    ? [resolve(given)]
    : configDirectories(env, root).map((directory) => join(directory, 'caisson/registries.json'))
  for (const path of paths) {
    const fields = readObject(path)
    if (fields !== undefined) return { path, fields }
    if (asked) throw wrong(path, 'is not there, but CAISSON_REGISTRIES names it')
  }
  return undefined
}

function entry(fields: unknown, name: string, path: string): Entry {
  const where = `registries.${name}`
  if (!isObject(fields)) throw wrong(path, `${where} is no object`)
  for (const key of Object.keys(fields)) {
    if (!known.has(key))
      throw wrong(path, `${where} has an unknown field '${key}'; there are ${[...known].join(', ')}`)
  }
  const mirrors = field(fields, 'mirrors') ?? []
  if (!Array.isArray(mirrors) || !mirrors.every((one) => typeof one === 'string') || mirrors.length > 16) {
    throw wrong(path, `${where}.mirrors is no array of at most 16 URLs`)
  }
  const insecure = field(fields, 'insecure')
  if (insecure !== undefined && typeof insecure !== 'boolean')
    throw wrong(path, `${where}.insecure is no boolean`)
  const file = (key: string): string | undefined => {
    const value = field(fields, key)
    if (value === undefined) return undefined
    if (typeof value !== 'string' || value === '') throw wrong(path, `${where}.${key} is no path`)
    return resolve(dirname(path), value)
  }
  const [cert, key] = [file('cert'), file('key')]
  if ((cert === undefined) !== (key === undefined)) throw wrong(path, `${where} has only one of cert and key`)
  const idle = field(fields, 'idle')
  if (idle !== undefined && !(typeof idle === 'number' && idle > 0 && idle <= mostIdle))
    throw wrong(path, `${where}.idle is no number of seconds, at most ${mostIdle}`)
  return { mirrors, insecure, ca: file('ca'), cert, key, idle: idle && idle * 1000 }
}

/** All of registries.json, checked, by the registries' names. */
function entries(env: Environment, root: boolean): { path: string; entries: ReadonlyMap<string, Entry> } {
  const found = registriesFile(env, root)
  if (found === undefined) return { path: '', entries: new Map() }
  const { path, fields } = found
  for (const key of Object.keys(fields)) {
    if (key !== 'registries') throw wrong(path, `has an unknown field '${key}'; there is registries`)
  }
  const registries = field(fields, 'registries') ?? {}
  if (!isObject(registries)) throw wrong(path, 'registries is no object')
  const all = new Map<string, Entry>()
  for (const [name, value] of Object.entries(registries)) {
    let host: string
    try {
      host = checkHost(name)
    } catch {
      throw wrong(path, `registries has '${name}', which is no HOST[:PORT]`)
    }
    if (all.has(host)) throw wrong(path, `registries has ${host} twice`)
    all.set(host, entry(value, name, path))
  }
  return { path, entries: all }
}

function pem(path: string): string {
  const bytes = readConfig(path)
  if (bytes === undefined) throw wrong(path, 'is not there')
  return bytes.toString('latin1')
}

/** What docker's certs.d has for a registry: `*.crt` are authorities, `NAME.cert` with `NAME.key` is the client's. */
function certsD({ env, root }: Place, host: string): Pick<Tls, 'ca' | 'client'> {
  const own = root ? [] : [join(home(env), '.config/docker/certs.d')]
  for (const parent of [...own, '/etc/docker/certs.d']) {
    const directory = join(parent, host)
    let names: string[]
    try {
      names = readdirSync(directory).toSorted()
    } catch {
      continue
    }
    const ca = names.filter((name) => name.endsWith('.crt')).map((name) => pem(join(directory, name)))
    const cert = names.find((name) => name.endsWith('.cert'))
    if (cert === undefined) return { ca, client: undefined }
    const key = cert.replace(/cert$/, 'key')
    if (!names.includes(key)) throw wrong(join(directory, cert), `has no ${key} beside it`)
    return { ca, client: { cert: pem(join(directory, cert)), key: pem(join(directory, key)) } }
  }
  return { ca: [], client: undefined }
}

/** The host of a `HOST[:PORT]`. */
function hostOf(name: string): string {
  return new URL(`https://${name}`).hostname
}

function reached(
  place: Place,
  host: string,
  { insecure, ca, cert, key, idle }: Entry,
): Pick<Endpoint, 'tls' | 'plain' | 'idle'> {
  const docker = certsD(place, host)
  // As docker does: what is on this machine needs no certificate that anybody signed.
  const lax = insecure ?? nearness(hostOf(host)) === 'loopback'
  return {
    tls: {
      ca: ca === undefined ? docker.ca : [...docker.ca, pem(ca)],
      client: cert === undefined || key === undefined ? docker.client : { cert: pem(cert), key: pem(key) },
      verified: !lax,
    },
    plain: lax,
    idle,
  }
}

function mirror(
  place: Place,
  text: string,
  registry: string,
  all: ReadonlyMap<string, Entry>,
  path: string,
): Endpoint {
  const where = `registries.${registry}.mirrors`
  if (!URL.canParse(text)) throw wrong(path, `${where}: '${text}' is no URL`)
  const url = new URL(text)
  if ((url.protocol !== 'https:' && url.protocol !== 'http:') || url.search !== '' || url.hash !== '') {
    throw wrong(
      path,
      `${where}: '${url.protocol}//${url.host}' is more or less than https://HOST[:PORT][/PREFIX]`,
    )
  }
  if (url.username !== '' || url.password !== '') {
    throw wrong(path, `${where}: passwords do not belong here: caisson login ${url.host}`)
  }
  const words = url.pathname.replaceAll(/^\/+|\/+$/g, '')
  if (words !== '') checkRepository(words)
  const host = checkHost(url.host)
  const { tls, plain, idle } = reached(place, host, all.get(host) ?? none)
  if (url.protocol === 'http:' && !plain) {
    throw wrong(path, `${where}: ${url.origin} has no TLS; registries.${host}.insecure would allow it`)
  }
  // Who has a place for this registry knows it; who has none may stand for several.
  const namespace = words === '' ? registry : undefined
  const prefix = words === '' ? '' : `${words}/`
  return { host, origin: url.origin, prefix, tls, plain: false, mirror: true, namespace, idle }
}

/**
 * The servers of a registry: for pulls its mirrors in their order, then always the registry itself.
 *
 * @throws CaissonError ERR_INVALID_OPTION with the path and the field for what a file says wrong.
 */
export function endpoints(
  registry: string,
  env: Environment = process.env,
  root: boolean = isRoot(),
): readonly Endpoint[] {
  const host = checkHost(registry)
  const place = { env, root }
  const { path, entries: all } = entries(env, root)
  const own = all.get(host) ?? none
  const origin = `https://${host === 'docker.io' ? 'registry-1.docker.io' : host}`
  return [
    ...own.mirrors.map((text) => mirror(place, text, host, all, path)),
    { host, origin, prefix: '', ...reached(place, host, own), mirror: false, namespace: undefined },
  ]
}
