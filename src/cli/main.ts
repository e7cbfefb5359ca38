/** Picks one command. */
import { commands } from './commands.ts'
import { parseWords, WordError } from './flags/words.ts'
import type { Flag } from './flags/words.ts'
import { afterOutput, watchOutput } from './printed.ts'
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

/** They hand their stdout on, mostly without a use of it here: to open it takes 2 ms. */
const handing: ReadonlySet<string> = new Set(['run', 'exec'])

/** The exit code, and whether it is one of what was printed. */
async function main(): Promise<[number, boolean]> {
  let name = ''
  let prints = true
  let code: number
  try {
    const draft: GlobalDraft = { help: false, version: false }
    const [word, ...words] = parseWords(globals, process.argv.slice(2), draft)
    const asked = draft.version ? 'version' : word
    const [about] = asked === 'help' ? words : []
    prints = draft.help || !handing.has(asked ?? '')
    if (prints) watchOutput()
    if (draft.help || asked === undefined || (asked === 'help' && about === undefined)) {
      process.stdout.write(await usage())
      code = 0
    } else {
      const command = commands.find((row) => row.name === (about ?? asked))
      if (command === undefined) throw new WordError(`unknown command: caisson ${about ?? asked}`)
      if (about === undefined) name = `${asked} `
      code = await command.act(about === undefined ? words : ['--help'], draft.root)
    }
  } catch (error) {
    const { fail } = await import('./fail.ts')
    code = fail(error, name)
  }
  return [code, prints]
}

// Not awaited at the top: the bundle is CommonJS.
void (async () => {
  const [code, prints] = await main()
  await quit(code, prints ? afterOutput : undefined)
})()
