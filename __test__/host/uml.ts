/**
 * The UML host: a 6.1 kernel as a process (Debian's user-mode-linux), with every controller that a limit needs and
 * nothing shared with the machine. It boots in two seconds and sees the machine's files read-only.
 */
import { execFileSync } from 'node:child_process'
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { cage } from './cage.ts'

/** The first process of a machine. */
export const init: string = fileURLToPath(new URL('machine.sh', import.meta.url))
const xstate = fileURLToPath(new URL('xstate.c', import.meta.url))

/** What of this program's environment the machine is given: the rest is about the real one. */
const kept = /^(PATH|CI|LANG|LC_.*|NODE_OPTIONS|FORCE_COLOR|NO_COLOR|RUST_BACKTRACE|CAISSON_.*)$/

/** The files that the machine reads and writes, seen from this side. */
export interface Exchange {
  dir: string
  /** Copies what was printed since the last call to stdout. */
  drain: () => void
  /** Prints the rest and gives the exit status that the machine wrote, or what its console said. */
  outcome: () => number
  close: () => void
}

/** Makes the output directory of a machine with a command in it. */
export function exchange(host: string, command: readonly string[]): Exchange {
  const dir = mkdtempSync(join(tmpdir(), `caisson-${host}-`))
  const environment = Object.entries({ ...process.env, CAISSON_TEST_HOST: host, TERM: 'dumb' })
    .filter(([name]) => kept.test(name) || name === 'TERM')
    .map(([name, value]) => `${name}=${value}\0`)
  writeFileSync(join(dir, 'env'), environment.join(''))
  writeFileSync(join(dir, 'argv'), [process.cwd(), ...command].map((word) => `${word}\0`).join(''))
  writeFileSync(join(dir, 'output'), '')
  writeFileSync(join(dir, 'console'), '')
  // Where tools keep their caches: a mount point for the machine, whose view of the checkout is read-only.
  if (existsSync('node_modules')) mkdirSync('node_modules/.cache', { recursive: true })
  const output = openSync(join(dir, 'output'), 'r')
  const buffer = Buffer.alloc(1 << 16)
  const drain = (): void => {
    for (let read = readSync(output, buffer); read > 0; read = readSync(output, buffer)) {
      process.stdout.write(Buffer.from(buffer.subarray(0, read)))
    }
  }
  return {
    dir,
    drain,
    outcome() {
      drain()
      const status = join(dir, 'status')
      if (existsSync(status)) return Number.parseInt(readFileSync(status, 'utf8'), 10)
      console.error(`host: the ${host} machine did not come to its end; its console:`)
      console.error(readFileSync(join(dir, 'console'), 'utf8').slice(-8000))
      return 1
    },
    close() {
      closeSync(output)
    },
  }
}

/** Runs a command on a UML machine; resolves with its exit status once the machine is gone. */
export async function onUml(command: readonly string[], timeout: number): Promise<number> {
  const files = exchange('uml', command)
  const preload = join(files.dir, 'xstate.so')
  execFileSync('cc', ['-O2', '-shared', '-fPIC', '-o', preload, xstate], { stdio: 'inherit' })
  const kernel = `rootfstype=hostfs rootflags=/ ro init=${init} out=${files.dir} mem=2G`
  const consoles = 'con=null con0=fd:0,fd:1 ssl=null quiet panic=1'
  const machine = ['env', `LD_PRELOAD=${preload}`, 'linux', ...`${kernel} ${consoles}`.split(' ')]
  // The console goes to a file: it is worth a look only when the machine did not come to its end.
  const script = `console=$1; shift; "$@" </dev/null >"$console" 2>&1`
  const follow = setInterval(files.drain, 100)
  try {
    return await cage({
      unshare: [],
      script,
      command: [join(files.dir, 'console'), ...machine],
      remove: [files.dir],
      timeout,
      outcome: files.outcome,
    })
  } finally {
    clearInterval(follow)
    files.close()
  }
}
