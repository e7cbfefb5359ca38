/** Whether containers run here, and what they lack: each answer with the one command that would mend it. */
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { release, tmpdir, userInfo } from 'node:os'
import { dirname, join } from 'node:path'
import { CaissonError } from '../errors.ts'
import { idMap } from '../state/ids.ts'
import type { RunOptions } from './options.ts'
import type { Isolation, Result } from './result.ts'

/** One thing that was looked at. */
export interface Finding {
  /** What: `kernel`, `ids`, `run`, … */
  name: string
  /** `ok`: had. `less`: containers run, without this. `missing`: none runs. */
  state: 'ok' | 'less' | 'missing'
  /** What is there, or what is not. */
  detail: string
  /** The command, or the change, that would mend it. */
  mend?: string
}

type Runs = (rootfs: string, command: string[], options: RunOptions) => PromiseLike<Result<unknown>>

function text(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8').trim()
  } catch {
    return undefined
  }
}

function kernel(): Finding {
  const [major = 0, minor = 0] = release().split(/[.-]/).map(Number)
  const at = (wantedMajor: number, wantedMinor: number): boolean =>
    major > wantedMajor || (major === wantedMajor && minor >= wantedMinor)
  if (!at(5, 14)) return { name: 'kernel', state: 'missing', detail: `${release()}: older than 5.14` }
  const fallbacks = [
    ...(at(6, 7) ? [] : ['overlays of few layers (before 6.7)']),
    ...(at(6, 11) ? [] : ['namespaces read by init (before 6.11)']),
  ]
  const detail = fallbacks.length === 0 ? release() : `${release()}, by fallback: ${fallbacks.join(', ')}`
  return { name: 'kernel', state: 'ok', detail }
}

function nesting(): Finding[] {
  const inside =
    existsSync('/.dockerenv') || existsSync('/run/.containerenv') || process.env.container !== undefined
  if (!inside) return []
  const detail = 'this is inside a container, whose own limits hold for those in it'
  return [{ name: 'nesting', state: 'ok', detail }]
}

/** What forbids user namespaces, by the file that says so. */
const switches: readonly { path: string; bad: string; detail: string; mend: string }[] = [
  {
    path: '/proc/sys/user/max_user_namespaces',
    bad: '0',
    detail: 'switched off: user.max_user_namespaces is 0',
    mend: 'sudo sysctl user.max_user_namespaces=15000',
  },
  {
    path: '/proc/sys/kernel/unprivileged_userns_clone',
    bad: '0',
    detail: 'switched off for users: kernel.unprivileged_userns_clone is 0',
    mend: 'sudo sysctl kernel.unprivileged_userns_clone=1',
  },
  {
    path: '/proc/sys/kernel/apparmor_restrict_unprivileged_userns',
    bad: '1',
    detail:
      'AppArmor gives them no rights unless a profile does: kernel.apparmor_restrict_unprivileged_userns is 1',
    mend: 'sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0',
  },
]

function userNamespaces(runs: boolean): Finding[] {
  if (idMap().kind === 'root') return []
  const found = switches.find(({ path, bad }) => text(path) === bad)
  if (found === undefined) return [{ name: 'user namespaces', state: 'ok', detail: 'allowed' }]
  const { detail, mend } = found
  if (runs)
    return [{ name: 'user namespaces', state: 'ok', detail: `${detail}; one could be had all the same` }]
  return [{ name: 'user namespaces', state: 'missing', detail, mend }]
}

/** The first ids behind each range that a file gives somebody. */
function taken(path: string): number[] {
  const lines = (text(path) ?? '').split('\n').map((line) => line.split(':'))
  return lines
    .map(([, first, count]) => Number(first) + Number(count))
    .filter((end) => Number.isSafeInteger(end))
}

