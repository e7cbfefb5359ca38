/** What an answer promises about its body, held against the descriptor before a byte is read. */
import { CaissonError } from '../errors.ts'
import type { Answer } from './request.ts'

/** A server that knows another range than the one that was asked for has another blob. */
export function checkRange({ response }: Answer, subject: string, from: number, size: number): void {
  const range = /^bytes (\d{1,16})-(\d{1,16})\/(\d{1,16}|\*)$/.exec(response.headers['content-range'] ?? '')
  const [, first, last, total] = range ?? []
  if (Number(first) === from && Number(last) === size - 1 && (total === '*' || Number(total) === size)) return
  response.destroy()
  throw wrongDigest(subject, `the server's range is not ${from}-${size - 1}/${size}`)
}

/** A server that promises another length than the descriptor's is not read at all. */
export function checkLength({ response }: Answer, subject: string, expected: number): void {
  const { 'content-length': length } = response.headers
  if (length === undefined || Number(length) === expected) return
  response.destroy()
  throw wrongDigest(subject, `the server sends ${length} bytes, not ${expected}`)
}

export function wrongDigest(subject: string, message: string): CaissonError {
  return new CaissonError('ERR_DIGEST', `${subject}: ${message}`, { stage: 'resolve', subject })
}

export function tooLarge(subject: string, most: number): CaissonError {
  return new CaissonError('ERR_IMAGE_LIMIT', `${subject}: is larger than ${most} bytes`, {
    stage: 'resolve',
    subject,
  })
}
