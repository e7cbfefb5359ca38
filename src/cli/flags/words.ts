/** The words of a command line, by records: each flag once, and everything else is made from that. */

/** A flag of docker's: what parser, help and commander read. */
export interface Flag<Draft> {
  /** Without dashes. */
  long: string
  short?: string
  /** What its value is called in the help; a flag without one is a switch. */
  value?: string
  help: string
  /** What it means. A switch is given `'true'` or `'false'`. Throws {@link WordError}. */
  apply: (draft: Draft, value: string) => void
}

/** Words that cannot be taken: a line for the user, and then where the help is. */
export class WordError extends Error {}

/** Docker's switches: `--rm`, `--rm=false`. */
export function isTrue(value: string): boolean {
  if (/^(1|t|true)$/i.test(value)) return true
  if (/^(0|f|false)$/i.test(value)) return false
  throw new WordError(`invalid argument "${value}": not true or false`)
}

function applied<Draft>(flag: Flag<Draft>, draft: Draft, value: string): void {
  try {
    flag.apply(draft, flag.value === undefined ? String(isTrue(value)) : value)
  } catch (error) {
    if (!(error instanceof WordError)) throw error
    throw new WordError(`invalid argument "${value}" for "--${flag.long}" flag: ${error.message}`)
  }
}

/**
 * Applies the flags at the front of `words` and answers the rest, from the first word that is none on: what follows an
 * image is the payload's.
 */
export function parseWords<Draft>(
  flags: readonly Flag<Draft>[],
  words: readonly string[],
  draft: Draft,
): string[] {
  const rest = [...words]
  const next = (name: string): string => {
    const value = rest.shift()
    if (value === undefined) throw new WordError(`flag needs an argument: ${name}`)
    return value
  }
  for (let word = rest[0]; word?.startsWith('-') === true && word !== '-'; word = rest[0]) {
    rest.shift()
    if (word === '--') break
    if (word.startsWith('--')) {
      const at = word.indexOf('=')
      const name = at < 0 ? word.slice(2) : word.slice(2, at)
      const flag = flags.find(({ long }) => long === name)
      if (flag === undefined) throw new WordError(`unknown flag: --${name}`)
      const given = at < 0 ? undefined : word.slice(at + 1)
      applied(flag, draft, given ?? (flag.value === undefined ? 'true' : next(`--${name}`)))
      continue
    }
    // `-it`, `-eA=b`, `-e A=b`: switches stand together, the first that takes a value takes the rest.
    for (let letters = word.slice(1); letters !== '';) {
      const letter = letters[0] ?? ''
      letters = letters.slice(1)
      const flag = flags.find(({ short }) => short === letter)
      if (flag === undefined) throw new WordError(`unknown shorthand flag: '${letter}' in ${word}`)
      if (flag.value === undefined && !letters.startsWith('=')) {
        applied(flag, draft, 'true')
        continue
      }
      const given = letters.startsWith('=') ? letters.slice(1) : letters
      applied(flag, draft, letters === '' ? next(`'${letter}' in ${word}`) : given)
      letters = ''
    }
  }
  return rest
}

/** As {@link parseWords}, for a command whose operands are its own: flags may stand behind them too, up to a `--`. */
export function parseAnywhere<Draft>(
  flags: readonly Flag<Draft>[],
  words: readonly string[],
  draft: Draft,
): string[] {
  const end = words.indexOf('--')
  const operands: string[] = []
  let rest = parseWords(flags, end < 0 ? words : words.slice(0, end), draft)
  for (let word = rest.shift(); word !== undefined; word = rest.shift()) {
    operands.push(word)
    rest = parseWords(flags, rest, draft)
  }
  return end < 0 ? operands : [...operands, ...words.slice(end + 1)]
}
