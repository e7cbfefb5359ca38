/** Damaged documents from a registry and in archives, all the way: a code each, a store that is whole, a program that lives. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { CaissonError } from '../../src/errors.ts'
import { hostPlatform } from '../../src/image/manifest.ts'
import { archive, docker, remains } from './archives.ts'
import * as layouts from './layouts.ts'
import { codes, mutated } from './mutations.ts'
import { noise, publish, registryOf, stored, whole } from './published.ts'
import { random } from './random.ts'
import { engine, scratch } from './store.ts'

/** A tenth of those that are only read: each is a pull. */
const count = Math.ceil(Number(process.env.CAISSON_MUTATIONS ?? 2000) / 10)
const seed = Number(process.env.CAISSON_SEED ?? 1)

const base = layouts.busybox()
const options: layouts.ImageOptions = {
  layers: [base, layouts.tar([{ name: 'noise', content: noise(100_000) }])],
  compress: true,
  config: { Cmd: ['ls', '/noise'], Env: ['A=b'], User: '0', Labels: { a: 'b' } },
}

/**
 * Whatever a failed pull could have left. Not layers: each is whole and verified by itself, and goes with the next removal,
 * which the end of each test sees.
 */
function lookAt(directory: string): object {
  const index = join(directory, 'data/images/index.json')
  const { layers: _, ...rest } = stored(directory)
  return {
    ...rest,
    index: existsSync(index) ? readFileSync(index, 'utf8') : '',
    spool: existsSync(join(directory, 'data/spool')),
  }
}

/** The code of a refusal; anything else is a fault, `at` which document. */
function codeOf(error: unknown, at: string): string {
  if (error instanceof CaissonError && codes.has(error.code) && error.code !== 'ERR_INTERNAL')
    return error.code
  throw new Error(at, { cause: error })
}

test(`${count} pulls of damaged documents`, async (t) => {
  t.timeout(60_000 + count * 1000)
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const { os, architecture } = hostPlatform()
  const written = publish(registry, directory, options)
  const manifest = registry.manifests.get('app:latest')?.bytes ?? Buffer.of()
  const config = registry.blobs.get(written.config.digest) ?? Buffer.of()
  const manifests = [
    { ...written.manifest, platform: { os, architecture } },
    { ...written.manifest, platform: { os: 'other', architecture } },
  ]
  const index = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: layouts.types.index, manifests }))
  const one = engine(t, directory)
  const image = `${registry.host}/app`
  await one.pull(`${image}:latest`)
  const next = random(seed)
  const seen = { pulled: 0, refused: new Map<string, number>() }
  /** Serves a document under a new tag; in half of the cases under the digest that its bytes have. */
  const serve = (tag: string, kind: number): void => {
    const type = layouts.types[kind === 0 ? 'index' : 'manifest']
    if (kind < 2) {
      registry.manifest('app', tag, mutated(kind === 0 ? index : manifest, next).toString('latin1'), type)
      return
    }
    const bytes = mutated(config, next)
    const blob = next() < 0.8 ? registry.blob(bytes) : { digest: written.config.digest, size: bytes.length }
    const described = { ...written.config, digest: blob.digest, size: blob.size }
    registry.manifest(
      'app',
      tag,
      JSON.stringify({ ...(JSON.parse(manifest.toString()) as object), config: described }),
    )
  }
  for (let number = 0; number < count; number += 1) {
    const tag = `t${number}`
    serve(tag, number % 3)
    const at = `${number} of seed ${seed}: ${registry.manifests.get(`app:${tag}`)?.bytes.toString('latin1').slice(0, 1000)}`
    const before = lookAt(directory)
    try {
      await one.pull(`${image}:${tag}`)
      seen.pulled += 1
    } catch (error) {
      const code = codeOf(error, at)
      t.deepEqual(lookAt(directory), before, at)
      seen.refused.set(code, (seen.refused.get(code) ?? 0) + 1)
    }
    t.notThrows(() => whole(directory), at)
  }
  t.log(seen.pulled, seen.refused)
  t.true(seen.pulled > 0 && seen.refused.size > 3)
  publish(registry, directory, { ...options, config: { Cmd: ['ls', '/noise'], User: '0:0' } }, 'last')
  t.is((await one.run(`${image}:last`)).stdout, '/noise\n')
  for (const found of await one.images.list()) await one.images.remove(found.id, { force: true })
  t.like(remains(directory), { layers: 0, unpacking: 0, blobs: 0, names: 0, spool: false })
})

test(`${count} archives with damaged documents`, async (t) => {
  t.timeout(60_000 + count * 1000)
  const directory = scratch(t)
  const next = random(seed + 1)
  const one = engine(t, directory)
  const file = join(directory, 'a.tar')
  const made = join(directory, 'layout')
  const written = layouts.layout(made, { layers: [base] }, 'example.com/a:1')
  const right = docker([{ layers: [base], RepoTags: ['a/b:1'] }])
  const path = (digest: string): string => `blobs/${digest.replace(':', '/')}`
  const layoutEntries = (): layouts.Entry[] => {
    const name =
      next() < 0.5 ? 'index.json' : path(next() < 0.5 ? written.manifest.digest : written.config.digest)
    const names = [
      'oci-layout',
      'index.json',
      ...[written.manifest, written.config, ...written.layers].map((one_) => path(one_.digest)),
    ]
    return names.map((entry) => {
      const content = readFileSync(join(made, entry))
      return { name: entry, content: entry === name ? mutated(content, next) : content }
    })
  }
  const dockerEntries = (): layouts.Entry[] => {
    const documents = right.filter(({ name }) => name.endsWith('.json'))
    const victim = documents[Math.floor(next() * documents.length)]
    return right.map((entry) =>
      entry === victim ? { ...entry, content: mutated(Buffer.from(entry.content ?? ''), next) } : entry,
    )
  }
  const seen = { loaded: 0, refused: new Map<string, number>() }
  for (let number = 0; number < count; number += 1) {
    archive(file, number % 2 === 0 ? dockerEntries() : layoutEntries())
    const before = lookAt(directory)
    const at = `${number} of seed ${seed}`
    try {
      await one.images.load(file)
      seen.loaded += 1
    } catch (error) {
      const code = codeOf(error, at)
      t.deepEqual(lookAt(directory), before, at)
      seen.refused.set(code, (seen.refused.get(code) ?? 0) + 1)
    }
    t.notThrows(() => whole(directory), at)
  }
  t.log(seen.loaded, seen.refused)
  t.true(seen.loaded > 0 && seen.refused.size > 1)
  t.false(remains(directory).spool)
  for (const found of await one.images.list()) await one.images.remove(found.id, { force: true })
  t.like(remains(directory), { layers: 0, unpacking: 0, blobs: 0, names: 0 })
})
