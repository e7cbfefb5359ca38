/** Figures and how they are shown: percentiles of raw values, and tables whose columns stand under each other. */

/** What is said of a list of measured values, in their unit. */
export interface Summary {
  n: number
  p50: number
  p95: number
  p99: number
  /** Between the first and the third quarter: how noisy the run was. */
  iqr: number
}

/** The value below which `part` (0 to 1) of the values lie, as floor.c counts: the element at that index. */
export function percentile(values: readonly number[], part: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? Number.NaN
}

/** Half are below it. */
export const median = (values: readonly number[]): number => percentile(values, 0.5)

/** The summary of one list. */
export function summary(values: readonly number[]): Summary {
  return {
    n: values.length,
    p50: percentile(values, 0.5),
    p95: percentile(values, 0.95),
    p99: percentile(values, 0.99),
    iqr: percentile(values, 0.75) - percentile(values, 0.25),
  }
}

/** `1.234`, `12.34`, `123.4`: four digits, or fewer for what is below 1. */
export function short(value: number): string {
  if (!Number.isFinite(value)) return '-'
  const size = Math.abs(value)
  return value.toFixed(size >= 100 ? 1 : size >= 10 ? 2 : 3)
}

/** Rows under a header: the first column to the left, the others to the right, two spaces between. */
export function table(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [header, ...rows]
  const widths = header.map((_, column) => Math.max(...all.map((row) => (row[column] ?? '').length)))
  const line = (row: readonly string[]): string =>
    widths
      .map((width, column) =>
        column === 0 ? (row[0] ?? '').padEnd(width) : (row[column] ?? '').padStart(width),
      )
      .join('  ')
      .trimEnd()
  return all.map(line).join('\n')
}
