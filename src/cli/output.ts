/** `--format` of commands that print facts: `json`, or text with `{{.Field}}` and `{{json .}}`. */
import { WordError } from './flags/words.ts'
import type { Flag } from './flags/words.ts'

export interface FormatDraft {
  format?: string
  root?: string
  help: boolean
}

/** The flags of a command that prints facts. */
export const formatFlag: readonly Flag<FormatDraft>[] = [
  {
    long: 'format',
    short: 'f',
    value: 'string',
    help: "'json', or a template like '{{.version}}'",
    apply: (draft, value) => void (draft.format = value),
  },
  { long: 'help', help: 'Print usage', apply: (draft) => void (draft.help = true) },
  {
    long: 'root',
    value: 'dir',
    help: 'Where all state and storage is',
    apply: (draft, value) => void (draft.root = value),
  },
]

function fieldOf(within: unknown, name: string): unknown {
  const fields = typeof within === 'object' && within !== null ? (within as Record<string, unknown>) : {}
  const key = Object.keys(fields).find((known) => known.toLowerCase() === name.toLowerCase())
  if (key === undefined) throw new WordError(`template: there is no field ${name}`)
  return fields[key]
}

/** Facts in the form asked for. A field that is not there is an error that names it. */
export function format(facts: Record<string, unknown>, form: string): string {
  if (form === 'json') return `${JSON.stringify(facts)}\n`
  const fields = /\{\{\s*(json )?\.([A-Za-z0-9.]*)\s*\}\}/g
  // Of the template, not of what it gives: JSON ends in braces, too.
  if (/\{\{|\}\}/.test(form.replaceAll(fields, '')))
    throw new WordError(`template: '${form}' is more than fields`)
  const text = form.replaceAll(fields, (_, json: string | undefined, name: string) => {
    if (name === '') return JSON.stringify(facts)
    const value = name.split('.').reduce<unknown>((within, part) => fieldOf(within, part), facts)
    return json === undefined && typeof value === 'string' ? value : JSON.stringify(value)
  })
  return `${text}\n`
}
