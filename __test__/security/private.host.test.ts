/** Nobody else enters the places of state: set-uid files of images lie there (security.md D6). */
import { execFileSync, spawnSync } from 'node:child_process'
import { chmodSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'
import type { Engine } from '../../src/container/engine.ts'
import * as layouts from '../image/layouts.ts'
import { publish, registryOf } from '../image/published.ts'
import { engine, scratch, shimsAreGone } from '../image/store.ts'
import { row } from './row.ts'

const stranger = ['--reuid=1000', '--regid=1000', '--clear-groups']
const suid = 'set-uid-shell'

/** Pulls an image with a set-uid root shell. */
async function pulled(t: ExecutionContext): Promise<{ directory: string; one: Engine; image: string }> {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const shell = { name: `bin/${suid}`, mode: 0o4755, content: readFileSync('/bin/busybox') }
  publish(registry, directory, { layers: [layouts.busybox(shell)] })
  // As liberal as a caller can be.
  const before = process.umask(0)
  t.teardown(() => process.umask(before))
  const one = engine(t, directory)
  await one.pull(`${registry.host}/app`)
  return { directory, one, image: `${registry.host}/app` }
}

/** The roots and what is directly in them, as directories. */
function places(directory: string): string[] {
  const roots = ['data', 'run'].map((name) => join(directory, name))
  const inside = roots.flatMap((root) =>
    readdirSync(root, { withFileTypes: true }).flatMap((entry) =>
      entry.isDirectory() ? [join(root, entry.name)] : [],
    ),
  )
  return [...roots, ...inside]
}

/** Whether a stranger finds anything in the roots, by looking or by knowing where it is. */
function entered(directory: string): string[] {
  const roots = ['data', 'run'].map((name) => join(directory, name))
  const find = spawnSync('setpriv', [...stranger, 'find', ...roots, '-mindepth', '1'], { encoding: 'utf8' })
  const seen = find.stdout.split('\n').filter((line) => line !== '')
  const there = execFileSync('find', [...roots, '-name', suid], { encoding: 'utf8' })
    .trim()
    .split('\n')
  const points = readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .flatMap((line) => line.split(' ')[4] ?? [])
    .filter((point) => point.startsWith(directory))
  const reached = [...there, ...points].filter(
    (path) => spawnSync('setpriv', [...stranger, 'test', '-e', path]).status === 0,
  )
  return [...seen, ...reached]
}

row(
  'D6',
  'roots are made 0700, whatever the umask; what was opened is closed by the next start',
  async (t) => {
    const { directory, one, image } = await pulled(t)
    const roots = ['data', 'run'].map((name) => join(directory, name))
    const modes = (): string[] => roots.map((root) => (statSync(root).mode & 0o777).toString(8))
    t.deepEqual(modes(), ['700', '700'])
    await one.close()
    await shimsAreGone(directory)
    for (const root of roots) chmodSync(root, 0o755)
    t.is((await engine(t, directory).run(image, ['echo', 'ran'])).stdout, 'ran\n')
    t.deepEqual(modes(), ['700', '700'])
  },
)

row(
  'D6',
  'another user finds no set-uid file of an image, nor of a container that runs',
  async (t) => {
    const { directory, one, image } = await pulled(t)
    const script = `cp /bin/busybox /${suid}; chmod 4755 /${suid}`
    const look = async (by: Engine): Promise<void> => {
      await using container = await by.start(image, ['sleep', '600'])
      await container.exec(['sh', '-c', script])
      const there = execFileSync('find', [directory, '-name', suid, '-perm', '-4000'], { encoding: 'utf8' })
      t.true(there.trim().split('\n').length >= 2, there)
      t.deepEqual(entered(directory), [])
    }
    await look(one)
    await one.close()
    await shimsAreGone(directory)
    for (const place of places(directory)) chmodSync(place, 0o755)
    await look(engine(t, directory))
  },
  'root',
)
