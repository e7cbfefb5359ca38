/**
 * What a command in a container that runs costs, against runc and crun, whose commands enter containers of their own; what
 * a connection into a container's network costs; and what it costs to list the containers of other programs.
 */
import { mkdtempSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { ApiProcess } from './api-process.ts'
import { command, makeRootfs, present, rounds, warmup } from './contest.ts'
import type { Contestant } from './contest.ts'
import { median, short, summary, table } from './figures.ts'
import { heldPeers } from './peers.ts'
import { programs, rawFigures, root } from './programs.ts'

/** So many programs with so many containers each, to be listed. */
const [programCount, containers] = [5, 40]

/** The bench. */
export async function exec(count: number): Promise<void> {
  programs()
  const dir = mkdtempSync('/run/bench-')
  const rootfs = makeRootfs(join(dir, 'rootfs'))
  const at = (name: string) => ({ rootfs, root: join(dir, name), runRoot: join(dir, name, 'run'), heap: 0 })
  const api = await ApiProcess.start(at('own'))
  const listed = await Promise.all(
    Array.from({ length: programCount }, async () => ApiProcess.start(at('listed'))),
  )
  for (const one of listed) await one.order('hold', { count: containers })

  const absent: Record<string, string> = {}
  const peers = heldPeers(join(dir, 'peers'))
  const found = await present(
    peers,
    async (peer) => {
      peer.start()
      await command({ command: peer.exec.command }, 1).turn(1)
    },
    absent,
  )
  const node = process.execPath
  const cli = join(root, 'bin/caisson.cjs')
  const orders = (name: 'execs' | 'dials'): Contestant => ({
    turn: async (turns) => (await api.order(name, { count: turns, warmup })).ms,
    count: 50,
  })
  const figures = await rounds(
    [
      ['exec', orders('execs')],
      ...found.map(([name, peer]): [string, Contestant] => [`${name} exec`, command(peer.exec, 10)]),
      ['dial', orders('dials')],
      ['caisson ps', command({ command: [node, cli, '--root', join(dir, 'listed'), 'ps', '-q'] }, 5)],
      ['node -e 0', command({ command: [node, '-e', '0'] }, 5)],
    ],
    count,
  )
  for (const [, peer] of found) peer.end()
  // What they hold would keep them.
  for (const one of [api, ...listed]) await one.end('SIGKILL')

  writeFileSync(rawFigures, JSON.stringify({ figures, absent }))
  const rows = Object.entries(figures).map(([name, ms]) => {
    const { n, p50, p95, p99, iqr } = summary(ms)
    return [name, String(n), ...[p50, p95, p99, iqr].map(short)]
  })
  console.log(`${table(['ms', 'n', 'p50', 'p95', 'p99', 'iqr'], rows)}\n`)
  for (const [name, why] of Object.entries(absent)) console.log(`not measured: ${name}: ${why}\n`)
  const p50 = (name: string): number => median(figures[name] ?? [])
  const bars: [string, string, number, number][] = [
    ['exec against runc exec, p50', '1/8', 1 / 8, p50('exec') / p50('runc exec')],
    ['exec against crun exec, p50', '1/2', 1 / 2, p50('exec') / p50('crun exec')],
    ['dial, p50, ms', '1', 1, p50('dial')],
    [
      `ps of ${programCount * containers} containers beyond node -e 0, p50, ms`,
      '60',
      60,
      p50('caisson ps') - p50('node -e 0'),
    ],
  ]
  const verdicts = bars.map(([what, wanted, most, measured]) => {
    const holds = Number.isNaN(measured) ? 'not measured' : measured <= most ? 'pass' : 'falls short'
    return [what, `at most ${wanted}`, short(measured), holds]
  })
  console.log(table(['bar', 'wanted', 'measured', ''], verdicts))
}
