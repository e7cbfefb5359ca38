/** Where the time goes inside one start: medians between the moments of a run, beside the floor's stages for the same. */
import { median, short, table } from './figures.ts'
import type { FloorFigures } from './floor.ts'

/** Moments of one start on the shared clock, in their order; `result.timing` carries them for this use. */
export const moments = [
  'called',
  'resolved',
  'sent',
  'taken',
  'journaled',
  'grouped',
  'sourced',
  'born',
  'rooted',
  'ready',
  'executed',
  'ended',
  'undone',
  'settled',
] as const

export type Moment = (typeof moments)[number]
export type Moments = Record<Moment, number>

interface Part {
  until: Moment
  what: string
}

/** What belongs together, and the floor's stages that are the same work; none: the floor has nothing of the kind. */
const groups: readonly { parts: readonly Part[]; floor: readonly (keyof FloorFigures['stages'])[] }[] = [
  {
    parts: [
      { until: 'resolved', what: 'options, pipes' },
      { until: 'sent', what: 'spec, plan, the message' },
      { until: 'taken', what: 'the shim wakes up' },
      { until: 'journaled', what: 'journal, engine files' },
    ],
    floor: [],
  },
  {
    parts: [
      { until: 'grouped', what: 'cgroups' },
      { until: 'sourced', what: 'layers, mount sources' },
    ],
    floor: ['prepare'],
  },
  { parts: [{ until: 'born', what: 'clone' }], floor: ['clone'] },
  {
    parts: [
      { until: 'rooted', what: 'mounts up to the root' },
      { until: 'ready', what: 'devices, masks, isolation read' },
    ],
    floor: ['mounts', 'root'],
  },
  {
    parts: [
      { until: 'executed', what: 'restrictions, exec' },
      { until: 'ended', what: '/bin/true, exit, namespaces gone' },
    ],
    floor: ['restrict_exec_exit'],
  },
  { parts: [{ until: 'undone', what: 'figures, undo' }], floor: ['undo'] },
  { parts: [{ until: 'settled', what: 'event, streams, result' }], floor: [] },
]

const between = (all: readonly Moments[], from: Moment, to: Moment): number =>
  median(all.map((one) => one[to] - one[from]))

/** The lists added up, element by element: each round's own sum. */
function sums(lists: readonly (readonly number[])[]): number[] {
  return (lists[0] ?? []).map((_, at) => lists.reduce((sum, list) => sum + (list[at] ?? 0), 0))
}

/** Medians in ms: each part, then the group and the floor's stages for the same work, and what is beyond them. */
export function stageTable(all: readonly Moments[], floor: FloorFigures['stages']): string {
  const rows: string[][] = []
  const before = (moment: Moment): Moment => moments[moments.indexOf(moment) - 1] ?? 'called'
  for (const { parts, floor: names } of groups) {
    const [first] = parts
    const last = parts.at(-1)
    for (const { until, what } of parts) rows.push([what, short(between(all, before(until), until))])
    if (first === undefined || last === undefined) continue
    const group = between(all, before(first.until), last.until)
    const kernel = names.length === 0 ? 0 : median(sums(names.map((name) => floor[name])))
    rows.at(-1)?.push(short(group), short(kernel), short(group - kernel))
  }
  const whole = between(all, 'called', 'settled')
  const floors = median(sums(Object.values(floor)))
  rows.push(['whole', short(whole), short(whole), short(floors), short(whole - floors)])
  return table(['stage', 'API', 'together', 'floor', 'beyond'], rows)
}
