/** What was loaded plain is pushed plain, and others pull it: its id and its digest stay what they are here. */
import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import type { ExecutionContext } from 'ava'
import { runtime } from '../host/ground.ts'
import { rootTest } from '../host/only.ts'
import { debian } from '../registry/debian.ts'
import { archive, docker } from './archives.ts'
import * as layouts from './layouts.ts'
import { alone } from './published.ts'
import { engine, scratch } from './store.ts'

interface Pushed {
  directory: string
  name: string
  /** The image's id. */
  id: string
  /** Its manifest's. */
  digest: string
}

/** An image of docker's old form in Debian's registry, by way of the store. */
async function pushed(t: ExecutionContext): Promise<Pushed> {
  const directory = scratch(t)
  // It would read what we set for ourselves.
  const { host } = await debian(t)
  alone(t, directory)
  const name = `${host}/plain:1`
  const layers = [layouts.busybox(), layouts.tar([{ name: 'second', content: 'layer' }])]
  const one = engine(t, directory)
  const [image] = await one.images.load(
    archive(join(directory, 'plain.tar'), docker([{ layers, RepoTags: [name] }])),
  )
  const digest = await one.images.push(name)
  t.is(image?.digest, digest)
  return { directory, name, id: image?.id ?? '', digest }
}

test('skopeo pulls it, as it was', async (t) => {
  const { directory, name, digest } = await pushed(t)
  const raw = ['--tmpdir', runtime, 'inspect', '--raw', '--tls-verify=false', `docker://${name}`]
  const manifest = execFileSync('skopeo', raw)
  t.is(layouts.sha256(manifest), digest)
  const { layers } = JSON.parse(manifest.toString()) as { layers: layouts.Written[] }
  t.deepEqual([...new Set(layers.map(({ mediaType }) => mediaType))], [layouts.types.layer])
  const copy = join(directory, 'copy')
  const words = [
    'copy',
    '-q',
    '--preserve-digests',
    '--src-tls-verify=false',
    `docker://${name}`,
    `oci:${copy}:x`,
  ]
  execFileSync('skopeo', ['--tmpdir', runtime, ...words])
  const two = engine(t, join(directory, 'two'))
  t.is((await two.run(`oci:${copy}:x`, ['cat', '/second'])).stdout, 'layer')
})

rootTest('podman pulls it', async (t) => {
  const { directory, name, id } = await pushed(t)
  const [root, run] = [join(directory, 'podman'), join(directory, 'podman-run')]
  const where = ['--root', root, '--runroot', run, '--storage-driver', 'vfs']
  const logins = join(directory, 'auth.json')
  writeFileSync(logins, '{}')
  const words = ['pull', '--quiet', '--tls-verify=false', '--authfile', logins, name]
  const pulled = execFileSync('podman', [...where, ...words], { stdio: ['ignore', 'pipe', 'pipe'] })
  t.is(`sha256:${pulled.toString().trim()}`, id)
})
