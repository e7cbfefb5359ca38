/** Rows of facts: docker's table, a template, or JSON, a line each. */
import { format } from './output.ts'

/** What a person reads of an age: docker's words. */
export function ago(ms: number): string {
  const seconds = Math.floor(ms / 1000)
  const steps: [number, number, string][] = [
    [1, 1, 'Less than a second'],
    [2, 1, '1 second'],
    [60, 1, 'seconds'],
    [120, 60, 'About a minute'],
    [3600, 60, 'minutes'],
    [7200, 3600, 'About an hour'],
    [48 * 3600, 3600, 'hours'],
    [14 * 86_400, 86_400, 'days'],
    [60 * 86_400, 7 * 86_400, 'weeks'],
    [730 * 86_400, 30 * 86_400, 'months'],
    [Number.POSITIVE_INFINITY, 365 * 86_400, 'years'],
  ]
  const [, unit, word] = steps.find(([below]) => seconds < below) ?? [0, 1, '']
  return word === word.toLowerCase() && !word.startsWith('1 ')
    ? `${Math.floor(seconds / unit)} ${word}`
    : word
}

/** Bytes as docker writes them: three figures, in steps of a thousand. */
export function bytes(count: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB']
  let at = 0
  let value = count
  while (value >= 1000 && at < units.length - 1) {
    value /= 1000
    at += 1
  }
  return `${at === 0 ? Math.round(value) : Number(value.toPrecision(3))}${units[at]}`
}

/** Columns that are as wide as their widest, three blanks apart. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, index) => Math.max(...rows.map((row) => row[index]?.length ?? 0)))
  const line = (row: readonly string[]): string =>
    row
      .map((cell, index) => (index === row.length - 1 ? cell : cell.padEnd((widths[index] ?? 0) + 3)))
      .join('')
  return rows.map((row) => `${line(row)}\n`).join('')
}

/** Rows in the form asked for; without one, the columns. */
export function shown(
  rows: readonly Record<string, string>[],
  form: string | undefined,
  columns: Readonly<Record<string, string>>,
): string {
  const asTable = form === undefined || form === 'table'
  if (asTable) {
    const keys = Object.keys(columns)
    return table([Object.values(columns), ...rows.map((row) => keys.map((key) => row[key] ?? ''))])
  }
  const template = /^table\s+(.*)$/s.exec(form)?.[1]
  if (template === undefined)
    return rows.map((row) => format(row, form.replaceAll(String.raw`\t`, '\t'))).join('')
  const cells = (row: Record<string, string>): string[] =>
    format(row, template)
      .trimEnd()
      .split(/\t|\\t/)
  const heads = Object.fromEntries(
    Object.keys(rows[0] ?? columns).map((key) => [key, columns[key] ?? key.toUpperCase()]),
  )
  return table([cells({ ...columns, ...heads }), ...rows.map(cells)])
}

/** Why no blob is removed, if that is so. */
export function blocked(damaged: number): string {
  if (damaged === 0) return ''
  const images = damaged === 1 ? '1 image is damaged' : `${damaged} images are damaged`
  return `caisson: ${images}: no blob is removed until a pull mends what 'caisson image verify' names, or it is removed\n`
}
