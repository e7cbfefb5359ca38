/** What an index lists when all of it is wanted: images, what is none, and what is neither. */
import test from 'ava'
import { hostPlatform } from '../../src/image/manifest.ts'
import type { IndexEntry, Platform } from '../../src/image/manifest.ts'
import { memberFor, membersOf, readMember, requireMember, showMember } from '../../src/image/platforms.ts'
import type { Member } from '../../src/image/platforms.ts'
import { sha256, types } from './layouts.ts'

const hash = (text: string): string => sha256(text)
const config = { mediaType: types.config, digest: hash('config'), size: 2 }
const layer = { mediaType: types.gzip, digest: hash('layer'), size: 5 }
const statement = { mediaType: 'application/vnd.in-toto+json', digest: hash('statement'), size: 9 }

function entry(more: Partial<IndexEntry> = {}): IndexEntry {
  return {
    mediaType: types.manifest,
    digest: hash('entry'),
    size: 10,
    platform: undefined,
    name: undefined,
    ...more,
  }
}

function document(more: object = {}): Buffer {
  const plain = { schemaVersion: 2, mediaType: types.manifest, config, layers: [layer] }
  return Buffer.from(JSON.stringify({ ...plain, ...more }))
}

const digests = ({ blobs }: Member): string[] => blobs.map(({ digest }) => digest)

test('an image, with all that it refers to', (t) => {
  const member = readMember(entry(), document(), 'x')
  t.is(member.manifest?.config.digest, config.digest)
  t.deepEqual(digests(member), [config.digest, layer.digest])
})

test('an attestation is kept as it is, whatever its layers are', (t) => {
  const annotations = { 'vnd.docker.reference.type': 'attestation-manifest' }
  const bytes = document({ layers: [statement] })
  const member = readMember(entry({ annotations }), bytes, 'x')
  t.is(member.manifest, undefined)
  t.deepEqual(digests(member), [config.digest, statement.digest])
  // Of what says that it is an image layers are checked.
  t.throws(() => readMember(entry(), bytes, 'x'), { code: 'ERR_UNSUPPORTED' })
})

test('an artifact, and documents of types that nobody here knows', (t) => {
  const chart = { ...config, mediaType: 'application/vnd.cncf.helm.config.v1+json' }
  const artifact = readMember(entry(), document({ config: chart, layers: [statement] }), 'x')
  t.is(artifact.manifest, undefined)
  t.deepEqual(digests(artifact), [config.digest, statement.digest])
  const mediaType = 'application/vnd.oci.artifact.manifest.v1+json'
  const old = Buffer.from(JSON.stringify({ mediaType, blobs: [statement] }))
  t.deepEqual(digests(readMember(entry({ mediaType }), old, 'x')), [statement.digest])
  const strange = entry({ mediaType: 'application/vnd.example.thing+json' })
  t.deepEqual(digests(readMember(strange, Buffer.from('{}'), 'x')), [])
})

test('what is no document is refused, and so is what could lead further', (t) => {
  const mediaType = 'application/vnd.example.thing+json'
  const strange = entry({ mediaType })
  const many = Array.from({ length: 1001 }, () => statement)
  for (const [given, bytes, code] of [
    [entry(), 'no JSON', 'ERR_INVALID_IMAGE'],
    [entry(), '[]', 'ERR_INVALID_IMAGE'],
    [strange, 'no JSON', 'ERR_INVALID_IMAGE'],
    [strange, '{"manifests":[]}', 'ERR_INVALID_IMAGE'],
    [strange, '{"config":7}', 'ERR_INVALID_IMAGE'],
    [strange, '{"layers":[{"mediaType":"a/b","digest":"../../x","size":1}]}', 'ERR_DIGEST'],
    [strange, `{"layers":[${JSON.stringify({ ...statement, size: -1 })}]}`, 'ERR_INVALID_IMAGE'],
    [strange, JSON.stringify({ blobs: many }), 'ERR_IMAGE_LIMIT'],
    [entry(), document({ manifests: [] }).toString(), 'ERR_INVALID_IMAGE'],
    [entry(), document({ mediaType: types.index }).toString(), 'ERR_INVALID_IMAGE'],
  ] as const)
    t.throws(() => readMember(given, Buffer.from(bytes), 'x'), { code }, bytes.slice(0, 80))
})

test('entries: each once, none an index, none too large', (t) => {
  const index = (manifests: IndexEntry[]): Parameters<typeof membersOf>[0] => ({
    kind: 'index',
    mediaType: types.index,
    manifests,
  })
  t.is(membersOf(index([entry(), entry(), entry({ digest: hash('other') })]), 'x').length, 2)
  for (const [more, code] of [
    [{ mediaType: types.index }, 'ERR_INVALID_IMAGE'],
    [{ mediaType: 'text' }, 'ERR_INVALID_IMAGE'],
    [{ mediaType: 'a/b\nc: d' }, 'ERR_INVALID_IMAGE'],
    [{ size: (4 << 20) + 1 }, 'ERR_IMAGE_LIMIT'],
  ] as const)
    t.throws(() => membersOf(index([entry(more)]), 'x'), { code }, JSON.stringify(more))
})

test('which of them stands for all', (t) => {
  const own = hostPlatform()
  const platform = (architecture: string, variant?: string): Platform => ({
    os: 'linux',
    architecture,
    variant,
  })
  const member = (one: Platform | undefined, at: string): Member =>
    readMember(entry({ platform: one, digest: hash(at) }), document(), 'x')
  const none: Member = { entry: entry({ platform: own }), manifest: undefined, blobs: [] }
  const [first, mine, arm] = [
    member(platform('s390x'), '1'),
    member(own, '2'),
    member(platform('arm', 'v7'), '3'),
  ]
  t.is(memberFor([none, first, mine, arm], undefined)?.entry.digest, mine.entry.digest)
  t.is(memberFor([none, first, arm], undefined)?.entry.digest, first.entry.digest)
  t.is(memberFor([first, mine, arm], platform('arm', 'v7'))?.entry.digest, arm.entry.digest)
  t.is(memberFor([first, mine, arm], platform('arm', 'v6')), undefined)
  t.is(memberFor([none], undefined), undefined)
  t.is(memberFor([member(undefined, '4')], platform('mips'))?.entry.digest, hash('4'))
  t.is(requireMember([none, first, arm], 'x', platform('s390x')).entry.digest, first.entry.digest)
  const error = t.throws(() => requireMember([none, first, arm], 'x', own), { code: 'ERR_IMAGE_NOT_FOUND' })
  t.regex(error.message, /it has linux\/s390x, linux\/arm\/v7$/)
  t.is(showMember(arm.entry), `linux/arm/v7 (${hash('3')})`)
})
