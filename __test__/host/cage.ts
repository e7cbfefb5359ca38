/**
 * A cage for one command: a cgroup of its own below the machine's v2 tree, namespaces of its own, and a janitor
 * outside that takes all of it down when this program ends, however it ends. Both hosts are commands in a cage.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { constants } from 'node:os'
import { join } from 'node:path'

/** What to run, and what goes with it when it ends. */
export interface Caged {
  /** Flags of unshare(1), besides the pid namespace and the private mounts that every cage has. */
  unshare: readonly string[]
  /** A bash script that makes the host and ends by running `"$@"`; bash stays pid 1 and reaps. */
  script: string
  command: readonly string[]
  env?: Readonly<Record<string, string | undefined>>
  /** Directories that are removed afterwards. */
  remove?: readonly string[]
  /** Milliseconds until everything in the cage is killed. */
  timeout: number
  /** Called when the command has ended and its directories are still there; gives the exit status. */
  outcome?: (status: number) => number
}

const prefix = 'caisson.host.'

/**
 * It holds a lock on the cgroup's directory while it lives, so that a later run can tell a cage in use from one whose
 * janitor was killed too. End of input is the end of the owner: a pipe outlives no process, not even after SIGKILL.
 */
const janitor = `
trap '' HUP INT QUIT TERM
group=$1; shift
exec 9<"$group"; flock 9
read -r _
echo 1 >"$group/cgroup.kill"
for ((i = 0; i < 200; i++)); do
  find "$group" -depth -type d -exec rmdir {} + 2>/dev/null
  [ -e "$group" ] || break
  sleep .05
done
(($# == 0)) || rm -rf --one-file-system -- "$@"
[ ! -e "$group" ] || { echo "host: $group is still in use" >&2; exit 1; }
`

const sweeper = `
for group; do
  exec 9<"$group" || continue
  flock -n 9 || continue
  echo 1 >"$group/cgroup.kill"
  for ((i = 0; i < 40; i++)); do
    find "$group" -depth -type d -exec rmdir {} + 2>/dev/null
    [ -e "$group" ] || break
    sleep .05
  done
done
`

/** The mount point of cgroup v2: /sys/fs/cgroup, or /sys/fs/cgroup/unified on a hybrid machine. */
export function cgroupMount(): string {
  for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n')) {
    const [before = '', after = ''] = line.split(' - ')
    const point = before.split(' ')[4]
    if (after.startsWith('cgroup2 ') && point !== undefined) return point
  }
  throw new Error('no cgroup2 mount in /proc/self/mountinfo: the test hosts need one')
}

/** Removes what a run left behind whose janitor was killed as well. Younger groups may not have their lock yet. */
async function sweep(mount: string): Promise<void> {
  const left = readdirSync(mount)
    .filter((name) => name.startsWith(prefix))
    .map((name) => join(mount, name))
    .filter((group) => {
      const made = statSync(group, { throwIfNoEntry: false })?.ctimeMs
      return made !== undefined && Date.now() - made > 60_000
    })
  if (left.length > 0) await ended(spawn('bash', ['-c', sweeper, 'sweep', ...left], { stdio: 'inherit' }))
}

async function ended(child: ChildProcess): Promise<number> {
  const [code, signal] = (await once(child, 'exit')) as [number | null, NodeJS.Signals | null]
  return code ?? 128 + (signal === null ? 0 : constants.signals[signal])
}

/** Runs it, and resolves with the exit status as a shell gives it, once everything is taken down. */
export async function cage(caged: Caged): Promise<number> {
  if (process.getuid?.() !== 0) throw new Error('the test hosts are made by root: run this as root')
  const mount = cgroupMount()
  await sweep(mount)
  const group = join(mount, `${prefix}${process.pid}.${Date.now().toString(36)}`)
  mkdirSync(group)
  const cleaner = spawn('bash', ['-c', janitor, 'janitor', group, ...(caged.remove ?? [])], {
    stdio: ['pipe', 'inherit', 'inherit'],
    detached: true,
  })
  const cleaned = ended(cleaner)

  let stopped: string | undefined
  const stop = (why: string) => {
    stopped ??= why
    cleaner.stdin.end()
  }
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
  for (const signal of signals) process.once(signal, stop)
  const timer = setTimeout(() => {
    stop(`after ${caged.timeout / 1000} s`)
  }, caged.timeout)

  try {
    const enter = 'echo $BASHPID >"$0/cgroup.procs" && exec "$@"'
    const flags = ['--mount', '--propagation', 'private', '--pid', '--fork', '--kill-child', '--mount-proc']
    const words = [
      'unshare',
      ...flags,
      ...caged.unshare,
      'bash',
      '-c',
      caged.script,
      'host',
      ...caged.command,
    ]
    const status = await ended(
      spawn('bash', ['-c', enter, group, ...words], {
        stdio: 'inherit',
        env: { ...process.env, ...caged.env },
      }),
    )
    if (stopped !== undefined) console.error(`host: stopped (${stopped})`)
    return caged.outcome?.(status) ?? status
  } finally {
    clearTimeout(timer)
    for (const signal of signals) process.off(signal, stop)
    cleaner.stdin.end()
    if ((await cleaned) !== 0) process.exitCode = 1
  }
}
