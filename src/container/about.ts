/** What a container's owner says of it to other programs of the same user, by the shim. */
import type { OwnConfig } from '../image/commit.ts'
import type { Host } from './exec.ts'
import type { Origin } from './commit.ts'
import type { RunOptions } from './options.ts'
import type { Spec } from './spec.ts'

/** What is told: what `ps` shows, and what another program's exec is composed of. */
export interface About {
  /** A reference, or a path for a root file system. */
  image: string
  /** Its words, as many as there is room for. */
  command: readonly string[]
  /** When it was started, ms since 1970. */
  created: number
  hostname: string
  stopSignal: number
  stopTimeout?: RunOptions['stopTimeout']
  name?: string
  labels?: Record<string, string>
  /** Of its image's manifest; none: it is of a root file system. */
  digest?: string
  /** What it was started with, which an image of it remembers; left out as `host` is, and before it. */
  own?: OwnConfig
  /** What a command in it is composed of; left out where that is more than a message has room for. */
  host?: Pick<Host, 'spec' | 'options'>
}

/** Characters of the words, bytes of the whole: the message that takes it along has room for 128 KiB, files and all. */
const [mostWords, most] = [4096, 32_768]

function shortened(words: readonly string[]): readonly string[] {
  let left = mostWords
  return words.flatMap((word) => {
    if (left <= 0) return []
    const part = word.slice(0, left)
    left -= part.length
    return [part]
  })
}

/** As text for the shim. */
export function aboutOf(
  image: string | { rootfs: string },
  {
    hostname,
    stopSignal,
    options,
    origin: { digest, own },
  }: { hostname: string; stopSignal: number; options: RunOptions; origin: Origin },
  { ociVersion, process, root }: Spec,
): string {
  const { name, labels, seccomp, groups, env, stopTimeout } = options
  const about: About = {
    image: typeof image === 'string' ? image : image.rootfs,
    command: shortened(process.args),
    created: Date.now(),
    hostname,
    stopSignal,
    ...(stopTimeout !== undefined && { stopTimeout }),
    ...(name !== undefined && { name }),
    ...(labels !== undefined && { labels }),
    ...(digest !== undefined && { digest }),
  }
  const host: About['host'] = {
    spec: { ociVersion, process: { ...process, args: [] }, root },
    options: {
      ...(name !== undefined && { name }),
      ...(labels !== undefined && { labels }),
      ...(seccomp !== undefined && { seccomp }),
      ...(groups !== undefined && { groups }),
      // Whether it has a HOSTNAME of its own; all the others are in the process.
      ...(env !== undefined && 'HOSTNAME' in env && { env: { HOSTNAME: env.HOSTNAME } }),
    },
  }
  const fits = (text: string): boolean => text.length <= most && Buffer.byteLength(text) <= most
  const whole = JSON.stringify({ ...about, host, ...(own !== undefined && { own }) })
  if (fits(whole)) return whole
  const ways = [{ ...about, host }, about].map((way) => JSON.stringify(way))
  return ways.find(fits) ?? JSON.stringify({ ...about, labels: {} })
}
