/** The public API, nothing else. */
import { defaultEngine } from './container/engine.ts'
import type { Engine } from './container/engine.ts'

export { Engine } from './container/engine.ts'
export type { BufferOptions, EngineOptions } from './container/engine.ts'
export type { Container, StopOptions } from './container/container.ts'
export type { ContainerInfo, Containers, RunningContainer } from './container/containers.ts'
export type { CommitOptions } from './container/commit.ts'
export type { ContainerAgent, ListeningOptions } from './container/dial.ts'
export type { Finding } from './container/doctor.ts'
export type { ExecOptions } from './container/exec.ts'
export type { ExportOptions } from './container/export.ts'
export type {
  DeviceOption,
  IoLimit,
  MountOption,
  RunOptions,
  StdioOption,
  Ulimit,
} from './container/options.ts'
export type { Stats } from './container/figures.ts'
export type { Process, ProcessPromise } from './container/process.ts'
export type { Cause, Isolation, Result, Timing, Usage } from './container/result.ts'
export type { Image } from './container/run.ts'
export type { Output } from './container/stdio.ts'
export type { Duration } from './container/units.ts'
export { login, logout } from './image/accounts.ts'
export type { Account } from './image/accounts.ts'
export type { ImageCollection } from './image/collection.ts'
export type {
  Fault,
  HistoryEntry,
  ImageInfo,
  ImportOptions,
  PruneOptions,
  Removed,
  SaveImageOptions,
  PrunedImages,
  StoreUsage,
  TransferOptions,
  VerifiedImage,
  VerifyOptions,
} from './image/info.ts'
export type { Followed } from './image/followed.ts'
export type { LoadProgress } from './image/load.ts'
export type { PullProgress } from './image/pull.ts'
export type { PushProgress } from './image/push.ts'
export { registry } from './image/published.ts'
export type { Published, PublishedManifest, PublishedOptions } from './image/published.ts'
export type { Referrer } from './registry/lists.ts'
export type { ArchiveFormat } from './image/save.ts'
export type { Size } from './state/sizes.ts'
export { CaissonError } from './errors.ts'
export type { ErrorCode, ErrorDetails } from './errors.ts'

/** {@link Engine.pull} of the default engine. */
export const pull: Engine['pull'] = (reference, options) => defaultEngine().pull(reference, options)

/** {@link Engine.run} of the default engine. */
export const run: Engine['run'] = ((...args: Parameters<Engine['run']>) =>
  defaultEngine().run(...args)) as Engine['run']

/** {@link Engine.start} of the default engine. */
export const start: Engine['start'] = (async (...args: Parameters<Engine['start']>) =>
  defaultEngine().start(...args)) as Engine['start']
