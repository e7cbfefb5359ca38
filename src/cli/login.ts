/** `caisson login` and `caisson logout`. */
import { readFileSync } from 'node:fs'
import { login as logIn, logout as logOut } from '../index.ts'
import { loginFlags, logoutFlags } from './flags/images.ts'
import type { LoginDraft } from './flags/images.ts'
import { parseAnywhere, WordError } from './flags/words.ts'
import { Interrupted } from './interrupted.ts'
import { helpText } from './help.ts'

/** Asks for a line; what is typed for a secret is not shown. */
async function ask(question: string, secret: boolean): Promise<string> {
  const { createInterface } = await import('node:readline')
  const { Writable } = await import('node:stream')
  if (!process.stdin.isTTY) throw new WordError('Cannot perform an interactive login from a non TTY device')
  process.stdout.write(question)
  const silent = new Writable({ write: (_chunk, _encoding, done) => done() })
  const lines = createInterface({
    input: process.stdin,
    output: secret ? silent : process.stdout,
    terminal: secret,
  })
  try {
    return await new Promise<string>((resolve, reject) => {
      lines.once('line', resolve)
      lines.once('close', () => reject(new WordError('login was ended')))
      lines.once('SIGINT', () => reject(new Interrupted('login', 'SIGINT')))
    })
  } finally {
    lines.close()
    if (secret) process.stdout.write('\n')
  }
}

/** Logs in, and answers the exit code. */
export async function login(words: readonly string[]): Promise<number> {
  const draft: LoginDraft = { fromStdin: false, help: false }
  const [server, more] = parseAnywhere(loginFlags, words, draft)
  if (draft.help) {
    const summary = 'Authenticate to a registry. Without SERVER it is docker.io.'
    process.stdout.write(helpText('caisson login [OPTIONS] [SERVER]', summary, loginFlags))
    return 0
  }
  if (more !== undefined) throw new WordError('"caisson login" accepts at most 1 argument')
  if (draft.fromStdin && draft.password !== undefined)
    throw new WordError('--password and --password-stdin are mutually exclusive')
  if (draft.fromStdin && draft.username === undefined)
    throw new WordError('Must provide --username with --password-stdin')
  const username = draft.username ?? (await ask('Username: ', false))
  const password = draft.fromStdin
    ? readFileSync(0, 'utf8').replace(/\r?\n$/, '')
    : (draft.password ?? (await ask('Password: ', true)))
  if (draft.password !== undefined)
    process.stderr.write('WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n')
  const kept = await logIn(server, { username, password })
  if (kept.plain)
    process.stderr.write(
      `WARNING! Your password is stored unencrypted in '${kept.place}'. Configure a credential helper to remove this warning.\n`,
    )
  if (kept.shadowed !== undefined)
    process.stderr.write(`WARNING! ${kept.shadowed} is set, and comes before what is stored.\n`)
  process.stdout.write('Login Succeeded\n')
  return 0
}

/** Forgets a login, and answers the exit code. */
export async function logout(words: readonly string[]): Promise<number> {
  const draft = { help: false }
  const [server, more] = parseAnywhere(logoutFlags, words, draft)
  if (draft.help) {
    process.stdout.write(helpText('caisson logout [SERVER]', 'Log out from a registry.', logoutFlags))
    return 0
  }
  if (more !== undefined) throw new WordError('"caisson logout" accepts at most 1 argument')
  const name = server ?? 'docker.io'
  const had = await logOut(server)
  process.stdout.write(had ? `Removing login credentials for ${name}\n` : `Not logged in to ${name}\n`)
  return 0
}
