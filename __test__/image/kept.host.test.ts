/** The store is an OCI image layout: other tools read it; and Debian's registry, filled by skopeo, is pulled from. */
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { zstdCompressSync } from 'node:zlib'
import test from 'ava'
import { hasUsers } from '../host/ground.ts'
import { debian } from '../registry/debian.ts'
import * as layouts from './layouts.ts'
import { alone, layerOf, publish, registryOf, requests, stored, whole } from './published.ts'
import { engine, held, scratch } from './store.ts'

const base = layouts.busybox()
const options: layouts.ImageOptions = {
  layers: [
    base,
    layouts.tar([
      { name: 'etc/', kind: '5' },
      { name: 'etc/motd', content: 'hello' },
    ]),
  ],
  compress: true,
  config: { Cmd: ['cat', '/etc/motd'], Env: ['A=b'] },
}

function skopeo(...words: string[]): string {
  return execFileSync('skopeo', ['--insecure-policy', ...words], { encoding: 'utf8', stdio: 'pipe' })
}

test('from Debian’s registry: what skopeo pushed, and skopeo and umoci read what is here', async (t) => {
  const directory = scratch(t)
  // Before `alone`: docker-registry takes REGISTRY_ variables for its own.
  const { host } = await debian(t)
  alone(t, directory)
  const origin = join(directory, 'origin')
  const written = layouts.layout(origin, options)
  skopeo('copy', '--quiet', '--dest-tls-verify=false', `oci:${origin}:latest`, `docker://${host}/some/app:1`)
  // docker's own form of the same image.
  const docker = ['--quiet', '--format', 'v2s2', '--dest-tls-verify=false']
  skopeo('copy', ...docker, `oci:${origin}:latest`, `docker://${host}/some/app:docker`)
  const one = engine(t, directory)
  for (const tag of ['1', 'docker']) {
    t.is((await one.run(`${host}/some/app:${tag}`)).stdout, 'hello')
    await one.pull(`${host}/some/app:${tag}`)
  }
  t.like(held(directory), { layers: 2, facts: 2, unpacking: 0 })
  t.notThrows(() => whole(directory))

  const images = join(directory, 'data/images')
  const name = `${host}/some/app:1`
  const shown = JSON.parse(skopeo('inspect', `oci:${images}:${name}`)) as {
    Digest: string
    Layers: string[]
    Env: string[]
  }
  t.like(shown, {
    Digest: written.manifest.digest,
    Layers: written.layers.map(({ digest }) => digest),
    Env: ['A=b'],
  })
  const copy = join(directory, 'copy')
  skopeo('copy', '--quiet', `oci:${images}:${name}`, `oci:${copy}:x`)
  t.deepEqual(
    readFileSync(layouts.path(copy, layerOf(written, 1))),
    readFileSync(layouts.path(origin, layerOf(written, 1))),
  )
  t.is((await one.run(`oci:${copy}:x`)).stdout, 'hello')
  // What has docker's types skopeo 1.9 does not find in a layout, whoever put it there.
  const back = `docker://${host}/some/other`
  skopeo('copy', '--quiet', '--dest-tls-verify=false', `oci:${images}:${name}`, back)
  t.is((await one.run(`${host}/some/other`)).stdout, 'hello')
})

test('umoci unpacks what is here', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  publish(registry, directory, options)
  await engine(t, directory).pull(`${registry.host}/app`)
  const images = join(directory, 'data/images')
  const umoci = (...words: string[]): string =>
    execFileSync('umoci', words, { encoding: 'utf8', stdio: 'pipe' })
  umoci('unpack', '--rootless', '--image', `${images}:${registry.host}/app:latest`, join(directory, 'bundle'))
  t.is(readFileSync(join(directory, 'bundle/rootfs/etc/motd'), 'utf8'), 'hello')
})

