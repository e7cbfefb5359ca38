/** Node is killed with containers running: how long until nothing of them is left. */
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { diff, take } from '../__test__/host/ledger.ts'
import type { Ledger } from '../__test__/host/ledger.ts'
import { ApiProcess } from './api-process.ts'
import type { Setup } from './api.ts'

/** How long one trial waits for the end before it says what is left. */
const patience = 5000

/** Milliseconds from the SIGKILL on. */
export interface Ending {
  /** No process, cgroup, mount or file. */
  clean: number
  /** No namespace either: the kernel takes those down later. */
  namespaces: number
}

/** What a few calls can say, so that asking takes no time from those who clean up. */
function looksClean(setup: Setup, shim: number): boolean {
  const empty = (dir: string): boolean => !existsSync(dir) || readdirSync(dir).length === 0
  return (
    !existsSync(`/proc/${shim}`) &&
    !existsSync('/sys/fs/cgroup/caisson') &&
    empty(join(setup.root, 'containers')) &&
    empty(join(setup.runRoot, 'shims'))
  )
}

/** The differences, of which those in descriptors are this program's own pipes to the process it killed. */
function left(before: Ledger, setup: Setup): string[] {
  const lines = diff(before, take([setup.root, setup.runRoot])).split('\n')
  return lines.filter((line) => line !== '' && !/^. descriptor /.test(line))
}

/** One trial. The directories must have been used before, so that what always stays of them is there already. */
export async function killed(setup: Setup, count: number): Promise<Ending> {
  const before = take([setup.root, setup.runRoot])
  const api = await ApiProcess.start(setup)
  const { shim } = await api.order('hold', { count })
  const held = readdirSync('/sys/fs/cgroup/caisson', { withFileTypes: true }).filter((entry) =>
    entry.isDirectory(),
  )
  if (held.length !== count) throw new Error(`${held.length} cgroups of ${count} running containers`)
  const begun = performance.now()
  process.kill(api.pid, 'SIGKILL')
  let clean: number | undefined
  for (;;) {
    await sleep(1)
    const elapsed = performance.now() - begun
    if (elapsed > patience)
      throw new Error(`left ${patience} ms after SIGKILL:\n${left(before, setup).join('\n')}`)
    if (clean === undefined && !looksClean(setup, shim)) continue
    const lines = left(before, setup)
    if (lines.every((line) => line.startsWith('+ namespace '))) clean ??= elapsed
    if (lines.length === 0) return { clean: clean ?? elapsed, namespaces: elapsed }
  }
}
