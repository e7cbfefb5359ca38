/** What went wrong, as a stable word: the contract. The same list stands in crates/core/src/error.rs; a test holds the two together. */
export type ErrorCode =
  | 'ERR_INVALID_SPEC'
  | 'ERR_UNSUPPORTED'
  | 'ERR_COMMAND_NOT_FOUND'
  | 'ERR_COMMAND_NOT_EXECUTABLE'
  | 'ERR_USER_NOT_FOUND'
  | 'ERR_MOUNT_SOURCE'
  | 'ERR_NO_CONTROLLER'
  | 'ERR_DIAL'
  | 'ERR_ISOLATION'
  | 'ERR_NO_USER_NAMESPACE'
  | 'ERR_ARCHIVE'
  | 'ERR_IMAGE_LIMIT'
  | 'ERR_DIGEST'
  | 'ERR_CUT'
  | 'ERR_SHIM_LOST'
  | 'ERR_UNSAFE_INSTALL'
  | 'ERR_RUNTIME_MISMATCH'
  | 'ERR_LAUNCH'
  | 'ERR_INTERNAL'
  | 'ERR_INVALID_OPTION'
  | 'ERR_UNSUPPORTED_PLATFORM'
  | 'ERR_IMAGE_NOT_FOUND'
  | 'ERR_INVALID_IMAGE'
  | 'ERR_REGISTRY'
  | 'ERR_REGISTRY_AUTH'
  | 'ERR_COMMAND_FAILED'
  | 'ERR_NOT_RUNNING'
  | 'ERR_CONTAINER_NOT_FOUND'
  | 'ERR_IMAGE_IN_USE'

/** What a {@link CaissonError} says beside its message. */
export interface ErrorDetails {
  /** The step of a run that failed: `plan`, `mount`, `exec`, ... */
  stage?: string | undefined
  /** The kernel's errno, where there was one. */
  errno?: number | undefined
  /** The field, path or name it is about. */
  subject?: string | undefined
  /** The error underneath. */
  cause?: unknown
}

const brand: unique symbol = Symbol.for('caisson.error')

/** The one error of Caisson. `code` is the contract; `message` says what to do. */
export class CaissonError extends Error {
  readonly code: ErrorCode
  // Declared only: what is not known is no property.
  declare readonly stage?: string
  declare readonly errno?: number
  declare readonly subject?: string
  /** Of ERR_COMMAND_FAILED: what the command came to, the whole `Result`. */
  declare readonly result?: {
    exitCode: number | null
    signal: NodeJS.Signals | null
    stdout: string | Buffer
    stderr: string | Buffer
  }

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, 'cause' in details ? { cause: details.cause } : undefined)
    this.code = code
    if (details.stage !== undefined) this.stage = details.stage
    if (details.errno !== undefined) this.errno = details.errno
    if (details.subject !== undefined) this.subject = details.subject
  }

  /** True for errors of another copy of this package too, so that `instanceof` holds across a dependency tree. */
  static override [Symbol.hasInstance](value: unknown): boolean {
    if (this !== CaissonError) return Function.prototype[Symbol.hasInstance].call(this, value)
    return typeof value === 'object' && value !== null && brand in value && value[brand] === true
  }
}

// On the prototype, so that neither is an own property that every printed error repeats.
Object.defineProperty(CaissonError.prototype, 'name', {
  value: 'CaissonError',
  configurable: true,
  writable: true,
})
Object.defineProperty(CaissonError.prototype, brand, { value: true })

/** An option that cannot be taken, by name. */
export function refuse(option: string, message: string): CaissonError {
  return new CaissonError('ERR_INVALID_OPTION', `${option}: ${message}`, { subject: option })
}
