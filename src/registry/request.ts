/** What is asked of a server, and its answer. */
import type { IncomingMessage, OutgoingHttpHeaders } from 'node:http'
import type { Readable } from 'node:stream'

export type Method = 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'

/** What is asked. */
export interface Request {
  method: Method
  url: URL
  headers?: OutgoingHttpHeaders
  /** Bytes, or a stream of exactly `length` of them; it is destroyed with the request. */
  body?: Buffer | { stream: Readable; length: number; onBytes?: ((bytes: number) => void) | undefined }
  /** Ends it, whatever it is doing; the error is the signal's reason. */
  signal?: AbortSignal | undefined
  /** The longest silence, in milliseconds; default the client's `idle`. */
  idle?: number
}

/** An answer, its body not read yet. Whoever has it reads it to its end or destroys it. */
export interface Answer {
  response: IncomingMessage
  /** Where it came from, redirects followed. */
  url: URL
  status: number
}
