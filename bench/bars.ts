/** What a start has to hold to, as a list: printed with what was measured. Nothing fails by it; the reader judges. */
import { median, percentile, short } from './figures.ts'
import type { Figures } from './startup.ts'

/** One line of the last table. */
export interface Verdict {
  what: string
  wanted: string
  measured: string
  holds: 'pass' | 'falls short' | 'not measured'
}

interface Bar {
  what: string
  /** How the limit is said, if not as the number. */
  said?: string
  /** The largest value that holds. */
  most: number
  unit?: string
  measure: (figures: Figures) => number
}

const p50 = (values: readonly number[] | undefined): number => median(values ?? [])
const p99 = (values: readonly number[] | undefined): number => percentile(values ?? [], 0.99)
const longest = (calls: Record<string, number>): number => Math.max(...Object.values(calls))

/** Resident memory at the end beyond what it was after the first hundred runs, as a part of that. */
function growth({ soak }: Figures, of: 'nodeRss' | 'shimRss'): number {
  const [first] = soak.samples
  const last = soak.samples.at(-1)
  return first === undefined || last === undefined ? Number.NaN : last[of] / first[of] - 1
}

const list: readonly Bar[] = [
  {
    what: 'API against runc, p50',
    said: '1/8',
    most: 1 / 8,
    measure: ({ starts }) => p50(starts.api) / p50(starts.runc),
  },
  {
    what: 'API against crun without cgroups, p50',
    said: '1/2',
    most: 1 / 2,
    measure: ({ starts }) => p50(starts.api) / p50(starts.crun),
  },
  {
    what: 'API against the floor, p50',
    most: 1.4,
    measure: ({ starts }) => p50(starts.api) / p50(starts.floor),
  },
  {
    what: 'API against the floor, p99 of all starts',
    most: 1.5,
    measure: ({ starts }) => p99(starts.api) / p99(starts.floor),
  },
  {
    what: '500 MB of heap against 50 MB, p50',
    most: 1.05,
    measure: ({ heap }) => p50(heap[500]) / p50(heap[50]),
  },
  {
    what: 'caisson run beyond node -e 0, more than an API start',
    most: 12,
    unit: ' ms',
    measure: ({ starts }) => p50(starts['caisson run']) - p50(starts['node -e 0']) - p50(starts.api),
  },
  {
    what: 'caisson version against node -e 0, p50',
    most: 1.5,
    measure: ({ starts }) => p50(starts['caisson version']) / p50(starts['node -e 0']),
  },
  {
    // What else runs on a processor can hold up one call of a thousand: half of the processes saw none longer.
    what: 'longest call into the addon, 100 starts 8 at a time, p50 of processes',
    most: 1,
    unit: ' ms',
    measure: ({ calls }) => p50(calls.map(({ later }) => longest(later))),
  },
  {
    what: 'event loop delay, p99, against child_process.spawn',
    most: 1,
    measure: ({ delays }) =>
      median(delays.api.map((one) => one.p99)) / median(delays.spawn.map((one) => one.p99)),
  },
  {
    what: 'things left behind by 1,000 runs in one process',
    most: 0,
    measure: ({ soak }) => (soak.left === '' ? 0 : soak.left.split('\n').length),
  },
  {
    what: 'RSS of Node, 1,000 runs against 100: growth',
    most: 0.05,
    measure: (figures) => growth(figures, 'nodeRss'),
  },
  {
    what: 'RSS of the shim, 1,000 runs against 100: growth',
    most: 0.05,
    measure: (figures) => growth(figures, 'shimRss'),
  },
  {
    what: 'SIGKILL with 50 containers: nothing left, p99',
    most: 100,
    unit: ' ms',
    measure: ({ endings }) => p99(endings.map(({ clean }) => clean)),
  },
  {
    what: 'SIGKILL with 50 containers: no namespace left, longest',
    most: 1000,
    unit: ' ms',
    measure: ({ endings }) => Math.max(...endings.map(({ namespaces }) => namespaces)),
  },
  {
    what: 'receipt and isolation of a run',
    most: 0.2,
    unit: ' ms',
    measure: ({ receipt }) => (p50(receipt.isolation) + p50(receipt.usage)) / 1000,
  },
]

/** Each bar with what was measured for it. */
export function bars(figures: Figures): Verdict[] {
  return list.map(({ what, said, most, unit = '', measure }) => {
    const value = measure(figures)
    const holds = Number.isFinite(value) ? (value <= most ? 'pass' : 'falls short') : 'not measured'
    return { what, wanted: `at most ${said ?? most}${unit}`, measured: `${short(value)}${unit}`, holds }
  })
}