function ids(): Finding {
  const { kind, uids } = idMap()
  const name = 'ids'
  if (kind === 'root') return { name, state: 'ok', detail: 'root: all of this machine’s' }
  if (kind === 'range') {
    const count = uids.filter((_, index) => index % 3 === 2).reduce((sum, size) => sum + size, 0)
    return { name, state: 'ok', detail: `this user’s own and a range of ${count - 1}` }
  }
  const helpers = ['newuidmap', 'newgidmap'].every((program) => existsSync(`/usr/bin/${program}`))
  const { username } = userInfo()
  const first = Math.max(100_000, ...['/etc/subuid', '/etc/subgid'].flatMap(taken))
  const range = `${first}-${first + 65_535}`
  return {
    name,
    state: 'less',
    detail: helpers ? 'one: no range in /etc/subuid and /etc/subgid' : 'one: newuidmap is not installed',
    mend: helpers
      ? `sudo usermod --add-subuids ${range} --add-subgids ${range} ${username}`
      : 'sudo apt install uidmap',
  }
}

const controllers = ['cpu', 'cpuset', 'io', 'memory', 'pids']

function cgroups({ cgroup }: Isolation): Finding[] {
  if (cgroup === '') {
    return [
      {
        name: 'cgroup',
        state: 'less',
        detail: 'none is delegated to this user: no limits, and figures are estimates',
        mend: 'systemd-run --user --scope COMMAND',
      },
    ]
  }
  const parent = dirname(cgroup)
  const had = (text(join(dirname(parent), 'cgroup.controllers')) ?? '').split(' ')
  const lacking = controllers.filter((name) => !had.includes(name))
  const group: Finding = { name: 'cgroup', state: 'ok', detail: parent }
  if (lacking.length === 0) return [group, { name: 'limits', state: 'ok', detail: controllers.join(' ') }]
  const held = (text('/proc/self/cgroup') ?? '')
    .split('\n')
    .flatMap((line) => (line.split(':')[1] ?? '').split(','))
  const byOld = lacking.filter((name) => held.includes(name))
  const mend =
    byOld.length > 0
      ? 'boot with systemd.unified_cgroup_hierarchy=1 cgroup_no_v1=all'
      : idMap().kind === 'root'
        ? `a kernel, or a container, with the controllers ${lacking.join(' ')}`
        : `sudo systemctl set-property user@.service Delegate="${controllers.join(' ')}"`
  const why = byOld.length > 0 ? `, which cgroup version 1 holds` : ''
  return [group, { name: 'limits', state: 'less', detail: `without ${lacking.join(' ')}${why}`, mend }]
}

/** How the container's root was made: it has run. */
function overlay({ ids: kind }: Isolation): string {
  if (kind === 'root') return 'copy-on-write layers'
  const owners = kind === 'single' ? '; all files of an image become this user’s own' : ''
  return `copy-on-write layers in a user namespace${owners}`
}

/** Looks, and runs a container: the package's own static executable, which needs nothing else in its root. */
export async function examine(run: Runs, runtimePath: () => string): Promise<Finding[]> {
  const place = mkdtempSync(join(tmpdir(), 'caisson-doctor-'))
  try {
    copyFileSync(runtimePath(), join(place, 'probe'))
    const result = await run(place, ['/probe', '--version'], { timeout: 10_000 })
    if (result.exitCode !== 0)
      throw new CaissonError('ERR_COMMAND_FAILED', `the probe ended by ${result.cause}`)
    const { isolation, timing } = result
    return [
      kernel(),
      ...nesting(),
      ...userNamespaces(true),
      ids(),
      { name: 'run', state: 'ok', detail: `a container ran, in ${timing.total.toFixed(0)} ms` },
      {
        name: 'seccomp',
        state: isolation.seccomp ? 'ok' : 'less',
        detail: isolation.seccomp ? 'the default filter was loaded' : 'no filter was loaded',
      },
      { name: 'overlay', state: 'ok', detail: overlay(isolation) },
      ...cgroups(isolation),
    ]
  } catch (error) {
    if (!(error instanceof CaissonError)) throw error
    const failed: Finding = { name: 'run', state: 'missing', detail: `${error.code}: ${error.message}` }
    return [kernel(), ...nesting(), ...userNamespaces(false), ids(), failed]
  } finally {
    rmSync(place, { recursive: true, force: true })
  }
}
