/** An engine: one state root, one store, one shim. `run` of the module is the default engine's. */
import { Images } from '../image/images.ts'
import type { Image as ReadyImage } from '../image/images.ts'
import { ImageCollection } from '../image/collection.ts'
import type { ImageInfo, TransferOptions } from '../image/info.ts'
import type { Followed } from '../image/followed.ts'
import type { PullProgress } from '../image/pull.ts'
import { native } from '../native.ts'
import { roots } from '../state/roots.ts'
import type { Roots } from '../state/roots.ts'
import { limit } from '../state/sizes.ts'
import type { Size } from '../state/sizes.ts'
import { rejected } from './begin.ts'
import type { CommitImage } from './commit.ts'
import type { Container } from './container.ts'
import { Containers } from './containers.ts'
import { examine } from './doctor.ts'
import type { Finding } from './doctor.ts'
import { readArchive, sweep, unpackLayer } from './layers.ts'
import { refuse } from '../errors.ts'
import { bare } from './options.ts'
import type { RunOptions } from './options.ts'
import type { ProcessPromise } from './process.ts'
import { run, start } from './run.ts'
import type { Image, Resolved } from './run.ts'
import { ShimConnection } from './shim.ts'

/** Where an engine works. */
export interface EngineOptions {
  /** Moves all state and storage below one absolute path. Default: CAISSON_ROOT, else /var/lib/caisson for root. */
  root?: string
  /** Moves the run state alone. Default: /run/caisson for root. */
  runRoot?: string
  /** The cgroup below which containers' groups are made, an absolute path. Default: `caisson` at the top. */
  cgroupParent?: string
  /**
   * The most that images may take, bytes or docker's `'20g'`. After a pull, a load or an import that brought more, images
   * that were not used for longest go, but none of which a container runs, and not while another pull is at work. Default:
   * CAISSON_STORE_LIMIT, else no limit.
   */
  storeLimit?: Size
}

/** Options of a run whose output is wanted as bytes. */
export type BufferOptions = RunOptions & { encoding: 'buffer' }

/** Containers of one state root. */
export class Engine {
  readonly roots: Roots
  /** The containers that run in this engine's roots, whichever program of this user started them. */
  readonly containers: Containers
  /** The images that were pulled into this engine's root. */
  readonly images: ImageCollection
  readonly #shim: ShimConnection
  readonly #images: Images

