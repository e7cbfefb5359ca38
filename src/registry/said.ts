/** Text of strangers in messages of ours: escaped, bounded, and without secrets. */

/** What a terminal or a log obeys: C0, DEL, C1, line separators, marks of direction, halves of pairs. */
const obeyed = /[\p{Cc}\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]|\p{Surrogate}/gu

/** The most characters of a stranger's text in one message. */
export const mostSaid = 1024

/** A stranger's text, fit for a message: what steers terminals is spelled out; at most `most` characters (default 1024). */
export function said(text: string, most: number = mostSaid): string {
  const short = text.length > most ? `${text.slice(0, most)}...` : text
  return short.replaceAll(obeyed, (character) => {
    const code = character.codePointAt(0) ?? 0
    return code < 0x100 ? `\\x${code.toString(16).padStart(2, '0')}` : `\\u{${code.toString(16)}}`
  })
}

/** A URL without what may be secret in it: user, password, query. */
export function place(url: URL): string {
  return said(`${url.protocol}//${url.host}${url.pathname}`)
}

/** What must not be read in a message: passwords and tokens, however they were written. */
export class Secrets {
  readonly #known = new Set<string>()

  /** Keeps `secret` out of messages from now on, also as base64 (with its user, as Basic has it) and in a URL. */
  add(secret: string | undefined, user?: string): void {
    if (secret === undefined || secret === '') return
    const forms = [
      secret,
      encodeURIComponent(secret),
      new URLSearchParams({ s: secret }).toString().slice(2),
      JSON.stringify(secret).slice(1, -1),
    ]
    if (user !== undefined) forms.push(`${user}:${secret}`)
    for (const form of forms) {
      this.#known.add(form)
      this.#known.add(Buffer.from(form).toString('base64'))
    }
  }

  /** The one way of a stranger's text into an error: secrets become `***`, then {@link said}. */
  redact(text: string, most: number = mostSaid): string {
    let clean = text
    // The longest first: what holds another must not be cut by it.
    const longest = [...this.#known].toSorted((one, two) => two.length - one.length)
    for (const secret of longest) clean = clean.replaceAll(secret, '***')
    return said(clean, most)
  }
}
