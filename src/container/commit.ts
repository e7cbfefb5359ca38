/** A container that runs, made into an image. */
import { CaissonError, refuse } from '../errors.ts'
import type { Committed, CommittedAs, OwnConfig, PackLayer } from '../image/commit.ts'
import { given } from '../image/given.ts'
import type { ImageInfo } from '../image/info.ts'
import { fullName, parseName } from '../image/reference.ts'
import { ask } from './ask.ts'
import { bare } from './options.ts'
import type { RunOptions } from './options.ts'
import type { Connection } from './shim.ts'

/** What an image of a container is to be. */
export interface CommitOptions {
  /** Its name. Default: none, it is known by its id. */
  reference?: string
  /** Who made it: docker's `Hannibal Smith <hannibal@a-team.com>`. */
  author?: string
  /** What its history says. */
  message?: string
  /**
   * Changes to its config in a Dockerfile's words: CMD, ENTRYPOINT, ENV, USER, WORKDIR, LABEL, EXPOSE, VOLUME, STOPSIGNAL,
   * ONBUILD.
   */
  changes?: readonly string[]
  /**
   * Whether all that runs in it is stopped while its files are read. Default: if it can be, which takes a cgroup of the
   * container's own; `true` rejects with ERR_ISOLATION where it cannot.
   */
  pause?: boolean
  /** Aborting it leaves nothing of the image. */
  signal?: AbortSignal
}

/** Puts an image into the store. */
export type CommitImage = (
  container: Committed,
  pack: PackLayer,
  as: CommittedAs,
  signal: AbortSignal,
) => Promise<ImageInfo>

/** What is known of a container's making. */
export interface Origin {
  /** Of its image's manifest; none: it is of a root file system. */
  digest: string | undefined
  /** None: it did not fit into what other programs are told. */
  own: OwnConfig | undefined
  command: readonly string[]
  /** Whether it is a view of the machine, in which places are masked. */
  masked: boolean
}

const never = new AbortController().signal

/** What of a run's options its image is to remember. */
export function ownConfig(command: readonly string[] | undefined, options: RunOptions): OwnConfig {
  const { entrypoint, env, user, workdir, stopSignal, labels } = options
  const words = typeof entrypoint === 'string' ? [entrypoint] : entrypoint
  return {
    ...(words !== undefined && { entrypoint: words.filter((word) => word !== '') }),
    ...(command !== undefined && { command }),
    ...(env !== undefined && {
      env: Object.fromEntries(Object.entries(env).map(([name, value]) => [name, value ?? null])),
    }),
    ...(user !== undefined && { user: String(user) }),
    ...(workdir !== undefined && { workdir }),
    ...(stopSignal !== undefined && { stopSignal }),
    ...(labels !== undefined && { labels }),
  }
}

function checked(asked: CommitOptions): CommitOptions {
  const options = bare(given(asked, 'reference', 'author', 'message', 'changes', 'pause', 'signal'))
  const { changes } = options as { changes?: unknown }
  if (changes !== undefined && !(Array.isArray(changes) && changes.every((one) => typeof one === 'string')))
    throw refuse('changes', 'is no array of strings')
  return options
}

/** Makes an image of the container with this number. */
export async function commitOver(
  connection: Connection,
  container: number,
  { digest, own, command }: Origin,
  put: CommitImage,
  asked: CommitOptions = {},
): Promise<ImageInfo> {
  const { reference, author, message, changes = [], pause, signal = never } = checked(asked)
  const name = reference === undefined ? undefined : parseName(reference)
  if (name?.digest !== undefined) throw refuse('reference', 'a digest is no tag')
  if (digest === undefined || own === undefined) {
    const why =
      digest === undefined
        ? 'the container is of a root file system, and of no image: export it, and import that'
        : 'what it was started with is too large to be handed to other programs'
    throw new CaissonError('ERR_UNSUPPORTED', `commit: ${why}`, { subject: 'commit' })
  }
  signal.throwIfAborted()
  const how = pause === undefined ? 1 : pause ? 2 : 0
  const pack: PackLayer = (directory, ended) => {
    const token = connection.token()
    return ask(connection, token, (shim) => shim.commit(token, container, how, directory), ended)
  }
  const as = { name: name && fullName(name), author, message, changes }
  return put({ digest, own, command }, pack, as, signal)
}
