/** An error to one line and docker's exit codes. */
import { CaissonError } from '../index.ts'
import { WordError } from './flags/words.ts'
import { Interrupted } from './interrupted.ts'

/** Prints why a command failed, and answers the exit code. `command` is where the help is. */
export function fail(error: unknown, command: string): number {
  const line = (error instanceof Error ? error.message : String(error)).replaceAll(/\p{Cc}/gu, ' ')
  const more = `\n\nRun 'caisson ${command}--help' for more information`
  if (error instanceof Interrupted) {
    process.stderr.write(`caisson: ${line}\n`)
    return error.exitCode
  }
  if (error instanceof WordError) {
    process.stderr.write(`caisson: ${line}${more}\n`)
    return 125
  }
  if (!(error instanceof CaissonError)) {
    process.stderr.write(`caisson: ${line}\n`)
    return 125
  }
  process.stderr.write(`caisson: ${line}${error.code === 'ERR_INVALID_OPTION' ? more : ''}\n`)
  if (error.code === 'ERR_COMMAND_NOT_FOUND') return 127
  if (error.code === 'ERR_COMMAND_NOT_EXECUTABLE') return 126
  return error.code === 'ERR_CONTAINER_NOT_FOUND' || error.code === 'ERR_NOT_RUNNING' ? 1 : 125
}
