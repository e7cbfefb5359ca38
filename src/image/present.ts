/** Whether an image is here with all that a pull would bring: seen by presence and size, its manifests alone are read. */
import { parseConfig } from './config.ts'
import type { Content, Entry } from './content.ts'
import { fits, hostPlatform, isIndex } from './manifest.ts'
import type { Platform } from './manifest.ts'
import { memberFor } from './platforms.ts'
import type { ImageMember } from './platforms.ts'
import { chainIds } from './store.ts'
import type { Facts, ImageStore } from './store.ts'

/** Where it is looked for. */
export interface PresentContext {
  store: ImageStore
  content: Content
}

/** What a pull would bring. */
export interface Asked {
  /** Default: this machine's, or all of what the name holds with all platforms. */
  platform?: Platform | undefined
  allPlatforms?: boolean | undefined
}

/** Whether all platforms are wanted: also of a name that has all, if none is named. So a pull mends all that the name holds. */
export function wantsAll(entry: Entry | undefined, { platform, allPlatforms = false }: Asked): boolean {
  return allPlatforms || (platform === undefined && entry !== undefined && isIndex(entry))
}

/** What an image comes to that is here and not unpacked. */
function factsOf({ content }: PresentContext, { entry: { digest }, manifest }: ImageMember): Facts {
  const what = `config ${manifest.config.digest}`
  const bytes = content.layout.config(manifest.config)
  const { config, diffIds } = parseConfig(bytes, what, manifest.layers.length, null)
  return { digest, id: manifest.config.digest, config, chains: chainIds(diffIds).toReversed() }
}

/** What an entry came to, if nothing is missing of what is wanted of it: documents, blobs, and the layers of what is unpacked. */
export function present(context: PresentContext, entry: Entry, asked: Asked): Facts | undefined {
  const { content, store } = context
  const { platform = hostPlatform(), allPlatforms = false } = asked
  const all = wantsAll(entry, asked)
  // It stands for one platform of an index.
  if (allPlatforms && entry.served !== entry.digest) return undefined
  const isOther = entry.platform?.os !== platform.os || entry.platform.architecture !== platform.architecture
  if (!all && !isIndex(entry) && isOther) return undefined
  if ((all || !isIndex(entry)) && !content.isWhole(entry)) return undefined
  const found = memberFor(content.undamaged(entry), isIndex(entry) && !all ? platform : undefined)
  if (found === undefined || content.missing(found.entry).length > 0) return undefined
  const facts = store.image(found.entry.digest)
  if (facts !== undefined && store.isWhole(facts)) return facts
  const own = found.entry.platform !== undefined && fits(found.entry.platform, platform)
  return all && !own ? factsOf(context, found) : undefined
}
