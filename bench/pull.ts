/**
 * What a pull costs, from a registry on loopback to an image that can be run, against podman's, and against `tar -x` of the
 * layers that are inflated already; and what is paid again: by a pull of what has not changed, a start on many layers, a
 * removal. All on the file system of $TMPDIR, `sync` before each. Caisson's layers are synced within its time; podman's and
 * tar's files are not.
 */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { short, summary, table } from './figures.ts'
import { rawFigures, root } from './programs.ts'
import { fill, warm } from './pulled.ts'
import type { Filled, Pulled } from './pulled.ts'

const cli = join(root, 'bin/caisson.cjs')

type Figures = Record<string, number[]>

/** Runs a command to its end: its milliseconds. */
async function timed(command: readonly string[], env: NodeJS.ProcessEnv = process.env): Promise<number> {
  const [program = '', ...words] = command
  const began = performance.now()
  const child = spawn(program, words, { stdio: ['ignore', 'ignore', 'pipe'], env })
  let said = ''
  child.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()))
  const [status] = (await once(child, 'close')) as [number | null]
  if (status !== 0) throw new Error(`${command.join(' ')}: ${status} ${said}`)
  return performance.now() - began
}

function sync(): void {
  spawnSync('sync')
}

class PullBench {
  readonly #dir: string
  readonly #filled: Filled
  readonly figures: Figures = {}
  #serial = 0

  constructor(dir: string, filled: Filled) {
    this.#dir = dir
    this.#filled = filled
  }

  #add(name: string, value: number): void {
    ;(this.figures[name] ??= []).push(value)
  }

  /** A new place: nothing is deleted between rounds, since ext4 without a journal looks for inodes among what was. */
  #path(name: string): string {
    this.#serial += 1
    return join(this.#dir, `${name}-${this.#serial}`)
  }

  async #caisson(name: string, { reference }: Pulled): Promise<void> {
    const store = this.#path('caisson')
    sync()
    this.#add(
      `caisson pull, ${name}`,
      await timed([process.execPath, cli, '--root', store, 'pull', '-q', reference]),
    )
  }

  async #podman(name: string, { reference }: Pulled): Promise<void> {
    const words = [
      '--root',
      this.#path('podman'),
      '--runroot',
      `/run/bench-podman-${this.#serial}`,
      '--storage-driver',
      'overlay',
    ]
    sync()
    const order = ['podman', ...words, 'pull', '-q', '--tls-verify=false', reference]
    this.#add(`podman pull, ${name}`, await timed(order))
  }

  async #tar(name: string, { archives }: Pulled): Promise<void> {
    const tree = this.#path('tree')
    const each = archives.map((archive, at) => {
      const into = join(tree, String(at))
      mkdirSync(into, { recursive: true })
      return `tar -x -C ${into} -f ${archive}`
    })
    sync()
    this.#add(`tar -x, ${name}`, await timed(['bash', '-c', each.join(' && ')]))
  }

  async round(at: number): Promise<void> {
    const { debian, ten } = this.#filled
    for (const [name, image] of [
      ['one layer', debian],
      ['ten layers', ten],
    ] as const) {
      const turns = [
        () => this.#caisson(name, image),
        () => this.#podman(name, image),
        () => this.#tar(name, image),
      ]
      for (let turn = 0; turn < turns.length; turn += 1) await turns[(at + turn) % turns.length]?.()
    }
    await this.#again()
  }

  /** A pull of what has not changed, against the same request made by a program with fetch. */
  async #again(): Promise<void> {
    const store = this.#path('again')
    const { reference } = this.#filled.debian
    const [host = '', rest = ''] = reference.split(/\/(.*)/s)
    const [name, tag] = rest.split(':')
    const order = [process.execPath, cli, '--root', store, 'pull', '-q', reference]
    await timed(order)
    const fetched = join(this.#dir, 'fetch.mjs')
    const accept = 'application/vnd.oci.image.manifest.v1+json'
    writeFileSync(
      fetched,
      `await fetch('http://${host}/v2/${name}/manifests/${tag}', { method: 'HEAD', headers: { accept: '${accept}' } })\n`,
    )
    for (let turn = 0; turn < 3; turn += 1) {
      this.#add('pull again', await timed(order))
      this.#add('fetch', await timed([process.execPath, fetched]))
    }
  }

  /** An image, against its tree. Last of all: see {@link #path}. */
  async removed(): Promise<void> {
    const store = this.#path('removed')
    const { reference } = this.#filled.debian
    await timed([process.execPath, cli, '--root', store, 'pull', '-q', reference])
    const [chain = ''] = readdirSync(join(store, 'layers'))
    const copy = this.#path('copy')
    await timed(['cp', '-a', join(store, 'layers', chain, 'root'), copy])
    sync()
    this.#add('rm -rf', await timed(['rm', '-rf', copy]))
    sync()
    this.#add('rmi', await timed([process.execPath, cli, '--root', store, 'rmi', reference]))
  }

  /** Starts on forty layers and on one, in one process; and what a pull takes of it: memory, and turns of its loop. */
  async within(): Promise<{ memory: number; delay: number }> {
    const { debian, forty, one } = this.#filled
    const script = join(root, 'bench/pull-process.js')
    const words = [script, this.#path('within'), debian.reference, forty.reference, one.reference]
    const { stdout, stderr, status } = spawnSync(process.execPath, words, { encoding: 'utf8' })
    if (status !== 0) throw new Error(stderr)
    const said = JSON.parse(stdout) as { memory: number; delay: number; forty: number[]; one: number[] }
    this.figures['start, forty layers'] = said.forty
    this.figures['start, one layer'] = said.one
    return said
  }
}