  constructor(given: EngineOptions = {}) {
    const options = bare(given)
    for (const [name, value] of Object.entries(options)) {
      if (name === 'storeLimit') continue
      if (!['root', 'runRoot', 'cgroupParent'].includes(name)) throw refuse(name, 'unknown option')
      if (value !== undefined && typeof value !== 'string') throw refuse(name, 'is no path')
    }
    this.roots = roots(options)
    this.#shim = new ShimConnection(this.roots, options.cgroupParent)
    this.#images = new Images(
      this.roots.data,
      (layer, signal, wanted) => unpackLayer(this.#shim, layer, signal, wanted),
      (source, directory, signal, layer = false) => readArchive(this.#shim, source, directory, signal, layer),
    )
    this.containers = new Containers(this.roots.run, this.#commit)
    const most = options.storeLimit ?? process.env.CAISSON_STORE_LIMIT
    this.images = new ImageCollection(
      this.roots.data,
      this.#images,
      () => sweep(this.#shim),
      most === undefined || most === ''
        ? undefined
        : limit(options.storeLimit === undefined ? 'CAISSON_STORE_LIMIT' : 'storeLimit', most),
    )
  }

  /** The executable that shims are made of. */
  get runtimePath(): string {
    return native().runtimePath
  }

  /**
   * Runs a command in a fresh container and gives its result; until then it is a live process.
   *
   * Resolves whenever the command ended, however it ended; rejects with a {@link CaissonError} only when Caisson failed,
   * or with `check` when the exit code is not 0. Nothing of the container outlives this program.
   */
  run(image: Image, options: BufferOptions): ProcessPromise<Buffer>
  run(image: Image, command: readonly string[] | undefined, options: BufferOptions): ProcessPromise<Buffer>
  run(image: Image, options?: RunOptions): ProcessPromise
  run(image: Image, command?: readonly string[], options?: RunOptions): ProcessPromise
  run(
    image: Image,
    second?: readonly string[] | RunOptions,
    third?: RunOptions,
  ): ProcessPromise | ProcessPromise<Buffer> {
    let process
    try {
      const [command, options] = words(second, third)
      process = run(this.#context, checked(image), command, options)
    } catch (error) {
      process = rejected(error)
    }
    return process as ProcessPromise
  }

  /**
   * Starts a container and gives it once its command runs. It ends with its main process, with `await using`, and at the
   * latest with this program.
   *
   * Rejects as {@link run} does. stdin is empty unless `stdio` or `input` says otherwise; output is kept up to `maxBuffer`.
   */
  async start(image: Image, command?: readonly string[], options?: RunOptions): Promise<Container>
  async start(image: Image, options?: RunOptions): Promise<Container>
  async start(image: Image, second?: readonly string[] | RunOptions, third?: RunOptions): Promise<Container> {
    return start(this.#context, checked(image), ...words(second, third))
  }

  /** {@link ImageCollection.pull}. */
  pull(reference: string, options?: TransferOptions<PullProgress>): Followed<ImageInfo, PullProgress> {
    return this.images.pull(reference, options)
  }

  /** Whether containers run here, and what they lack. It runs one, and never rejects for want of anything. */
  async doctor(): Promise<Finding[]> {
    return examine(
      (rootfs, command, options) => this.run({ rootfs }, command, options),
      () => this.runtimePath,
    )
  }

  /** Ends everything that this engine started from this program; settles once nothing of it is left. */
  async close(): Promise<void> {
    await this.#shim.close()
  }

  /** {@link close}, for `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  readonly #commit: CommitImage = async (container, pack, as, signal) =>
    this.images.get(await this.#images.commit(container, pack, as, signal))

  get #context(): Parameters<typeof run>[0] {
    return {
      roots: this.roots,
      shim: this.#shim,
      find: (image) => {
        const found = this.#images.find(image)
        return found && resolved(found)
      },
      prepare: async (image, options) => resolved(await this.#images.prepare(image, options)),
      commit: this.#commit,
    }
  }
}

function resolved({ digest, lowers, layer, config }: ReadyImage): Resolved {
  const layers = [{ target: '/', lowers }]
  return { root: { layers, extras: { mounts: [], maskedPaths: [] } }, layer, config, digest }
}

function isList(value: unknown): value is readonly string[] {
  return Array.isArray(value)
}

/** Command and options of `(command?, options?)`. */
function words(
  second: readonly string[] | RunOptions | undefined,
  third: RunOptions | undefined,
): [readonly string[] | undefined, RunOptions] {
  if (second === undefined) return [undefined, third ?? {}]
  if (typeof second === 'object' && !isList(second)) return [undefined, third ?? second]
  if (!isList(second) || !second.every((word) => typeof word === 'string'))
    throw refuse('command', 'is not an array of strings')
  return [second, third === undefined ? {} : third]
}

function checked(image: unknown): Image {
  if (typeof image === 'string' && image !== '') return image
  if (typeof image === 'object' && image !== null && 'rootfs' in image && typeof image.rootfs === 'string') {
    const other = Object.keys(image).find((name) => name !== 'rootfs')
    if (other !== undefined) throw refuse('image', `unknown field '${other}' beside rootfs`)
    return { rootfs: image.rootfs }
  }
  throw refuse('image', 'is neither a reference nor { rootfs }')
}

let engine: Engine | undefined

/** The engine of the module's own functions. */
export function defaultEngine(): Engine {
  engine ??= new Engine()
  return engine
}
