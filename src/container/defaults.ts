/** What a container gets when nobody says otherwise: docker's defaults of 2026, as facts. */
import { existsSync, readdirSync } from 'node:fs'
import type { IdKind } from '../state/ids.ts'
import { constant } from './constant.ts'

/** The capabilities of a container, of those that the engine itself holds. */
export const capabilities: readonly string[] = [
  'CAP_AUDIT_WRITE',
  'CAP_CHOWN',
  'CAP_DAC_OVERRIDE',
  'CAP_FOWNER',
  'CAP_FSETID',
  'CAP_KILL',
  'CAP_MKNOD',
  'CAP_NET_BIND_SERVICE',
  'CAP_NET_RAW',
  'CAP_SETFCAP',
  'CAP_SETGID',
  'CAP_SETPCAP',
  'CAP_SETUID',
  'CAP_SYS_CHROOT',
]

/** All capabilities by number, capability.h. `ALL` means those of them that the engine holds. */
export const capabilityNames: readonly string[] = (
  'CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE ' +
  'NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN ' +
  'SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE ' +
  'MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE'
)
  .split(' ')
  .map((name) => `CAP_${name}`)

const processors = '/sys/devices/system/cpu'

/** How often each processor was throttled: a channel to its neighbours. */
function throttles(): string[] {
  const names = existsSync(processors) ? readdirSync(processors) : []
  const files = names
    .filter((name) => /^cpu\d+$/.test(name))
    .map((name) => `${processors}/${name}/thermal_throttle`)
  return files.filter((path) => existsSync(path))
}

let masked: readonly string[] | undefined

/** Hidden; a path that is not there is passed over. */
export function maskedPaths(): readonly string[] {
  masked ??= constant([
    '/proc/acpi',
    '/proc/asound',
    '/proc/interrupts',
    '/proc/kcore',
    '/proc/keys',
    '/proc/latency_stats',
    '/proc/sched_debug',
    '/proc/scsi',
    '/proc/timer_list',
    '/proc/timer_stats',
    '/sys/devices/virtual/powercap',
    ...throttles(),
    '/sys/firmware',
  ])
  return masked
}

/** Read-only; a path that is not there is passed over. */
export const readonlyPaths: readonly string[] = constant([
  '/proc/bus',
  '/proc/fs',
  '/proc/irq',
  '/proc/sys',
  '/proc/sysrq-trigger',
])

/** A mount of the runtime spec. */
export interface SpecMount {
  destination: string
  type: string
  source: string
  options: string[]
}

const strict = ['nosuid', 'noexec', 'nodev']

/** The mounts of every container, in the order in which they are made. */
export function defaultMounts(shmSize: number, ids: IdKind): SpecMount[] {
  // The terminals' group, which a user namespace of one id does not have.
  const group = ids === 'single' ? [] : ['gid=5']

  return [
    { destination: '/proc', type: 'proc', source: 'proc', options: [...strict] },
    {
      destination: '/dev',
      type: 'tmpfs',
      source: 'tmpfs',
      options: ['nosuid', 'strictatime', 'mode=755', 'size=65536k'],
    },
    {
      destination: '/dev/pts',
      type: 'devpts',
      source: 'devpts',
      options: ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', ...group],
    },
    { destination: '/sys', type: 'sysfs', source: 'sysfs', options: [...strict, 'ro'] },
    { destination: '/sys/fs/cgroup', type: 'cgroup', source: 'cgroup', options: [...strict, 'ro'] },
    { destination: '/dev/mqueue', type: 'mqueue', source: 'mqueue', options: [...strict] },
    {
      destination: '/dev/shm',
      type: 'tmpfs',
      source: 'shm',
      options: [...strict, 'mode=1777', `size=${shmSize}`],
    },
  ]
}

/** A network of the container's own has no privileged ports, as docker's since 20.10: an image's user may listen at 80. */
export const portSetting = 'net.ipv4.ip_unprivileged_port_start'
export const networkSettings: Readonly<Record<string, string>> = constant({ [portSetting]: '0' })

/** The files that the engine puts into every container, relative to its bundle directory. */
export const engineFiles: readonly string[] = ['resolv.conf', 'hostname', 'hosts']

/** Device rules: all is denied but what the runtime adds for every container (null, zero, full, random, tty, ptys). */
export const deviceRules: readonly Record<string, unknown>[] = constant([{ allow: false, access: 'rwm' }])

export const path = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
export const shmSize = 67_108_864

/** /etc/hosts of a container without an address: what docker writes. */
export const hosts = `127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
`
