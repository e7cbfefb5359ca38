/** What is said of images, and how they are moved: the shapes of the public API. */
import type { ArchiveFormat } from './save.ts'

/** An image that is here. */
export interface ImageInfo {
  /** The digest of its config, `sha256:…`: docker's id. */
  id: string
  /** The digest of its manifest. */
  digest: string
  /** What it is called, as people write it: `debian:12`. None: it is dangling. */
  names: readonly string[]
  /** What registries call it: `debian@sha256:…`. */
  repoDigests: readonly string[]
  /** When it was made, if it says so. */
  created: Date | undefined
  /** Bytes of its layers, inflated. */
  size: number
  /** `linux/amd64`. Of an image with all its platforms this machine's; the first, if it has none for this machine. */
  platform: string
  /** All that are here of it, itself among them: several after a pull or load of all platforms. */
  platforms: readonly string[]
  labels: Readonly<Record<string, string>>
}

/** A step of an image's making. */
export interface HistoryEntry {
  created: Date | undefined
  createdBy: string
  comment: string
  /** Bytes of its layer, inflated; 0 of a step that made none. */
  size: number
}

/** What a removal did. */
export interface Removed {
  /** Names that were taken away. */
  untagged: readonly string[]
  /** Ids of images that are gone. */
  deleted: readonly string[]
}

/** Something of an image that is not what it should be, or could not be held against anything. */
export interface Fault {
  /** `index`, `manifest` and `config` are documents, `blob` a layer as it came, `tree` the same unpacked. */
  part: 'index' | 'manifest' | 'config' | 'blob' | 'tree'
  /** Of a document itself; of a layer, its blob's. */
  digest: string
  /** The layer's place in the image, the lowest is 0; none: it is of a document. */
  layer?: number
  /** `unverifiable`: nothing is known against it, but what it would be held against is not here. */
  state: 'damaged' | 'missing' | 'unverifiable'
  /** What is wrong: of a tree its first difference, `etc/motd: its mode is 0600, not 0644`. */
  message: string
  /** Why something damaged was left where it is. Without it, it is gone, and the next pull gets it anew. */
  left?: string
}

/** What a verification found of an image. */
export interface VerifiedImage {
  /** The digest of its manifest. */
  digest: string
  /** The digest of its config; undefined where that is not known: its manifest is damaged, and it was never unpacked. */
  id: string | undefined
  /** All its names, as people write them. */
  names: readonly string[]
  /** Whether nothing is damaged or missing. */
  isWhole: boolean
  faults: readonly Fault[]
}

/** How images are verified. */
export interface VerifyOptions {
  signal?: AbortSignal
  /** Told of each image once it is done. */
  onProgress?: (image: VerifiedImage) => void
}

/** How images are pulled, pushed, or loaded. */
export interface TransferOptions<Progress> {
  /** `OS/ARCH[/VARIANT]`. Default: this machine's; of a push, what the name stands for. */
  platform?: string
  /**
   * Pull and load keep all platforms: the index, and of each entry its documents and its layers, compressed. What is
   * unpacked is this machine's. Not with `platform`. A push sends what was so kept. Default: one platform.
   */
  allPlatforms?: boolean
  /** Aborting it ends the transfer; what came so far is kept. */
  signal?: AbortSignal
  onProgress?: (progress: Progress) => void
}

/** How images are saved. */
export interface SaveImageOptions {
  /**
   * `oci` leaves out what only docker's own reader needs; `oci-dir` is no archive but a layout, the target its directory,
   * which may be one already. Default `docker`, which is read as both.
   */
  format?: ArchiveFormat
  /** The one platform to save, `OS/ARCH[/VARIANT]`. Default: all that the image was pulled or loaded with. */
  platform?: string
  signal?: AbortSignal
}

/** What a root file system becomes. */
export interface ImportOptions {
  /** The image's name. Default: none, it is known by its id. */
  reference?: string
  /**
   * Changes to its config in a Dockerfile's words: CMD, ENTRYPOINT, ENV, USER, WORKDIR, LABEL, EXPOSE, VOLUME, STOPSIGNAL,
   * ONBUILD.
   */
  changes?: readonly string[]
  /** What its history says. Default: `Imported from -`. */
  message?: string
  /** `OS/ARCH[/VARIANT]`. Default: this machine's. */
  platform?: string
  signal?: AbortSignal
}

/** What is pruned. */
export interface PruneOptions {
  /** Every image of which no container runs, not only those without a name. Default false. */
  all?: boolean
  /** Also the compressed blobs of what is unpacked: a push or a save needs the image pulled again. Default false. */
  blobs?: boolean
  /**
   * Bytes, or docker's `'10g'`, that the store may keep: no more is removed than that takes, what was not used for longest
   * first. Default: 0, everything goes that may.
   */
  keepStorage?: number | string
}

/** What a prune did. */
export interface PrunedImages extends Removed {
  /** Bytes. */
  reclaimed: number
  /** How many images are damaged and stay: which blobs these need is not known, so that none is removed. */
  damaged: number
}

/** What the store holds, in bytes. */
export interface StoreUsage {
  /** Also those that are damaged. */
  images: number
  /** Those of which a manifest is missing or damaged: for as long as they are here no blob is removed. */
  damaged: number
  /** Images of which a container runs are not counted here. */
  layers: { count: number; bytes: number }
  blobs: { count: number; bytes: number }
  /** What a prune of everything without a name would free. */
  reclaimable: number
}
