/**
 * The private host: the machine's own kernel at native speed, with a cgroup v2 tree, a network, processes, /run and
 * mounts of its own. No controllers where the machine holds them by v1: limits are tested on UML.
 *
 * With a user it is the rootless host: `single` is one without subordinate ids and without a cgroup, `range` one with a
 * range of ids and a delegated cgroup.
 */
import { fileURLToPath } from 'node:url'
import { cage } from './cage.ts'

const host = `
set -e
umount -R /sys/fs/cgroup 2>/dev/null || :   # v1 mounts of a hybrid machine: out of this view only
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs -o mode=755 run /run
mkdir -p /run/lock /run/netns
ip link set lo up
`

const last = `
set +e
"$@"
exit $?
`

/** Users of this host's own: /etc is a copy on write, so that the machine knows nothing of them. */
const users = `
mkdir /run/etc.upper /run/etc.work /run/home
mount -t overlay -o lowerdir=/etc,upperdir=/run/etc.upper,workdir=/run/etc.work etc /etc
useradd -m -d /run/home/single -K SUB_UID_COUNT=0 -K SUB_GID_COUNT=0 caisson-single
useradd -m -d /run/home/range caisson-range
# As systemd does for a user: a group of its own, and a session below it.
mkdir -p /sys/fs/cgroup/user/session
for name in single range; do
  id=$(id -u caisson-$name)
  mkdir -p /run/user/$id
  chown $id /run/user/$id
  chmod 700 /run/user/$id
done
chown $id /sys/fs/cgroup/user{,/session}{,/cgroup.procs,/cgroup.threads,/cgroup.subtree_control}
`

const asUser = `
mount -t tmpfs -o mode=1777 cache "$CACHE"
id=$(id -u "caisson-$CAISSON_TEST_HOST")
if [ "$CAISSON_TEST_HOST" = range ]; then echo $$ >/sys/fs/cgroup/user/session/cgroup.procs; fi
home=/run/home/$CAISSON_TEST_HOST
set -- setpriv --reuid $id --regid $id --init-groups env HOME=$home XDG_RUNTIME_DIR=/run/user/$id "$@"
`

const cache = fileURLToPath(new URL('../../node_modules/.cache', import.meta.url))

/** What makes a host in a mount namespace, and then runs `"$@"` as whom it is for; and its environment. */
export function hostOf(name: 'private' | 'single' | 'range'): {
  script: string
  env: Record<string, string | undefined>
} {
  const env = { CAISSON_TEST_HOST: name }
  if (name === 'private') return { script: host + last, env }
  return {
    script: host + users + asUser + last,
    env: { ...env, CACHE: cache, XDG_DATA_HOME: undefined },
  }
}

/** Runs a command on a private host as root; resolves with its exit status once the host is gone. */
export async function onPrivateHost(
  command: readonly string[],
  timeout: number,
  withUsers = false,
): Promise<number> {
  return cage({
    unshare: ['--net', '--cgroup'],
    script: host + (withUsers ? users : '') + last,
    command,
    env: { CAISSON_TEST_HOST: 'private' },
    timeout,
  })
}

/** Runs a command on a private host as an ordinary user, with a range of ids or with one id. */
export async function onRootlessHost(
  ids: 'range' | 'single',
  command: readonly string[],
  timeout: number,
): Promise<number> {
  return cage({
    unshare: ['--net', '--cgroup'],
    ...hostOf(ids),
    command,
    timeout,
  })
}
