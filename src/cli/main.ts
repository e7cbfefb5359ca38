/** Picks one command. `version` loads nothing else. */
import manifest from '../../package.json' with { type: 'json' }

const [command] = process.argv.slice(2)

if (command === 'version' || command === '--version') {
  process.stdout.write(`caisson ${manifest.version}\n`)
} else {
  process.stderr.write(`caisson: unknown command: ${command ?? '(none)'}\n`)
  process.exitCode = 125
}
