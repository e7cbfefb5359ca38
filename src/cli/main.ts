/** Picks one command. */
import { commands } from './commands.ts'
import { parseWords, WordError } from './flags/words.ts'
import type { Flag } from './flags/words.ts'
import { quit } from './quit.ts'

interface GlobalDraft {
  root?: string
  help: boolean
  version: boolean
}

const globals: readonly Flag<GlobalDraft>[] = [
  { long: 'help', help: 'Print usage', apply: (draft) => void (draft.help = true) },
  {
    long: 'root',
    value: 'dir',
    help: 'Where all state and storage is; also CAISSON_ROOT',
    apply: (draft, value) => void (draft.root = value),
  },
  { long: 'version', short: 'v', help: 'Print the version', apply: (draft) => void (draft.version = true) },
]

async function usage(): Promise<string> {
  const { helpText } = await import('./help.ts')
  const rows = commands.map(({ name, summary }) => `  ${name.padEnd(12)}${summary}`).join('\n')
  const text = helpText(
    'caisson [OPTIONS] COMMAND',
    `Containers, without a daemon.\n\nCommands:\n${rows}`,
    globals,
  )
  return `${text}\nRun 'caisson COMMAND --help' for more information on a command.\n`
}

async function main(): Promise<number> {
  let name = ''
  try {
    const draft: GlobalDraft = { help: false, version: false }
    const [word, ...words] = parseWords(globals, process.argv.slice(2), draft)
    const asked = draft.version ? 'version' : word
    const [about] = asked === 'help' ? words : []
    if (draft.help || asked === undefined || (asked === 'help' && about === undefined)) {
      process.stdout.write(await usage())
      return 0
    }
    const command = commands.find((row) => row.name === (about ?? asked))
    if (command === undefined) throw new WordError(`unknown command: caisson ${about ?? asked}`)
    if (about !== undefined) return await command.act(['--help'], draft.root)
    name = `${asked} `
    return await command.act(words, draft.root)
  } catch (error) {
    const { fail } = await import('./fail.ts')
    return fail(error, name)
  }
}

// Not awaited at the top: the bundle is CommonJS.
void (async () => {
  await quit(await main())
})()
