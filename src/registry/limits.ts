/** What a registry may cost: times in milliseconds, sizes in bytes. Each one can be given (security.md 1.1). */

export interface Limits {
  /** Until a connection stands, TLS and proxy included. */
  connect: number
  /** Without a byte in either direction. */
  idle: number
  /** Until the answer to an upload's last request: the registry reads all of it again first. */
  commit: number
  /** For a whole document: a manifest, a small blob, a page of tags. */
  document: number
  /** For a token, redirects included. */
  token: number
  /** Attempts at a request that failed in a way that may pass. */
  attempts: number
  /** Before the second attempt; it doubles, with jitter. */
  firstWait: number
  /** Between two attempts, as the back-off grows. */
  mostWait: number
  /** Between two attempts when the registry says how long; longer is an error at once. */
  mostRetryAfter: number
  redirects: number
  manifest: number
  tokenBody: number
  errorBody: number
  /** Tags of one repository, in all. */
  tags: number
  /** A page of a list. */
  page: number
  /** Pages of one list. */
  pages: number
}

export const defaultLimits: Readonly<Limits> = {
  connect: 15_000,
  idle: 30_000,
  commit: 300_000,
  document: 60_000,
  token: 15_000,
  attempts: 5,
  firstWait: 100,
  mostWait: 8_000,
  mostRetryAfter: 60_000,
  redirects: 5,
  manifest: 4 << 20,
  tokenBody: 1 << 20,
  errorBody: 64 << 10,
  tags: 10_000,
  page: 4 << 20,
  pages: 1000,
}
