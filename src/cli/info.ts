/** `caisson info`: what this installation is, and where it keeps what. */
import { readFileSync } from 'node:fs'
import { release } from 'node:os'
import { Command } from 'commander'
import manifest from '../../package.json' with { type: 'json' }
import { engineAt } from './engine.ts'
import { WordError } from './flags/words.ts'
import { format, formatFlag } from './output.ts'
import type { FormatDraft } from './output.ts'

function cgroup(): string {
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8').split('\n')
  const point = mounts.find((line) => line.includes(' - cgroup2 '))?.split(' ')[4]
  return point ?? ''
}

function controllers(point: string): string[] {
  if (point === '') return []
  return readFileSync(`${point}/cgroup.controllers`, 'utf8')
    .split(/\s+/)
    .filter((name) => name !== '')
}

/** Prints the facts, and answers the exit code. */
export function info(words: readonly string[], root: string | undefined): number {
  const draft: FormatDraft = { help: false }
  const command = new Command('caisson info')
    .description('Show what is installed, and where.')
    .helpOption('--help', 'Print usage')
  for (const { long, short, value, help, apply } of formatFlag.filter((flag) => flag.long !== 'help')) {
    const dashes = `${short === undefined ? '' : `-${short}, `}--${long}${value === undefined ? '' : ` <${value}>`}`
    command.option(dashes, help, (given: string) => {
      apply(draft, given)
    })
  }
  command.exitOverride().configureOutput({ writeErr: () => {} })
  try {
    command.parse([...words], { from: 'user' })
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined
    if (code === 'commander.helpDisplayed') return 0
    throw new WordError(error instanceof Error ? error.message.replace(/^error: /, '') : String(error))
  }
  const at = draft.root ?? root
  const engine = engineAt(at)
  const point = cgroup()
  const facts = {
    version: manifest.version,
    runtimePath: engine.runtimePath,
    root: engine.roots.data,
    runRoot: engine.roots.run,
    kernel: release(),
    node: process.version,
    cgroup: point,
    controllers: controllers(point),
  }
  const lines = Object.entries(facts).map(
    ([name, value]) => `${name}: ${Array.isArray(value) ? value.join(' ') : value}`,
  )
  process.stdout.write(draft.format === undefined ? `${lines.join('\n')}\n` : format(facts, draft.format))
  return 0
}
