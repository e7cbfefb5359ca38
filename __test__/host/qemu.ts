/**
 * The QEMU host: Debian's backported kernel, emulated without KVM. Ten seconds to boot and slow after that, but with
 * what UML lacks: every controller, PSI, two processors, AppArmor, NAT of nftables. No gate: run it by hand.
 */
import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { cage } from './cage.ts'
import { exchange, init } from './uml.ts'

const kernel = fileURLToPath(new URL('../../.cache/qemu', import.meta.url))
const fetch = fileURLToPath(new URL('qemu-kernel.sh', import.meta.url))

function share(tag: string, path: string, more = ''): string[] {
  const filesystem = `local,id=${tag},path=${path},security_model=none,multidevs=remap${more}`
  return ['-fsdev', filesystem, '-device', `virtio-9p-pci,fsdev=${tag},mount_tag=${tag}`]
}

/** Runs a command on a QEMU machine; resolves with its exit status once the machine is gone. */
export async function onQemu(command: readonly string[], timeout: number): Promise<number> {
  if (!existsSync(join(kernel, 'initrd'))) execFileSync(fetch, [kernel], { stdio: 'inherit' })
  const files = exchange('qemu', command)
  const parameters = `console=ttyS0 quiet panic=-1 reboot=t script=${init} modules=${kernel}/kernel/lib/modules`
  const machine = [
    'qemu-system-x86_64',
    ...'-accel tcg -M q35 -cpu max -smp 2 -m 2G -nodefaults -nographic -no-reboot -serial stdio'.split(' '),
    '-kernel',
    join(kernel, 'vmlinuz'),
    '-initrd',
    join(kernel, 'initrd'),
    '-append',
    parameters,
    ...share('root', '/', ',readonly=on'),
    ...share('out', files.dir),
  ]
  const follow = setInterval(files.drain, 100)
  try {
    return await cage({
      unshare: [],
      script: `console=$1; shift; "$@" </dev/null >"$console" 2>&1`,
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
