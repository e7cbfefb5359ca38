/**
 * What a start costs an ordinary user, with a range of ids and with one, against root's in the same run; and against
 * what a user has else: podman without root, and bwrap with the same namespaces, mounts and filter bytes.
 */
import { spawnSync } from 'node:child_process'
import { chmodSync, chownSync, mkdirSync, mkdtempSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { ApiProcess } from './api-process.ts'
import { command, makeRootfs, present, rounds, warmup } from './contest.ts'
import type { Contestant } from './contest.ts'
import { median, short, summary, table } from './figures.ts'
import { programs, rawFigures } from './programs.ts'

/** Who, as child_process takes it. */
interface Who {
  uid: number
  gid: number
  env: NodeJS.ProcessEnv
}

function user(name: string): Who {
  const id = (flag: string): number =>
    Number(spawnSync('id', [flag, `caisson-${name}`], { encoding: 'utf8' }).stdout)
  const uid = id('-u')
  const env = {
    ...process.env,
    HOME: `/run/home/${name}`,
    XDG_RUNTIME_DIR: `/run/user/${uid}`,
    USER: `caisson-${name}`,
  }
  return { uid, gid: id('-g'), env }
}

/** A directory of somebody's own. */
function place(dir: string, name: string, who?: Who): string {
  const made = join(dir, name)
  mkdirSync(made, { mode: 0o700 })
  if (who !== undefined) chownSync(made, who.uid, who.gid)
  return made
}

async function api(rootfs: string, own: string, who?: Who): Promise<[ApiProcess, Contestant]> {
  const started = await ApiProcess.start({ rootfs, root: own, runRoot: join(own, 'run'), heap: 0 }, who)
  const turn = async (count: number): Promise<number[]> =>
    (await started.order('starts', { count, warmup, parallel: 1, stdio: 'pipe' })).ms
  return [started, { turn, count: 50 }]
}

/** As close to Caisson's own mounts as its words come. It has no overlay in Debian 12: the root is bound, read-only. */
const bwrap = (rootfs: string): string[] => [
  'bwrap',
  ...'--unshare-user --unshare-pid --unshare-ipc --unshare-uts --unshare-net --unshare-cgroup'.split(' '),
  ...`--uid 0 --gid 0 --hostname bench --ro-bind ${rootfs} / --proc /proc --dev /dev --tmpfs /tmp`.split(' '),
  ...'--mqueue /dev/mqueue --seccomp 10 -- /bin/true'.split(' '),
]

const podman = (dir: string, rootfs: string): string[] => [
  'podman',
  ...`--root ${dir}/pod --runroot ${dir}/pod-run --cgroup-manager=cgroupfs --runtime crun`.split(' '),
  ...'run --rm --network none --cgroups=disabled --security-opt'.split(' '),
  ...`seccomp=${programs().profile} --rootfs ${rootfs}:O /bin/true`.split(' '),
]

const bars: readonly { what: string; of: string; to: string; most: number; said?: string }[] = [
  { what: 'user with one id against root, p50', of: 'single', to: 'root', most: 1.1 },
  { what: 'user with a range against root, p50', of: 'range', to: 'root', most: 1.1 },
  { what: 'user with one id against bwrap, p50', of: 'single', to: 'bwrap', most: 1.2 },
  { what: 'user with a range against podman, p50', of: 'range', to: 'podman', most: 1 / 20, said: '1/20' },
]

/** The bench. */
export async function users(count: number): Promise<void> {
  const dir = mkdtempSync('/run/bench-')
  chmodSync(dir, 0o755)
  const rootfs = makeRootfs(join(dir, 'rootfs'))
  const [single, range] = [user('single'), user('range')]
  const processes = await Promise.all([
    api(rootfs, place(dir, 'root')),
    api(rootfs, place(dir, 'single', single), single),
    api(rootfs, place(dir, 'range', range), range),
  ])
  const [asRoot, asSingle, asRange] = processes.map(([, contestant]) => contestant)
  const { filter } = programs()
  const pod = place(dir, 'podman', range)
  // It writes into its root, overlay or not.
  const owned = makeRootfs(join(pod, 'rootfs'))
  spawnSync('chown', ['-R', `${range.uid}:${range.gid}`, pod])
  const absent: Record<string, string> = {}
  const commands = {
    bwrap: command({ command: bwrap(rootfs), open: filter, as: single }, 20),
    podman: command({ command: podman(pod, owned), as: range }, 2),
  }
  const peers = await present(commands, async ({ turn }) => turn(1), absent)
  const all = { root: asRoot, single: asSingle, range: asRange } as Record<string, Contestant>
  const starts = await rounds([...Object.entries(all), ...peers], count)
  for (const [one] of processes) await one.end()

  writeFileSync(rawFigures, JSON.stringify({ starts, absent }))
  const base = median(starts.root ?? [])
  const rows = Object.entries(starts).map(([name, ms]) => {
    const { n, p50, p95, p99, iqr } = summary(ms)
    return [name, String(n), ...[p50, p95, p99, iqr, p50 / base].map(short)]
  })
  console.log(`${table(['/bin/true, ms', 'n', 'p50', 'p95', 'p99', 'iqr', 'x root'], rows)}\n`)
  for (const [name, why] of Object.entries(absent)) console.log(`not measured: ${name}: ${why}\n`)
  const verdicts = bars.map(({ what, of, to, most, said }) => {
    const measured = median(starts[of] ?? []) / median(starts[to] ?? [])
    const holds = Number.isNaN(measured) ? 'not measured' : measured <= most ? 'pass' : 'falls short'
    return [what, `at most ${said ?? most}`, short(measured), holds]
  })
  console.log(table(['bar', 'wanted', 'measured', ''], verdicts))
}
