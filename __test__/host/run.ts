/**
 * Runs a command on a test host that it makes and takes down again:
 *   node __test__/host/run.ts private|single|range|uml|qemu [--timeout SECONDS] -- COMMAND...
 * The exit status is the command's.
 */
import { parseArgs } from 'node:util'
import { onPrivateHost, onRootlessHost } from './private.ts'
import { onQemu } from './qemu.ts'
import { onUml } from './uml.ts'

const hosts: Record<string, (command: readonly string[], timeout: number) => Promise<number>> = {
  private: onPrivateHost,
  single: (command, timeout) => onRootlessHost('single', command, timeout),
  range: (command, timeout) => onRootlessHost('range', command, timeout),
  uml: onUml,
  qemu: onQemu,
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { timeout: { type: 'string', default: '900' } },
})
const [name = '', ...command] = positionals
const seconds = Number(values.timeout)
const host = hosts[name]
if (host === undefined || command.length === 0 || !(seconds > 0)) {
  console.error(`usage: run.ts ${Object.keys(hosts).join('|')} [--timeout SECONDS] -- COMMAND...`)
  process.exit(2)
}
const status = await host(command, seconds * 1000)
// A janitor that could not clean up has set a failure already.
if (status !== 0) process.exitCode = status
