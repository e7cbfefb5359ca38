/** Bodies on their way: sent as they are taken, read as far as they are wanted. */
import type { ClientRequest, IncomingMessage } from 'node:http'
import { CaissonError } from '../errors.ts'
import type { Answer, Request } from './request.ts'
import { codeOf, Unreachable } from './unreachable.ts'

/** Sends a stream as fast as it is taken, and stops once there is an answer. */
export async function feed(
  sent: ClientRequest,
  { stream, length, onBytes }: Exclude<NonNullable<Request['body']>, Buffer>,
): Promise<void> {
  const state = { answered: false }
  sent.once('response', () => (state.answered = true))
  let fed = 0
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    if (sent.destroyed || state.answered) return
    fed += chunk.length
    if (fed > length) break
    if (!sent.write(chunk)) await drained(sent)
    onBytes?.(chunk.length)
  }
  if (sent.destroyed || state.answered) return
  if (fed !== length) {
    const message = `what is sent has ${fed > length ? 'more than' : 'only'} ${Math.min(fed, length)} bytes of ${length}`
    throw new CaissonError('ERR_DIGEST', message, { stage: 'push' })
  }
  sent.end()
}

function drained(sent: ClientRequest): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      for (const name of ['drain', 'close', 'response']) sent.off(name, done)
      resolve()
    }
    for (const name of ['drain', 'close', 'response']) sent.on(name, done)
  })
}

/**
 * A body of at most `most` bytes; undefined for a longer one, whose rest is not read.
 * @param deadline for all of it, in milliseconds.
 * @throws Unreachable for one that breaks off or takes too long; the signal's reason.
 */
export async function readBody(
  { response }: Answer,
  most: number,
  deadline: number,
  signal?: AbortSignal,
): Promise<Buffer | undefined> {
  const late = setTimeout(
    () =>
      response.destroy(new Unreachable(`not all came within ${deadline / 1000} s`, 'ETIMEDOUT', undefined)),
    deadline,
  )
  try {
    if (Number(response.headers['content-length'] ?? 0) > most) return undefined
    const chunks: Buffer[] = []
    let length = 0
    for await (const chunk of response as AsyncIterable<Buffer>) {
      length += chunk.length
      if (length > most) return undefined
      chunks.push(chunk)
    }
    return Buffer.concat(chunks, length)
  } catch (error) {
    if (signal?.aborted === true) throw signal.reason
    if (error instanceof Unreachable) throw error
    throw new Unreachable('the connection broke off', codeOf(error) ?? 'ECONNRESET', error)
  } finally {
    clearTimeout(late)
    if (!response.readableEnded) response.destroy()
  }
}

/** The most bytes of a body that is read for nothing but to keep the connection. */
const mostDiscarded = 64 << 10

/** Lets go of an answer whose body nobody wants: the connection is used again if little is to come, else ended. */
export function discard(response: IncomingMessage): void {
  // 204 has no body, and says no length.
  const length = response.statusCode === 204 ? 0 : Number(response.headers['content-length'] ?? Infinity)
  if (length > mostDiscarded) {
    response.destroy()
    return
  }
  // It may come as slowly as it likes, and the program may end before.
  response.socket.unref()
  response.resume()
}
