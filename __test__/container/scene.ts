/** Where a container's test plays: a busybox root made once a file, an engine of the test's own, and the leak ledger. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'
import { Engine } from '../../src/index.ts'
import type { ProcessPromise, RunOptions } from '../../src/index.ts'
import { hasControllers, isRoot, runtime } from '../host/ground.ts'
import { leavesNothing, settled, take } from '../host/ledger.ts'

/** Everything of this file's tests, on the host's own tmpfs. */
export const ground: string = `${runtime}/caisson-test.${process.pid}`
/** A root file system: busybox, its links, a passwd and a group. */
export const rootfs: string = join(ground, 'rootfs')
/** How many times fewer rounds a host gets: the machines that emulate, which have the controllers, are slow. */
export const scale: number = hasControllers ? 10 : 1
const engineRoot = join(ground, 'engine')

/** What a test has to play with. */
export interface Scene {
  engine: Engine
  /** The engine's own root. */
  root: string
  /** A directory of the test's own, removed after it. */
  dir: string
  run: (command: readonly string[], options?: RunOptions) => ProcessPromise
  /** A shell script. */
  sh: (script: string, options?: RunOptions) => ProcessPromise
}

const passwd = `root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
alice:x:1000:1000:Alice:/home/alice:/bin/sh
`
const group = `root:x:0:
daemon:x:1:
staff:x:50:alice,daemon
audio:x:29:alice
alice:x:1000:
`

/** Makes a busybox root in `dir`. */
export function makeRoot(dir: string): void {
  for (const name of ['bin', 'etc', 'home/alice', 'root', 'tmp', 'usr/sbin']) {
    mkdirSync(join(dir, name), { recursive: true })
  }
  execFileSync('cp', ['/bin/busybox', join(dir, 'bin')])
  const applets = execFileSync('/bin/busybox', ['--list'], { encoding: 'utf8' }).trim().split('\n')
  for (const applet of applets.filter((name) => name !== 'busybox')) {
    symlinkSync('busybox', join(dir, 'bin', applet))
  }
  writeFileSync(join(dir, 'etc/passwd'), passwd)
  writeFileSync(join(dir, 'etc/group'), group)
}

let ready: Promise<void> | undefined

/** The first run of a process loads the addon, seals the executable and makes the engine's directories: no leaks. */
async function prepare(): Promise<void> {
  makeRoot(rootfs)
  process.once('exit', () => {
    rmSync(ground, { recursive: true, force: true })
  })
  const before = take()
  const engine = new Engine({ root: engineRoot })
  await engine.run({ rootfs }, ['true'])
  // A user's view of the machine has a layer of Caisson's own, made once.
  if (!isRoot) await engine.run({ rootfs: '/' }, ['true'])
  await engine.close()
  await settled(before, [], 1000)
}

let scenes = 0

/** Sets a scene; the test fails if anything is left when it is over. */
export async function scene(t: ExecutionContext): Promise<Scene> {
  ready ??= prepare()
  await ready
  leavesNothing(t, ground)
  const dir = join(ground, `scene${(scenes += 1)}`)
  mkdirSync(dir)
  const engine = new Engine({ root: engineRoot })
  t.teardown(async () => {
    await engine.close()
    rmSync(dir, { recursive: true })
  })
  const run = (command: readonly string[], options?: RunOptions): ProcessPromise =>
    engine.run({ rootfs }, command, options)
  return {
    engine,
    root: engineRoot,
    dir,
    run,
    sh: (script, options) => run(['sh', '-c', script], options),
  }
}
