/** What a container's owner says of it to other programs of the same user, by the shim. */
import type { Host } from './exec.ts'
import type { RunOptions } from './options.ts'
import type { Spec } from './spec.ts'

/** What is told: what `ps` shows, and what another program's exec is composed of. */
export interface About {
  /** A reference, or a path for a root file system. */
  image: string
  /** When it was started, ms since 1970. */
  created: number
  hostname: string
  stopSignal: number
  stopTimeout?: RunOptions['stopTimeout']
  spec: Host['spec']
  options: Host['options']
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
    created: Date.now(),
    hostname,
    stopSignal,
    ...(stopTimeout !== undefined && { stopTimeout }),
    spec: { ociVersion, process, root },
    options: {
      ...(name !== undefined && { name }),
      ...(labels !== undefined && { labels }),
      ...(seccomp !== undefined && { seccomp }),
      ...(groups !== undefined && { groups }),
      // Whether it has a HOSTNAME of its own; all the others are in the process.
      ...(env !== undefined && 'HOSTNAME' in env && { env: { HOSTNAME: env.HOSTNAME } }),
    },
  }
  return JSON.stringify(about)
}
