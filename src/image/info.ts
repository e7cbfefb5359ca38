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
  /** `oci` leaves out what only docker's own reader needs. Default `docker`, which is read as both. */
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
   * Changes to its config in a Dockerfile's words: CMD, ENTRYPOINT, ENV, USER, WORKDIR, LABEL, EXPOSE, VOLUME, STOPSIGNAL.
   */
  changes?: readonly string[]
  /** What its history says. Default: `Imported from -`. */
  message?: string
  /** `OS/ARCH[/VARIANT]`. Default: this machine's. */
  platform?: string
  signal?: AbortSignal
}

/** What the store holds, in bytes. */
export interface StoreUsage {
  images: number
  /** Images of which a container runs are not counted here. */
  layers: { count: number; bytes: number }
  blobs: { count: number; bytes: number }
  /** What a prune of everything without a name would free. */
  reclaimable: number
}
