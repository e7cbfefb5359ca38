/** WWW-Authenticate: what a server wants to see before it answers (RFC 9110, 11.6.1). */

export interface Challenge {
  /** In lower case: `basic`, `bearer`. */
  scheme: string
  /** By their names in lower case. */
  parameters: ReadonlyMap<string, string>
}

const tokens = /[!#$%&'*+.^_`|~0-9A-Za-z-]+/y
const spaces = /[ \t]*/y

/** The most challenges of one answer that are looked at. */
const mostChallenges = 16

/** Walks through a header from left to right; every step takes time in proportion to what it takes. */
class Reader {
  #at = 0
  readonly text: string
  constructor(text: string) {
    this.text = text
  }
  get ended(): boolean {
    return this.#at >= this.text.length
  }
  get at(): number {
    return this.#at
  }
  back(at: number): void {
    this.#at = at
  }
  #take(pattern: RegExp): string {
    pattern.lastIndex = this.#at
    const found = pattern.exec(this.text)?.[0] ?? ''
    this.#at += found.length
    return found
  }
  space(): void {
    this.#take(spaces)
  }
  token(): string {
    return this.#take(tokens)
  }
  /** Whether the next character is this one, which is then behind us. */
  is(character: string): boolean {
    if (this.text[this.#at] !== character) return false
    this.#at += 1
    return true
  }
  /** What stands between quotes, the first one taken already. */
  quoted(): string {
    let value = ''
    while (!this.ended) {
      const character = this.text[this.#at] ?? ''
      this.#at += 1
      if (character === '"') break
      if (character === '\\') {
        value += this.text[this.#at] ?? ''
        this.#at += 1
      } else value += character
    }
    return value
  }
  skip(): void {
    this.#at += 1
  }
}

/** The challenges of an answer's WWW-Authenticate headers, in their order. What is malformed is passed over. */
export function parseChallenges(headers: readonly string[]): Challenge[] {
  const found: Challenge[] = []
  for (const header of headers) {
    const reader = new Reader(header)
    let parameters: Map<string, string> | undefined
    while (!reader.ended && found.length < mostChallenges) {
      reader.space()
      if (reader.is(',')) continue
      const word = reader.token()
      if (word === '') {
        reader.skip()
        continue
      }
      const behind = reader.at
      reader.space()
      // A word and `=` is a parameter of the challenge before it; a word alone begins the next.
      if (parameters !== undefined && reader.is('=')) {
        reader.space()
        const value = reader.is('"') ? reader.quoted() : reader.token()
        const name = word.toLowerCase()
        // The first one counts: who says two things is not asked which one is meant.
        if (!parameters.has(name)) parameters.set(name, value)
        continue
      }
      reader.back(behind)
      parameters = new Map()
      found.push({ scheme: word.toLowerCase(), parameters })
    }
  }
  return found
}