test('the same layer twice, an empty layer, forty layers', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const empty = layouts.tar([])
  const [first, second] = ['first', 'second'].map((content) => layouts.tar([{ name: 'which', content }])) as [
    Buffer,
    Buffer,
  ]
  const more = Array.from({ length: 40 }, (_, at) => layouts.tar([{ name: `f/${at}`, content: `${at}` }]))
  for (const compress of [false, true]) {
    const written = publish(
      registry,
      directory,
      { layers: [empty, base, first, empty, second, first, empty, ...more], compress },
      `${compress}`,
    )
    const one = engine(t, join(directory, `${compress}`))
    const { stdout } = await one.run(`${registry.host}/app:${compress}`, [
      'sh',
      '-c',
      'cat /which; ls /f | cat',
    ])
    t.is(stdout.split('\n').filter((line) => line !== '').length, 40)
    t.true(stdout.startsWith('first'))
    for (const at of written.layers.keys()) t.is(requests(registry, layerOf(written, at)), 1, `${at}`)
    t.like(held(join(directory, `${compress}`)), { layers: 47, unpacking: 0 })
    t.deepEqual(stored(join(directory, `${compress}`)).ingest, [])
  }
})

test('plain, gzip and zstd layers in one image', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const layers = [
    base,
    layouts.tar([{ name: 'g', content: 'gzip' }]),
    layouts.tar([{ name: 'z', content: 'zstd' }]),
  ]
  const written = publish(registry, directory, { layers })
  const [plain, gzip, zstd] = [
    written.layers[0],
    registry.blob(execFileSync('gzip', ['-c'], { input: layers[1] })),
    registry.blob(zstdCompressSync(layers[2] ?? '')),
  ]
  const described = [
    plain,
    { mediaType: layouts.types.gzip, digest: gzip.digest, size: gzip.size },
    { mediaType: `${layouts.types.layer}+zstd`, digest: zstd.digest, size: zstd.size },
  ]
  const document = {
    schemaVersion: 2,
    mediaType: layouts.types.manifest,
    config: written.config,
    layers: described,
  }
  registry.manifest('app', 'latest', JSON.stringify(document))
  const run = engine(t, directory).run(`${registry.host}/app`, ['cat', '/g', '/z'])
  t.is((await run).stdout, 'gzipzstd')
})

test('what a layer takes from those below: parents, hard links, whiteouts, opaque directories', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const low = layouts.tar([
    { name: 'd/', kind: '5', mode: 0o1751, uid: 5, gid: 6 },
    { name: 'd/file', content: 'low', mode: 0o640, uid: 7, gid: 8 },
    { name: 'gone/', kind: '5' },
    { name: 'gone/x', content: 'x' },
    { name: 'kept', content: 'kept' },
    { name: 'hidden/', kind: '5' },
    { name: 'hidden/old', content: 'old' },
  ])
  const middle = layouts.tar([
    { name: 'd/link', kind: '1', link: 'd/file' },
    { name: '.wh.gone' },
    { name: 'hidden/.wh..wh..opq' },
    { name: 'hidden/new', content: 'new' },
  ])
  const top = layouts.tar([
    { name: 'd/more', content: 'more' },
    { name: 'd/second', kind: '1', link: 'd/link' },
    { name: 'hidden/newest', content: 'newest' },
    { name: '.wh.kept' },
  ])
  publish(registry, directory, { layers: [base, low, middle, top], compress: true })
  const script =
    'cat d/link d/second d/more; ls / hidden | cat; stat -c "%n %a %u %g %Y" d d/file d/link d/second d/more'
  const { stdout } = await engine(t, directory).run(`${registry.host}/app`, ['sh', '-c', script], {
    workdir: '/',
  })
  const owner = (uid: number, gid: number): string => (hasUsers ? `${uid} ${gid}` : '0 0')
  t.true(stdout.startsWith('lowlowmore'), stdout)
  const names = stdout.split('\n')
  for (const gone of ['gone', 'kept', 'old']) t.false(names.includes(gone), gone)
  for (const there of ['new', 'newest']) t.true(names.includes(there), there)
  for (const line of [
    `d 1751 ${owner(5, 6)} 1000000000`,
    `d/file 640 ${owner(7, 8)} 1000000000`,
    `d/link 640 ${owner(7, 8)} 1000000000`,
    `d/second 640 ${owner(7, 8)} 1000000000`,
    'd/more 644 0 0 1000000000',
  ])
    t.true(names.includes(line), `${line}\n${stdout}`)
})
