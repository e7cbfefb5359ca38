/** The one seam to the addon: loaded at the first call, never at import, and the only file that knows platforms. */
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type * as Addon from '../index.js'
import { CaissonError } from './errors.ts'
import type { ErrorCode } from './errors.ts'

export type { Failure, NativeEnd, NativeIsolation, NativeUsage, ShimEvent } from '../index.js'

/** The addon's exports, as napi-rs typed them in index.d.ts. */
export type Native = typeof Addon

interface Loaded {
  addon: Native
  /** The executable that stands beside the addon. */
  runtimePath: string
  /** This file, or the bundle that it is in. */
  javascriptPath: string
}

let loaded: Loaded | undefined

/** `caisson.linux-x64-gnu.node` at the root of a checkout, else the platform package that npm chose. */
function candidates(triple: string): string[] {
  return [`../caisson.${triple}.node`, `@caisson/native-${triple}/caisson.${triple}.node`]
}

/**
 * Loads the addon.
 * @throws CaissonError ERR_UNSUPPORTED_PLATFORM where there is none for this system, with what to do.
 */
export function native(): Loaded {
  if (loaded !== undefined) return loaded
  const { platform, arch } = process
  if (platform !== 'linux') {
    throw new CaissonError(
      'ERR_UNSUPPORTED_PLATFORM',
      `containers need a Linux kernel; this is ${platform}. Run this in a Linux machine or VM`,
    )
  }
  const triple = `linux-${arch}-gnu`
  const require = createRequire(import.meta.url)
  let why: unknown
  for (const name of candidates(triple)) {
    try {
      const path = require.resolve(name)
      loaded = {
        addon: require(path) as Native,
        runtimePath: join(dirname(path), 'caisson-runtime'),
        javascriptPath: fileURLToPath(import.meta.url),
      }
      return loaded
    } catch (error) {
      // What cannot be loaded is worse than what is not there, and is what the caller should read.
      if (why === undefined || !isMissing(error)) why = error
    }
  }
  const advice = isMissing(why)
    ? `its package @caisson/native-${triple} is not installed: was npm run with --omit=optional, or node_modules copied from another system?`
    : `it cannot be loaded: ${why instanceof Error ? why.message : String(why)}`
  throw new CaissonError('ERR_UNSUPPORTED_PLATFORM', `no addon for ${triple}: ${advice}`, { cause: why })
}

/** The addon, if somebody needed it. */
export function loadedAddon(): Native | undefined {
  return loaded?.addon
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'MODULE_NOT_FOUND'
}

/** A failure that crossed from Rust, as the error that the caller's `await` throws. */
export function toError(failure: Addon.Failure): CaissonError {
  const { code, stage, errno, subject, message } = failure
  // What the kernel says needs its place; what Caisson says is a sentence already.
  const placed =
    stage === 'exec' || stage === 'identity' || code === 'ERR_NOT_RUNNING'
      ? message
      : `${stage}: ${subject === '' ? '' : `${subject}: `}${message}`
  return new CaissonError(code as ErrorCode, placed, { stage, errno, subject })
}
