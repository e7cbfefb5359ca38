/** `caisson stats`: figures of containers that run. */
import type { RunningContainer, Stats } from '../index.ts'
import { engineAt } from './engine.ts'
import { statsFlags } from './flags/containers.ts'
import type { StatsDraft } from './flags/containers.ts'
import { parseAnywhere } from './flags/words.ts'
import { helpText } from './help.ts'
import { shown } from './table.ts'

const columns = {
  ID: 'CONTAINER ID',
  Name: 'NAME',
  CPUPerc: 'CPU %',
  MemUsage: 'MEM USAGE / LIMIT',
  MemPerc: 'MEM %',
  NetIO: 'NET I/O',
  BlockIO: 'BLOCK I/O',
  PIDs: 'PIDS',
}

/** Between two looks, ms. */
const interval = 500

interface Look {
  at: number
  figures: Stats
}

async function look(container: RunningContainer): Promise<Look | undefined> {
  try {
    return { figures: await container.stats(), at: performance.now() }
  } catch {
    // It has ended since.
    return undefined
  }
}

function size(bytes: number | undefined, step: number, units: readonly string[]): string {
  if (bytes === undefined) return '--'
  let [value, unit] = [bytes, 0]
  while (value >= step && unit < units.length - 1) [value, unit] = [value / step, unit + 1]
  return `${Number(value.toPrecision(4))}${units[unit]}`
}

function percent(part: number | undefined): string {
  return part === undefined ? '--' : `${(part * 100).toFixed(2)}%`
}

function row(
  { id, name, info }: RunningContainer,
  before: Look,
  now: Look,
  whole: boolean,
): Record<string, string> {
  const used = ({ figures: { cpu } }: Look): number | undefined =>
    cpu.user === undefined ? undefined : cpu.user + (cpu.system ?? 0)
  const [first, last] = [used(before), used(now)]
  const share = first === undefined || last === undefined ? undefined : (last - first) / (now.at - before.at)
  const memory = now.figures.memory.current
  const limit = Number(info.isolation.limits['memory.max'])
  const binary = (bytes: number | undefined): string => size(bytes, 1024, ['B', 'KiB', 'MiB', 'GiB', 'TiB'])
  const decimal = (bytes: number | undefined): string => size(bytes, 1000, ['B', 'kB', 'MB', 'GB', 'TB'])
  const { read, written } = now.figures.io
  return {
    Container: whole ? id : id.slice(0, 12),
    ID: whole ? id : id.slice(0, 12),
    Name: name ?? '--',
    CPUPerc: percent(share),
    MemUsage: `${binary(memory)} / ${binary(Number.isNaN(limit) ? undefined : limit)}`,
    MemPerc: percent(memory === undefined || Number.isNaN(limit) ? undefined : memory / limit),
    // Its network, if it has one of its own, has loopback alone.
    NetIO: '--',
    BlockIO: read === undefined ? '--' : `${decimal(read)} / ${decimal(written)}`,
    PIDs: now.figures.pids.current === undefined ? '--' : String(now.figures.pids.current),
  }
}

/** Prints figures, again and again unless asked otherwise, and answers the exit code. */
export async function stats(words: readonly string[], root: string | undefined): Promise<number> {
  const draft: StatsDraft = { once: false, whole: false, help: false }
  const refs = parseAnywhere(statsFlags, words, draft)
  if (draft.help) {
    const usage = 'caisson stats [OPTIONS] [CONTAINER...]'
    process.stdout.write(helpText(usage, 'Display live resource usage statistics.', statsFlags))
    return 0
  }
  const at = draft.root ?? root
  const engine = engineAt(at)
  const wanted = refs.length > 0 ? refs : (await engine.containers.list()).map(({ id }) => id)
  // Of all of them one may have ended since.
  const found = wanted.map(async (ref) =>
    engine.containers.get(ref).catch((error: unknown) => {
      if (refs.length > 0) throw error
      return undefined
    }),
  )
  const containers = (await Promise.all(found)).filter((one) => one !== undefined)
  let before = await Promise.all(containers.map(look))
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, interval))
    const now = await Promise.all(containers.map(look))
    const rows = containers.flatMap((container, index) => {
      const [first, last] = [before[index], now[index]]
      return first === undefined || last === undefined ? [] : [row(container, first, last, draft.whole)]
    })
    // Docker's way: the screen is written anew.
    if (!draft.once && draft.format === undefined && process.stdout.isTTY)
      process.stdout.write('\u001B[H\u001B[J')
    process.stdout.write(shown(rows, draft.format, columns))
    if (draft.once || rows.length === 0) return 0
    before = now
  }
}