interface Bar {
  what: string
  most: number
  said?: string
  measured: number
}

/** The bench. */
export async function pull(count: number): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), 'caisson-bench-pull-'))
  const filled = await fill(dir)
  try {
    warm([...filled.debian.archives, ...filled.ten.archives])
    const bench = new PullBench(dir, filled)
    for (let at = 0; at < count; at += 1) await bench.round(at)
    for (let at = 0; at < count; at += 1) await bench.removed()
    const { memory, delay } = await bench.within()
    const { figures } = bench
    writeFileSync(rawFigures, JSON.stringify({ figures, memory, delay }))
    const of = (name: string): number => summary(figures[name] ?? []).p50
    const rows = Object.entries(figures).map(([name, ms]) => {
      const { n, p50, p95, iqr } = summary(ms)
      return [name, String(n), short(p50), short(p95), short(iqr)]
    })
    console.log(table(['ms', 'n', 'p50', 'p95', 'iqr'], rows))
    const ratio = (one: string, other: string): number => of(one) / of(other)
    const bars: Bar[] = [
      {
        what: 'one layer against podman',
        most: 1 / 3,
        said: '1/3',
        measured: ratio('caisson pull, one layer', 'podman pull, one layer'),
      },
      {
        what: 'one layer against tar -x',
        most: 1.2,
        measured: ratio('caisson pull, one layer', 'tar -x, one layer'),
      },
      {
        what: 'ten layers against podman',
        most: 1 / 4,
        said: '1/4',
        measured: ratio('caisson pull, ten layers', 'podman pull, ten layers'),
      },
      {
        what: 'ten layers against tar -x, one after another',
        most: 0.8,
        measured: ratio('caisson pull, ten layers', 'tar -x, ten layers'),
      },
      {
        what: 'start on forty layers against one',
        most: 1.3,
        measured: ratio('start, forty layers', 'start, one layer'),
      },
      { what: 'rmi against rm -rf', most: 1, measured: ratio('rmi', 'rm -rf') },
      { what: 'pull again against fetch', most: 1.2, measured: ratio('pull again', 'fetch') },
      { what: 'memory beyond idle, MB', most: 120, measured: memory },
      { what: 'event loop delay in a pull, p99, ms', most: 20, measured: delay },
    ]
    const verdicts = bars.map(({ what, most, said, measured }) => [
      what,
      `at most ${said ?? most}`,
      short(measured),
      measured <= most ? 'pass' : 'falls short',
    ])
    console.log(`\n${table(['bar', 'wanted', 'measured', ''], verdicts)}`)
  } finally {
    filled.process.kill('SIGTERM')
    rmSync(dir, { recursive: true, force: true })
  }
}
