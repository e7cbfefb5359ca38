/** Pushing: whole and in chunks, what breaks on the way, and what is not sent twice. */
import { randomBytes } from 'node:crypto'
import { Readable } from 'node:stream'
import test from 'ava'
import { blobOf, client } from './scene.ts'
import type { Failure } from './scene.ts'
import { refuse, serve } from './server.ts'
import type { Fault } from './server.ts'

const pieces = (bytes: Buffer, size = 1000) =>
  async function* (): AsyncGenerator<Buffer> {
    for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
  }

function once(when: (method: string) => boolean, fault: Fault): Fault {
  let done = false
  return (seen, response) => {
    if (done || !when(seen.method)) return false
    done = true
    return fault(seen, response)
  }
}

test('in one request, from an iterable or a stream, with progress', async (t) => {
  const registry = await serve(t)
  const one = client(t, registry.host)
  for (const stream of [false, true]) {
    const blob = blobOf(randomBytes(5500))
    const sent: number[] = []
    const open = stream
      ? () => Readable.from(pieces(blob.bytes)(), { objectMode: false })
      : pieces(blob.bytes)
    await one.upload('some/image', blob, open, { onBytes: (bytes) => sent.push(bytes) })
    t.deepEqual(registry.blobs.get(blob.digest), blob.bytes)
    t.deepEqual(sent.at(-1), 5500)
  }
  t.is(registry.seen.at(-1)?.headers['content-length'], '5500')
  t.regex(registry.seen.at(-1)?.url ?? '', /\?_state=a%3D&digest=sha256%3A/)
  const empty = blobOf('')
  await one.upload('some/image', empty, pieces(empty.bytes))
  t.true(registry.blobs.has(empty.digest))
})

test('in chunks of the size that is wanted, or that the registry wants', async (t) => {
  const registry = await serve(t)
  const one = client(t, registry.host)
  const blob = blobOf(randomBytes(5500))
  await one.upload('some/image', blob, pieces(blob.bytes, 1700), { chunkSize: 2000 })
  t.deepEqual(registry.blobs.get(blob.digest), blob.bytes)
  const ranges = (): unknown[] => registry.asked(/^PATCH/).map(({ headers }) => headers['content-range'])
  t.deepEqual(ranges(), ['0-1999', '2000-3999', '4000-5499'])
  registry.seen.length = 0
  registry.fault = ({ method }, response) => {
    if (method === 'POST') response.setHeader('oci-chunk-min-length', '3000')
    return false
  }
  const other = blobOf(randomBytes(5500))
  await one.upload('some/image', other, pieces(other.bytes), { chunkSize: 2000 })
  t.deepEqual(ranges(), ['0-2999', '3000-5499'])
  await t.throwsAsync(one.upload('some/image', blob, pieces(blob.bytes), { chunkSize: 0 }), {
    code: 'ERR_INVALID_OPTION',
  })
})

test('a chunk that did not arrive, or only its answer did not, is sent once more or not', async (t) => {
  const blob = blobOf(randomBytes(5500))
  const patch = (method: string): boolean => method === 'PATCH'
  const faults: Fault[] = [
    // Not taken at all.
    once(patch, (_, response) => !!response.destroy()),
    once(patch, (_, response) => refuse(response, 503, 'UNAVAILABLE', 'later')),
    once(patch, (_, response) => refuse(response, 416, 'BLOB_UPLOAD_INVALID', 'out of order')),
  ]
  for (const fault of faults) {
    const registry = await serve(t, { fault })
    await client(t, registry.host).upload('some/image', blob, pieces(blob.bytes), { chunkSize: 2000 })
    t.deepEqual(registry.blobs.get(blob.digest), blob.bytes)
    t.is(registry.asked(/^POST/).length, 1)
  }
  // Taken in part, and taken whole, with the answer lost.
  for (const taken of [700, 2000]) {
    const registry = await serve(t)
    registry.fault = once(patch, ({ url, body }, response) => {
      registry.uploads.set(url.replace(/\?.*/, ''), body.subarray(0, taken))
      response.destroy()
      return true
    })
    await client(t, registry.host).upload('some/image', blob, pieces(blob.bytes), { chunkSize: 2000 })
    t.deepEqual(registry.blobs.get(blob.digest), blob.bytes)
    t.is(registry.asked(/^POST/).length, 1)
  }
})

test('what broke in one request begins anew with the source', async (t) => {
  const blob = blobOf(randomBytes(300_000))
  for (const fault of [
    once(
      (method) => method === 'PUT',
      (_, response) => !!response.destroy(),
    ),
    once(
      (method) => method === 'PUT',
      (_, response) => refuse(response, 404, 'BLOB_UPLOAD_UNKNOWN', 'gone'),
    ),
    once(
      (method) => method === 'PUT',
      (_, response) => refuse(response, 500, 'UNKNOWN', 'oops'),
    ),
  ]) {
    const registry = await serve(t, { fault })
    let opened = 0
    await client(t, registry.host).upload('some/image', blob, () => {
      opened += 1
      return pieces(blob.bytes, 65_536)()
    })
    t.is(opened, 2)
    t.deepEqual(registry.blobs.get(blob.digest), blob.bytes)
  }
})

