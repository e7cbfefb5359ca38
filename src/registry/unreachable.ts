/** No answer: what stands between us and a server. */

/** What stands between us and a server, and not in its answer. `code` is the system's or TLS's word. */
export class Unreachable extends Error {
  readonly code: string | undefined
  constructor(message: string, code: string | undefined, cause: unknown) {
    super(message, { cause })
    this.code = code
  }
}

/** The system's or Node's word for an error. */
export function codeOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined
}
