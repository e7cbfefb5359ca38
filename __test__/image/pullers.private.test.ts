/** What Caisson pushes is pulled, unpacked and run by podman, skopeo and umoci; and what podman then pushes comes back. */
import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import type { ExecutionContext } from 'ava'
import type { Engine, ImageInfo } from '../../src/index.ts'
import { debian } from '../registry/debian.ts'
import { must, podmanOf, release } from './makers.ts'
import { engine, scratch } from './store.ts'
import { change, list } from './trees.ts'

const insecure = '--tls-verify=false'
/** A container of podman's where no limit can be raised, and no controller is there. */
const limits = ['--pids-limit', '-1', '--ulimit', 'nofile=1024:1024', '--ulimit', 'nproc=1000:1000']
const modest = ['--rm', '--network', 'none', ...limits]

interface Scene {
  directory: string
  host: string
  one: Engine
  podman: (...words: string[]) => string
  /** The tree that the images are made of. */
  tree: string
}

async function scene(t: ExecutionContext): Promise<Scene> {
  const directory = scratch(t)
  t.teardown(() => release(directory))
  const tree = join(directory, 'tree')
  mkdirSync(tree, { recursive: true })
  change(tree, 0)
  // podman unpacks no time before 1970.
  rmSync(join(tree, 'early'))
  const { host } = await debian(t)
  return { directory, host, one: engine(t, directory), podman: podmanOf(join(directory, 'podman')), tree }
}

/** What a container of Caisson's has. */
async function ours(one: Engine, reference: string): Promise<string[]> {
  await using held = await one.start(reference, ['sleep', '60'])
  await using found = await one.containers.get(held.id)
  return list(`/proc/${found.info.pid}/root`)
}

/** What a container of podman's has. */
function podmans(podman: Scene['podman'], reference: string): string[] {
  const container = podman('create', reference)
  const lines = list(podman('mount', container))
  podman('rm', container)
  return lines
}

/** What umoci unpacks of what skopeo pulls. */
function umocis(directory: string, reference: string): string[] {
  const [layout, bundle] = [join(directory, 'pulled'), join(directory, 'bundle')]
  must('skopeo', 'copy', '--quiet', '--src-tls-verify=false', `docker://${reference}`, `oci:${layout}:made`)
  must('umoci', 'unpack', '--image', `${layout}:made`, bundle)
  return list(join(bundle, 'rootfs'))
}

test('by import', async (t) => {
  const { directory, host, one, podman, tree } = await scene(t)
  const archive = join(directory, 'tree.tar')
  must('tar', '--xattrs', '--xattrs-include=*', '--format=pax', '-cf', archive, '-C', tree, '.')
  const reference = `${host}/caisson/made:1`
  const changes = ['CMD ["echo", "hello from it"]', 'ENV KIND=made', 'LABEL by=caisson', 'STOPSIGNAL SIGINT']
  const made = await one.images.import(archive, { reference, changes })
  await one.images.push(reference)
  const expected = await ours(one, reference)
  // What was packed is what is run, to the nanosecond.
  t.deepEqual(expected, list(tree))

  t.deepEqual(umocis(directory, reference), expected)
  podman('pull', '--quiet', insecure, reference)
  t.is(podman('run', ...modest, reference), 'hello from it')
  t.is(podman('run', ...modest, reference, 'sh', '-c', 'echo $KIND'), 'made')
  t.deepEqual(podmans(podman, reference), expected)
  const [described] = JSON.parse(podman('image', 'inspect', reference)) as [{ Id: string; Digest: string }]
  t.deepEqual([`sha256:${described.Id}`, described.Digest], [made.id, made.digest])

  // And back, in docker's format: its manifest is another; the config, which is the id, stays what it was.
  const again = `${host}/podman/again:1`
  podman('push', '--quiet', insecure, '--format', 'v2s2', reference, `docker://${again}`)
  const back = await one.pull(again)
  t.is(back.id, made.id)
  const said = must('skopeo', 'inspect', '--format', '{{.Digest}}', insecure, `docker://${again}`)
  t.not(said, made.digest)
  t.true(back.repoDigests.includes(`${host}/podman/again@${said}`), back.repoDigests.join(' '))
  t.deepEqual(back.labels, { by: 'caisson' })
  t.deepEqual(await ours(one, again), expected)
  t.is((await one.images.usage()).layers.count, 1)
  t.is((await one.run(again)).stdout, 'hello from it\n')
})

test('by load of what podman saved', async (t) => {
  const { directory, host, one, podman, tree } = await scene(t)
  const context = join(directory, 'context')
  mkdirSync(context)
  must('cp', '-a', tree, context)
  must(
    'sh',
    '-c',
    `printf 'FROM scratch\\nCOPY tree /\\nRUN rm -r /whole; echo x >/owned/x\\nCMD echo built' >${context}/Dockerfile`,
  )
  podman('build', '--quiet', '--isolation', 'chroot', '--layers', '--tag', 'built', context)
  const archive = join(directory, 'saved.tar')
  podman('save', '--quiet', '--format', 'docker-archive', '--output', archive, 'built')
  const [loaded] = (await one.images.load(archive)) as [ImageInfo]
  const reference = `${host}/caisson/loaded:1`
  await one.images.tag(loaded.id, reference)
  await one.images.push(reference)
  const expected = await ours(one, reference)
  t.true(expected.length > 50)
  t.deepEqual(podmans(podman, 'built'), expected)
  t.deepEqual(umocis(directory, reference), expected)
  const other = podmanOf(join(directory, 'other'))
  other('pull', '--quiet', insecure, reference)
  t.is(other('run', ...modest, reference), 'built')
  t.deepEqual(podmans(other, reference), expected)
  const again = `${host}/podman/loaded:1`
  other('push', '--quiet', insecure, '--compression-format', 'zstd', reference, `docker://${again}`)
  t.is((await one.pull(again)).id, loaded.id)
  t.deepEqual(await ours(one, again), expected)
})
