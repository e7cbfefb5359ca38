/** Logins at registries, kept where docker keeps them. */
import { CaissonError } from '../errors.ts'
import type { Kept } from '../registry/credentials.ts'
import { parseName } from './reference.ts'

/** Who logs in. */
export interface Account {
  username: string
  password: string
}

/** docker.io, where no registry is named. */
const hub = 'docker.io'

function registryOf(host: string | undefined): string {
  const name = (host ?? hub).replace(/^https?:\/\//, '').replace(/\/(v1\/?)?$/, '')
  // What names an image there names the registry.
  return name === hub ? hub : parseName(`${name}/x`).domain
}

/**
 * Logs in: the registry is asked first, then the account is kept in docker's config.json or its helper.
 * @returns where it is kept.
 * @throws CaissonError ERR_REGISTRY_AUTH where it is refused.
 */
export async function login(
  host: string | undefined,
  { username, password }: Account,
  { signal }: { signal?: AbortSignal } = {},
): Promise<Kept> {
  const registry = registryOf(host)
  if (username === '' || password === '')
    throw new CaissonError('ERR_INVALID_OPTION', 'login: a username and a password are wanted')
  const [{ Registry }, { store }] = await Promise.all([
    import('../registry/registry.ts'),
    import('../registry/credentials.ts'),
  ])
  const client = new Registry(registry, { login: { kind: 'password', username, password } })
  try {
    await client.ping({ signal })
  } finally {
    client.close()
  }
  const kept = await store(registry, { username, password }, { env: process.env, signal })
  return kept
}

/** Forgets a login; false where there was none. */
export async function logout(host: string | undefined): Promise<boolean> {
  const { erase } = await import('../registry/credentials.ts')
  return erase(registryOf(host), { env: process.env, signal: undefined })
}
