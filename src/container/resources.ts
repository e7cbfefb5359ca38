/** Limits: docker's words to the runtime spec's resources. */
import { availableParallelism, cpus as processors } from 'node:os'
import { device } from './devices.ts'
import { refuse } from '../errors.ts'
import type { RunOptions } from './options.ts'
import { bytes } from '../state/sizes.ts'
import type { Size } from '../state/sizes.ts'

const leastMemory = 6 << 20
const period = 100_000

function memory(options: RunOptions): object | undefined {
  const size = (name: 'memory' | 'memorySwap' | 'memoryReservation'): number | undefined => {
    const value = options[name]
    return value === undefined ? undefined : bytes(name, value)
  }
  const [limit, swap, reservation] = [size('memory'), size('memorySwap'), size('memoryReservation')]
  if (limit !== undefined && limit !== -1 && limit < leastMemory) {
    throw refuse('memory', 'Minimum memory limit allowed is 6MB')
  }
  if (swap !== undefined && limit === undefined) {
    throw refuse('memorySwap', 'You should always set the Memory limit when using Memoryswap limit')
  }
  if (swap !== undefined && limit !== undefined && swap !== -1 && swap < limit) {
    throw refuse('memorySwap', 'Minimum memoryswap limit should be larger than memory limit')
  }
  if (limit === undefined && reservation === undefined) return undefined
  return {
    ...(limit !== undefined && { limit, swap: swap ?? (limit === -1 ? -1 : limit * 2) }),
    ...(reservation !== undefined && { reservation }),
  }
}

function cpu(options: RunOptions): object | undefined {
  const { cpus, cpuShares, cpuset } = options
  if (cpus !== undefined) {
    const most = Math.max(availableParallelism(), processors().length)
    if (!(cpus >= 0.01) || cpus > most) {
      throw refuse(
        'cpus',
        `range of CPUs is from 0.01 to ${most}.00, as there are only ${most} CPUs available`,
      )
    }
  }
  if (cpuShares !== undefined && !(Number.isInteger(cpuShares) && cpuShares >= 2 && cpuShares <= 262_144)) {
    throw refuse('cpuShares', `${cpuShares} is not between 2 and 262144`)
  }
  if (cpuset !== undefined && !/^\d+(-\d+)?(,\d+(-\d+)?)*$/.test(cpuset)) {
    throw refuse('cpuset', `'${cpuset}' is no list of processors like 0-2,4`)
  }
  if (cpus === undefined && cpuShares === undefined && cpuset === undefined) return undefined
  return {
    ...(cpus !== undefined && { quota: Math.round(cpus * period), period }),
    ...(cpuShares !== undefined && { shares: cpuShares }),
    ...(cpuset !== undefined && { cpus: cpuset }),
  }
}

const throttles = [
  ['readBps', 'throttleReadBpsDevice'],
  ['writeBps', 'throttleWriteBpsDevice'],
  ['readIops', 'throttleReadIOPSDevice'],
  ['writeIops', 'throttleWriteIOPSDevice'],
] as const

function blockIo(options: RunOptions): object | undefined {
  if (options.io === undefined || options.io.length === 0) return undefined
  const lists: Record<string, object[]> = {}
  for (const limit of options.io) {
    const { major, minor } = device('io', limit.device)
    for (const [word, field] of throttles) {
      const value: Size | undefined = limit[word]
      if (value === undefined) continue
      const rate = bytes(`io.${word}`, value)
      if (rate <= 0) throw refuse(`io.${word}`, 'a rate is more than 0')
      ;(lists[field] ??= []).push({ major, minor, rate })
    }
  }
  return lists
}

/** The `linux.resources` of the spec, without its devices. */
export function resources(options: RunOptions): Record<string, unknown> {
  const { pids } = options
  if (pids !== undefined && !Number.isInteger(pids)) throw refuse('pids', `${pids} is no whole number`)
  const [ofMemory, ofCpu, ofIo] = [memory(options), cpu(options), blockIo(options)]
  return {
    ...(ofMemory !== undefined && { memory: ofMemory }),
    ...(ofCpu !== undefined && { cpu: ofCpu }),
    ...(ofIo !== undefined && { blockIO: ofIo }),
    // Docker's 0 and -1 are no limit.
    ...(pids !== undefined && pids > 0 && { pids: { limit: pids } }),
    ...(options.cgroup !== undefined && { unified: options.cgroup }),
  }
}

const ulimitNames: ReadonlySet<string> = new Set(
  'core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack'.split(
    ' ',
  ),
)

/** The `process.rlimits` of the spec. */
export function rlimits(options: RunOptions): object[] {
  return Object.entries(options.ulimits ?? {}).map(([name, value]) => {
    if (!ulimitNames.has(name)) throw refuse('ulimits', `invalid ulimit type: ${name}`)
    const { soft, hard } = typeof value === 'number' ? { soft: value, hard: value } : value
    for (const limit of [soft, hard]) {
      if (!Number.isSafeInteger(limit) || limit < -1) throw refuse('ulimits', `${name}: ${limit} is no limit`)
    }
    if (hard !== -1 && (soft === -1 || soft > hard)) {
      throw refuse(
        'ulimits',
        `${name}: ulimit soft limit must be less than or equal to hard limit: ${soft} > ${hard}`,
      )
    }
    const limit = (count: number): number | object => (count === -1 ? unlimited : count)
    return { type: `RLIMIT_${name.toUpperCase()}`, soft: limit(soft), hard: limit(hard) }
  })
}

/** RLIM_INFINITY, 2^64 - 1, which no JavaScript number is but JSON text can hold. */
const unlimited = (JSON as unknown as { rawJSON(text: string): object }).rawJSON('18446744073709551615')
