/** What a program gives a method of images, as `run` takes its options: own properties, of known names and kinds. */
import { refuse } from '../errors.ts'

/** The kinds of all options; a method has some of them. */
const kinds: Readonly<Record<string, string>> = {
  all: 'boolean',
  allPlatforms: 'boolean',
  author: 'string',
  blobs: 'boolean',
  changes: 'array',
  force: 'boolean',
  format: 'string',
  keepStorage: 'string or number',
  message: 'string',
  onProgress: 'function',
  pause: 'boolean',
  platform: 'string',
  reference: 'string',
  signal: 'AbortSignal',
}

function kindOf(value: unknown): string {
  if (Array.isArray(value)) return 'array'
  if (value instanceof AbortSignal) return 'AbortSignal'
  return value === null ? 'null' : typeof value
}

/**
 * The options that were given. A misspelt one is no default: `prune` with `keepStorag` would remove all.
 * @throws CaissonError ERR_INVALID_OPTION, by its name, for one that is unknown or of the wrong kind.
 */
export function given<Options extends object>(
  options: Options,
  ...names: readonly (keyof Options & string)[]
): Options {
  if (kindOf(options) !== 'object') throw refuse('options', `an object is wanted, not ${kindOf(options)}`)
  const taken = Object.create(null) as Options
  for (const [name, value] of Object.entries(options) as [keyof Options & string, unknown][]) {
    if (!names.includes(name)) throw refuse(name, 'unknown option')
    if (value === undefined) continue
    const wanted = kinds[name] ?? ''
    const kind = kindOf(value)
    if (!wanted.split(' or ').includes(kind))
      throw refuse(name, `a value of type ${wanted} is wanted, not ${kind}`)
    Object.assign(taken, { [name]: value })
  }
  return taken
}
