/** What a library's option refuses, in the words of the command line. */
import { CaissonError } from '../index.ts'

/** Does something with an option that a flag was given for; an error that names the option names the flag. */
export async function asFlag<Value>(
  flag: string,
  option: string,
  act: () => Value | Promise<Value>,
): Promise<Value> {
  try {
    return await act()
  } catch (error) {
    if (!(error instanceof CaissonError) || error.subject !== option) throw error
    const message = error.message.replace(`${option}:`, `${flag}:`)
    throw new CaissonError(error.code, message, { subject: flag, cause: error })
  }
}
