/** The public API, nothing else. */
export { CaissonError } from './errors.ts'
export type { ErrorCode, ErrorDetails } from './errors.ts'
