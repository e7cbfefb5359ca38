/** An image's config: how it wants to be run. What is read is listed here; everything else selects nothing (D11). */
import { constants } from 'node:os'
import { resolve } from 'node:path/posix'
import { field, invalid, object, objects, parse, requiredText, text, unsupported, words } from './document.ts'
import type { Fields } from './document.ts'
import { checkDigest, fits, hostPlatform, showPlatform } from './manifest.ts'
import type { Platform } from './manifest.ts'

/** What an image says about how it wants to be run: the fields that are read, and no others. */
export interface ImageConfig {
  entrypoint?: readonly string[]
  cmd?: readonly string[]
  env?: readonly string[]
  user?: string
  workdir?: string
  /** A signal's name or number. */
  stopSignal?: string
}

/** A config, and the digests of its inflated layers, the lowest first. */
export interface Config {
  config: ImageConfig
  diffIds: readonly string[]
  platform: Platform
}

/** An exec takes no more than a few MiB anyway; a string of it 128 KiB. */
const mostWords = { count: 4096, length: 1 << 20 }

/** Each layer is one, and what changes the config alone. */
const mostSteps = 8192

/** glibc's SIGRTMIN and SIGRTMAX; the kernel's numbers from 34 on. */
const realtime = { first: 34, last: 64 }

function signal(word: string, what: string): string {
  const name = word.toUpperCase().replace(/^SIG/, '')
  const numbers: Record<string, number> = constants.signals
  const based = /^RT(MIN|MAX)(?:([+-])(\d{1,2}))?$/.exec(name)
  let number = /^\d{1,2}$/.test(name)
    ? Number(name)
    : Object.hasOwn(numbers, `SIG${name}`)
      ? numbers[`SIG${name}`]
      : undefined
  if (based !== null) {
    const from = based[1] === 'MIN' ? realtime.first : realtime.last
    const step = Number(based[3] ?? 0)
    number = based[2] === '-' ? from - step : from + step
    if (number < realtime.first) number = undefined
  }
  if (number === undefined || number < 1 || number > realtime.last)
    throw invalid(what, `StopSignal '${word}' is no signal`)
  return based === null ? word : String(number)
}

/** Types are checked of what is not used, too: a document that is wrong there is no image. */
function checkUnused(fields: Fields, what: string): void {
  for (const name of ['Volumes', 'ExposedPorts', 'Labels', 'Healthcheck']) object(fields, name, what)
  words(fields, 'Shell', mostWords, what)
}

function environment(fields: Fields, what: string): readonly string[] | undefined {
  const env = words(fields, 'Env', mostWords, what)
  if (env?.some((entry) => entry.startsWith('='))) throw invalid(what, 'Env holds a variable without a name')
  return env
}

/** Reads the `config` object of a config. */
function runConfig(fields: Fields, what: string): ImageConfig {
  checkUnused(fields, what)
  const entrypoint = words(fields, 'Entrypoint', mostWords, what)
  const cmd = words(fields, 'Cmd', mostWords, what)
  const env = environment(fields, what)
  const user = text(fields, 'User', 512, what)
  const workdir = text(fields, 'WorkingDir', 4096, what)
  const stopSignal = text(fields, 'StopSignal', 32, what)
  return {
    ...(entrypoint !== undefined && { entrypoint }),
    ...(cmd !== undefined && { cmd }),
    ...(env !== undefined && { env }),
    ...(user !== undefined && user !== '' && { user }),
    // Docker reads a relative one from the root.
    ...(workdir !== undefined && workdir !== '' && { workdir: resolve('/', workdir) }),
    ...(stopSignal !== undefined && stopSignal !== '' && { stopSignal: signal(stopSignal, what) }),
  }
}

/**
 * The steps that made an image, the first first; none where it does not say.
 * @throws CaissonError ERR_INVALID_IMAGE for what is no list of objects, ERR_IMAGE_LIMIT for more than 8192.
 */
export function stepsOf(fields: Fields, what: string): readonly Fields[] {
  const isAbsent = (field(fields, 'history') ?? undefined) === undefined
  return isAbsent ? [] : objects(fields, 'history', mostSteps, what)
}

/**
 * Reads a config of an image with `layers` layers; `wanted` is its platform, null any.
 * @throws CaissonError ERR_INVALID_IMAGE, ERR_IMAGE_LIMIT; ERR_UNSUPPORTED for one of another platform.
 */
export function parseConfig(
  bytes: Uint8Array,
  what: string,
  layers: number,
  wanted: Platform | null = hostPlatform(),
): Config {
  const fields = parse(bytes, what)
  const os = requiredText(fields, 'os', 255, what)
  const architecture = requiredText(fields, 'architecture', 255, what)
  const variant = text(fields, 'variant', 255, what)
  if (wanted !== null && (os !== wanted.os || architecture !== wanted.architecture)) {
    const here = fits(wanted, hostPlatform()) ? 'this machine is' : 'wanted is'
    throw unsupported(what, `is for ${os}/${architecture}; ${here} ${showPlatform(wanted)}`)
  }
  const rootfs = object(fields, 'rootfs', what)
  if (rootfs === undefined) throw invalid(what, 'rootfs is missing')
  if (requiredText(rootfs, 'type', 255, `${what} rootfs`) !== 'layers')
    throw invalid(what, 'rootfs.type is not layers')
  const diffIds = words(rootfs, 'diff_ids', { count: 4096, length: 1 << 20 }, `${what} rootfs`) ?? []
  if (diffIds.length !== layers) {
    throw invalid(what, `rootfs.diff_ids has ${diffIds.length} entries, but the manifest ${layers} layers`)
  }
  for (const diffId of diffIds) checkDigest(diffId, `${what} rootfs.diff_ids`)
  stepsOf(fields, what)
  const config = object(fields, 'config', what)
  return {
    config: config === undefined ? {} : runConfig(config, `${what} config`),
    diffIds,
    platform: { os, architecture, variant },
  }
}