test('a source with other bytes than it should have is no upload', async (t) => {
  const registry = await serve(t)
  const one = client(t, registry.host)
  const { digest } = blobOf('content')
  for (const size of [6, 8])
    for (const chunkSize of [undefined, 4]) {
      const upload = one.upload('some/image', { digest, size }, pieces(Buffer.from('content'), 3), {
        chunkSize,
      })
      await t.throwsAsync(upload, { code: 'ERR_DIGEST' }, `${size} ${chunkSize}`)
    }
  t.is(registry.blobs.size, 0)
  const failing = one.upload('some/image', { digest, size: 7 }, async function* () {
    yield Buffer.from('con')
    throw new Error('the disk is gone')
  })
  await t.throwsAsync(failing, { message: 'the disk is gone' })
})

test('a refusal before the end of the body is read, and said', async (t) => {
  const registry = await serve(t)
  const handle = registry.handle.bind(registry)
  registry.handle = async (request, response) => {
    if (request.method !== 'PUT') return handle(request, response)
    refuse(response, 413, 'SIZE_INVALID', 'too large')
    return undefined
  }
  const blob = blobOf(randomBytes(8 << 20))
  const error = await t.throwsAsync<Failure>(
    client(t, registry.host).upload('some/image', blob, pieces(blob.bytes, 65_536)),
  )
  t.is(error.code, 'ERR_REGISTRY')
  t.regex(error.message, /413: size_invalid: too large/)
  await new Promise((resolve) => setTimeout(resolve, 300))
  // The one by which the session was begun, or cancelled, may be kept.
  t.true(registry.sockets.size <= 1, String(registry.sockets.size))
})

test('a signal ends an upload, and the registry is told', async (t) => {
  const registry = await serve(t)
  const blob = blobOf('content')
  const controller = new AbortController()
  const upload = client(t, registry.host).upload(
    'some/image',
    blob,
    async function* () {
      yield blob.bytes.subarray(0, 3)
      setTimeout(() => controller.abort(new Error('enough')), 50)
      await new Promise(() => undefined)
    },
    { signal: controller.signal },
  )
  await t.throwsAsync(upload, { message: 'enough' })
  for (let waited = 0; waited < 100 && registry.asked(/^DELETE/).length === 0; waited += 1)
    await new Promise((resolve) => setTimeout(resolve, 20))
  t.is(registry.asked(/^DELETE/).length, 1)
  t.is(registry.uploads.size, 0)
})

test('a mount; and an upload where there is none, in its session', async (t) => {
  const registry = await serve(t)
  const one = client(t, registry.host)
  const blob = blobOf('content')
  t.false(await one.mount('some/image', blob.digest, 'other/image'))
  await one.upload('some/image', blob, pieces(blob.bytes))
  t.is(registry.asked(/^POST/).length, 1)
  t.deepEqual(registry.blobs.get(blob.digest), blob.bytes)
  registry.fault = (_, response) => !!response.writeHead(201, { location: '/' }).end()
  t.true(await one.mount('some/image', blob.digest, 'other/image'))
  for (const status of [401, 403, 404, 405]) {
    registry.fault = (_, response) => refuse(response, status, 'DENIED', 'no')
    t.false(await one.mount('some/image', blob.digest, 'other/image'))
  }
})

test('a manifest under its tag or its digest, and what the registry made of it', async (t) => {
  const registry = await serve(t)
  const one = client(t, registry.host)
  const { bytes, digest } = blobOf('{"a":1}')
  t.is(await one.putManifest('some/image', '1', bytes, 'application/x+json'), digest)
  t.is(registry.seen[0]?.headers['content-type'], 'application/x+json')
  const refused: [string, Buffer, string, string][] = [
    [`sha256:${'0'.repeat(64)}`, bytes, 'a/b', 'ERR_DIGEST'],
    ['1', Buffer.alloc((4 << 20) + 1), 'a/b', 'ERR_IMAGE_LIMIT'],
    ['1', bytes, 'a/b\r\nx: y', 'ERR_INVALID_OPTION'],
  ]
  for (const [reference, content, type, code] of refused)
    await t.throwsAsync(one.putManifest('some/image', reference, content, type), { code })
  t.is(registry.seen.length, 1)
  registry.fault = (_, response) =>
    !!response.writeHead(201, { 'docker-content-digest': `sha256:${'0'.repeat(64)}` }).end()
  await t.throwsAsync(one.putManifest('some/image', '1', bytes, 'a/b'), { code: 'ERR_DIGEST' })
})
