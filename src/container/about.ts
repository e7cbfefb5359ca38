/** What a container's owner says of it to other programs of the same user, by the shim. */
import type { Host } from './exec.ts'
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
  { hostname, stopSignal, options }: { hostname: string; stopSignal: number; options: RunOptions },
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
  const whole = JSON.stringify({ ...about, host })
  const fits = (text: string): boolean => text.length <= most && Buffer.byteLength(text) <= most
  if (fits(whole)) return whole
  const less = JSON.stringify(about)
  return fits(less) ? less : JSON.stringify({ ...about, labels: {} })
}
