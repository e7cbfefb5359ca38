/** Two thousand damaged manifests, indexes and configs: read as what they are, or refused with a code; nothing else. */
import test from 'ava'
import { CaissonError } from '../../src/errors.ts'
import { parseConfig } from '../../src/image/config.ts'
import { choose, hostPlatform, imagesOf, parseManifest } from '../../src/image/manifest.ts'
import type { Descriptor } from '../../src/image/manifest.ts'
import { types } from './layouts.ts'
import { codes, mutated } from './mutations.ts'
import { random } from './random.ts'

const count = Number(process.env.CAISSON_MUTATIONS ?? 2000)
const seed = Number(process.env.CAISSON_SEED ?? 1)

const digest = `sha256:${'0123456789abcdef'.repeat(4)}`
const layer = { mediaType: types.gzip, digest, size: 9 }
const { os, architecture } = hostPlatform()
const documents: Record<string, object> = {
  manifest: {
    schemaVersion: 2,
    mediaType: types.manifest,
    config: { mediaType: types.config, digest, size: 7 },
    layers: [layer, { ...layer, mediaType: types.layer, annotations: { a: 'b' } }],
    annotations: { 'org.opencontainers.image.created': 'x' },
  },
  index: {
    schemaVersion: 2,
    mediaType: types.index,
    manifests: [
      { mediaType: types.manifest, digest, size: 7, platform: { os, architecture } },
      {
        mediaType: types.manifest,
        digest,
        size: 8,
        platform: { os: 'unknown', architecture: 'unknown', variant: 'v8' },
        annotations: { 'vnd.docker.reference.type': 'attestation-manifest' },
      },
    ],
  },
  config: {
    os,
    architecture,
    rootfs: { type: 'layers', diff_ids: [digest, digest] },
    config: {
      Entrypoint: ['/bin/sh', '-c'],
      Cmd: ['x'],
      Env: ['A=b', 'PATH=/bin'],
      User: '1:2',
      WorkingDir: '/x',
      StopSignal: 'SIGTERM',
      Volumes: { '/v': {} },
      ExposedPorts: { '80/tcp': {} },
      Labels: { a: 'b' },
      Healthcheck: { Test: ['NONE'] },
      Shell: ['/bin/sh'],
    },
    history: [{ created_by: 'x', empty_layer: true }],
  },
}

function isRight({ mediaType, digest: name, size }: Descriptor): boolean {
  return (
    mediaType.length < 256 && /^sha256:[a-f0-9]{64}$/.test(name) && Number.isSafeInteger(size) && size >= 0
  )
}

function isWord(value: unknown): boolean {
  return value === undefined || (typeof value === 'string' && !value.includes('\0'))
}

/** Reads a document; answers whether all that it gives is of the type that it says. */
function read(kind: string, bytes: Buffer, described: string | undefined): boolean {
  if (kind === 'config') {
    const { config, diffIds, platform } = parseConfig(bytes, 'doc', 2)
    const { entrypoint = [], cmd = [], env = [], user, workdir, stopSignal } = config
    const words = [...entrypoint, ...cmd, ...env, user, workdir, stopSignal, platform.os, platform.variant]
    const absolute = workdir === undefined || workdir.startsWith('/')
    return absolute && words.every(isWord) && diffIds.every((one) => /^sha256:[a-f0-9]{64}$/.test(one))
  }
  const document = parseManifest(bytes, 'doc', described)
  if (document.kind === 'manifest') return [document.config, ...document.layers].every(isRight)
  return document.manifests.every(isRight) && isRight(choose(imagesOf(document), 'doc'))
}

test(`${count} damaged documents`, (t) => {
  const next = random(seed)
  const seen = { read: 0, refused: new Map<string, number>() }
  const polluted = Object.getOwnPropertyNames(Object.prototype).length
  for (let number = 0; number < count; number += 1) {
    const [kind = '', whole = {}] = Object.entries(documents)[number % 3] ?? []
    const bytes = mutated(Buffer.from(JSON.stringify(whole)), next)
    const described = next() < 0.5 ? undefined : kind === 'index' ? types.index : types.manifest
    const at = `${number} of seed ${seed}: ${bytes.toString('latin1').slice(0, 2000)}`
    const began = performance.now()
    try {
      t.true(read(kind, bytes, described), at)
      seen.read += 1
    } catch (error) {
      if (!(error instanceof CaissonError)) throw new Error(at, { cause: error })
      t.true(codes.has(error.code) && error.code !== 'ERR_INTERNAL', `${error.code} ${at}`)
      t.true(error.message.length < 1000, at)
      seen.refused.set(error.code, (seen.refused.get(error.code) ?? 0) + 1)
    }
    t.true(performance.now() - began < 1000, at)
  }
  t.is(Object.getOwnPropertyNames(Object.prototype).length, polluted)
  t.log(seen.read, seen.refused)
  // Both happen often, or the damage is all of one kind.
  t.true(seen.read > count / 20 && seen.refused.size > 3)
})
