/** The help of a command, from its records. */
import type { Flag } from './flags/words.ts'

/** docker's form: usage, a sentence, the options in two columns. */
export function helpText<Draft>(usage: string, summary: string, flags: readonly Flag<Draft>[]): string {
  const names = flags.map(({ long, short, value }) => {
    const dashes = short === undefined ? `      --${long}` : `  -${short}, --${long}`
    return value === undefined ? dashes : `${dashes} ${value}`
  })
  const width = Math.max(...names.map((name) => name.length)) + 3
  const lines = flags.map(({ help }, index) => `${names[index]?.padEnd(width) ?? ''}${help}`)
  return `Usage:  ${usage}\n\n${summary}\n\nOptions:\n${lines.join('\n')}\n`
}
