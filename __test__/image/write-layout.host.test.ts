/** Images saved into a layout: what skopeo and Caisson read there, and what is left of it when that fails. */
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import type { Engine } from '../../src/container/engine.ts'
import * as archives from './archives.ts'
import { archive, docker } from './archives.ts'
import * as layouts from './layouts.ts'
import { engine, scratch } from './store.ts'
import { main } from '../cli/program.ts'

const base = layouts.busybox()

async function filled(one: Engine, directory: string): Promise<Engine> {
  const config = archives.config([base], { Cmd: ['echo', 'second'] })
  const images = [
    { layers: [base], RepoTags: ['app:1', 'app:same'] },
    { layers: [base], config, RepoTags: ['other:2', 'other:same'] },
  ]
  await one.images.load(archive(join(directory, 'filled.tar'), docker(images)))
  return one
}

function names(layout: string): string[] {
  const { manifests } = JSON.parse(readFileSync(join(layout, 'index.json'), 'utf8')) as {
    manifests: { digest: string; annotations: Record<string, string> }[]
  }
  return manifests.map(({ annotations }) => annotations['org.opencontainers.image.ref.name'] ?? '').toSorted()
}

test('one image after another into a layout; others read it, and it runs', async (t) => {
  const directory = scratch(t)
  const one = await filled(engine(t, directory), directory)
  const layout = join(directory, 'a/layout')
  const format = 'oci-dir'
  await Promise.all(['app:1', 'other:2', 'app:same'].map((name) => one.images.save(name, layout, { format })))
  t.deepEqual(names(layout), ['1', '2', 'same'])
  // A name is taken over, and blobs are there once.
  await one.images.save('other:same', layout, { format })
  t.deepEqual(names(layout), ['1', '2', 'same'])
  t.deepEqual(readdirSync(layout).toSorted(), ['blobs', 'index.json', 'oci-layout'])
  const digest = (tag: string): string =>
    execFileSync('skopeo', ['inspect', '--format', '{{.Digest}}', `oci:${layout}:${tag}`], {
      encoding: 'utf8',
    })
  t.is(digest('same'), digest('2'))
  t.not(digest('1'), digest('2'))
  t.is((await one.run(`oci:${layout}:same`)).stdout, 'second\n')
  const env = { PATH: process.env.PATH, CAISSON_ROOT: join(directory, 'data') }
  const caisson = (...words: string[]) =>
    spawnSync(process.execPath, [main, ...words], { env, encoding: 'utf8' })
  t.like(caisson('save', '--format', 'oci-dir', '-o', join(directory, 'b'), 'app:1'), {
    status: 0,
    stderr: '',
  })
  t.deepEqual(names(join(directory, 'b')), ['1'])
  t.regex(caisson('save', '--format', 'oci-dir', 'app:1').stderr, /needs --output DIRECTORY/)
})

test('what is no place for one, and names that are one', async (t) => {
  const directory = scratch(t)
  const one = await filled(engine(t, directory), directory)
  const save = async (target: string, ...images: string[]): Promise<void> =>
    one.images.save(images, target, { format: 'oci-dir' })
  const full = join(directory, 'full')
  mkdirSync(full)
  writeFileSync(join(full, 'mine'), '')
  t.like(await t.throwsAsync(save(full, 'app:1')), {
    code: 'ERR_INVALID_OPTION',
    message: `target: '${full}' is a directory, and no OCI image layout`,
  })
  t.deepEqual(readdirSync(full), ['mine'])
  const never = join(directory, 'never')
  t.regex(
    (await t.throwsAsync(save(never, 'app:same', 'other:same'))).message,
    /two of them have the tag 'same'/,
  )
  t.false(existsSync(never))
  t.regex((await t.throwsAsync(save(join(full, 'mine'), 'app:1'))).message, /mine' cannot be written: /)
  const damaged = join(directory, 'damaged')
  await save(damaged, 'app:1')
  writeFileSync(join(damaged, 'index.json'), '{"schemaVersion":2,"manifests":[{"digest":7}]}')
  t.like(await t.throwsAsync(save(damaged, 'other:2')), { code: 'ERR_INVALID_IMAGE' })
  t.regex(readFileSync(join(damaged, 'index.json'), 'utf8'), /"digest":7/)
})
