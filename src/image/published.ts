/** What a registry has, without pulling it: a repository's tags, a manifest, and what refers to one. */
import { refuse } from '../errors.ts'
import type { Referrer } from '../registry/lists.ts'
import type { Registry } from '../registry/registry.ts'
import { parseName } from './reference.ts'
import type { RegistryReference } from './reference.ts'

/** How a registry is asked. */
export interface PublishedOptions {
  /** Aborting it ends the call. */
  signal?: AbortSignal
}

/** A manifest or an index, as a registry serves it. */
export interface PublishedManifest {
  /** `sha256:` of {@link bytes}. */
  digest: string
  /** What the registry says it is; undefined if it does not. */
  mediaType: string | undefined
  /** Byte for byte. At most 4 MiB. */
  bytes: Buffer
}

/** What registries are asked about; with the logins, mirrors and limits of a pull. */
export interface Published {
  /**
   * The tags of a repository, `[HOST[:PORT]/]PATH`, in the registry's order: the first `limit`, or all. Default: all; more
   * than 10,000 are refused.
   * @throws CaissonError ERR_IMAGE_NOT_FOUND, ERR_REGISTRY, ERR_REGISTRY_AUTH, ERR_IMAGE_LIMIT; ERR_INVALID_OPTION.
   */
  tags(repository: string, options?: PublishedOptions & { limit?: number }): Promise<string[]>
  /**
   * What refers to a manifest, by tag or digest: signatures, attestations, bills of materials; of one type, or all. A registry
   * without that list has it under a tag, `sha256-HEX`. None is no error.
   * @throws CaissonError as {@link tags}.
   */
  referrers(image: string, options?: PublishedOptions & { artifactType?: string }): Promise<Referrer[]>
  /**
   * The manifest or index of a name.
   * @throws CaissonError as {@link tags}; ERR_DIGEST.
   */
  manifest(image: string, options?: PublishedOptions): Promise<PublishedManifest>
}

async function asking<Value>(
  { domain }: RegistryReference,
  ask: (registry: Registry) => Promise<Value>,
): Promise<Value> {
  // The client is loaded by who needs it.
  const { Registry: Client } = await import('../registry/registry.ts')
  const client = new Client(domain)
  try {
    return await ask(client)
  } finally {
    client.close()
  }
}

/** What a tag or a digest stands for. */
function referenceOf({ tag, digest }: RegistryReference): string {
  return digest ?? tag ?? 'latest'
}

async function tags(
  repository: string,
  { limit, signal }: PublishedOptions & { limit?: number } = {},
): Promise<string[]> {
  const name = parseName(repository)
  const end = repository.slice(repository.lastIndexOf('/') + 1)
  if (/[:@]/.test(end))
    throw refuse('repository', `'${repository}' names an image: [HOST[:PORT]/]PATH is wanted`)
  return asking(name, (registry) => registry.tags(name.path, { limit, signal }))
}

async function referrers(
  image: string,
  { artifactType, signal }: PublishedOptions & { artifactType?: string } = {},
): Promise<Referrer[]> {
  const name = parseName(image)
  return asking(name, async (registry) => {
    // The list is asked for by digest; a registry that does not say it with a HEAD sends the manifest.
    const digest =
      name.digest ??
      (await registry.head(name.path, referenceOf(name), { signal })) ??
      (await registry.manifest(name.path, referenceOf(name), { signal })).digest
    return registry.referrers(name.path, digest, artifactType, { signal })
  })
}

async function manifest(image: string, { signal }: PublishedOptions = {}): Promise<PublishedManifest> {
  const name = parseName(image)
  return asking(name, (registry) => registry.manifest(name.path, referenceOf(name), { signal }))
}

export const registry: Published = { tags, referrers, manifest }
