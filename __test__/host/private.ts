/**
 * The private host: the machine's own kernel at native speed, with a cgroup v2 tree, a network, processes, /run and
 * mounts of its own. No controllers where the machine holds them by v1: limits are tested on UML.
 */
import { cage } from './cage.ts'

const script = `
set -e
umount -R /sys/fs/cgroup 2>/dev/null || :   # v1 mounts of a hybrid machine: out of this view only
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs -o mode=755 run /run
mkdir -p /run/lock /run/netns
ip link set lo up
set +e
"$@"
exit $?
`

/** Runs a command on a private host; resolves with its exit status once the host is gone. */
export async function onPrivateHost(command: readonly string[], timeout: number): Promise<number> {
  return cage({
    unshare: ['--net', '--cgroup'],
    script,
    command,
    env: { CAISSON_TEST_HOST: 'private' },
    timeout,
  })
}
