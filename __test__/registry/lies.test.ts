/** Registries that lie about sizes, digests and ranges, that never end, and that write to terminals: security.md D7, D8, E6. */
import { randomBytes } from 'node:crypto'
import { gzipSync } from 'node:zlib'
import test from 'ava'
import type { ExecutionContext } from 'ava'
import { unreachable } from '../../src/registry/failure.ts'
import { Secrets } from '../../src/registry/said.ts'
import { Unreachable } from '../../src/registry/unreachable.ts'
import { blobOf, client, digestOf, told } from './scene.ts'
import type { Failure } from './scene.ts'
import { refuse, serve } from './server.ts'
import type { Fault } from './server.ts'

const endlessly =
  (status: number): Fault =>
  (_, response) => {
    response.writeHead(status)
    const more = (): void => {
      while (!response.destroyed && response.write('x'.repeat(65_536)));
    }
    response.on('drain', more)
    more()
    return true
  }
const endless = endlessly(200)

/** Sends these bytes with these headers, whatever was asked. */
function sends(bytes: Buffer | string, headers: Record<string, string | number> = {}, status = 200): Fault {
  return (_, response) => {
    response.writeHead(status, headers)
    response.end(bytes)
    return true
  }
}

async function fails(
  t: ExecutionContext,
  fault: Fault,
  act: 'manifest' | 'blob' | 'open',
  code: string,
  said: RegExp,
) {
  const registry = await serve(t, { fault })
  const blob = blobOf('content')
  const one = client(t, registry.host, { limits: { attempts: 2, idle: 500, document: 1000 } })
  const acts = {
    manifest: () => one.manifest('some/image', blob.digest),
    blob: () => one.blob('some/image', blob),
    open: () => one.open('some/image', blob, 3),
  }
  const error = await t.throwsAsync<Failure>(acts[act](), undefined, String(said))
  t.is(error.code, code, error.message)
  t.regex(error.message, said)
}

test('manifests: 4 MiB and no more, promised or not', async (t) => {
  const large = Buffer.alloc((4 << 20) + 1, 'x')
  await fails(t, sends(large), 'manifest', 'ERR_IMAGE_LIMIT', /larger than 4194304 bytes/)
  await fails(
    t,
    sends('x', { 'content-length': 2 ** 40 }),
    'manifest',
    'ERR_IMAGE_LIMIT',
    /larger than 4194304 bytes/,
  )
  await fails(t, endless, 'manifest', 'ERR_IMAGE_LIMIT', /larger than 4194304 bytes/)
  const most = blobOf(large.subarray(1))
  const registry = await serve(t, { fault: sends(most.bytes) })
  t.is((await client(t, registry.host).manifest('some/image', most.digest)).bytes.length, 4 << 20)
})

test('a manifest has the digest that was asked for, whatever the header says', async (t) => {
  const { digest } = blobOf('content')
  const headers = { 'docker-content-digest': digest }
  await fails(t, sends('c0ntent', headers), 'manifest', 'ERR_DIGEST', /its bytes have the digest sha256:/)
  const registry = await serve(t, { fault: sends('other', headers) })
  const served = await client(t, registry.host).manifest('some/image', 'tag')
  t.is(served.digest, digestOf('other'))
})

test('a blob has its size and its digest', async (t) => {
  await fails(t, sends('c0ntent'), 'blob', 'ERR_DIGEST', /its bytes have the digest/)
  for (const bytes of ['conten', 'contents', '']) {
    await fails(
      t,
      sends(bytes, { 'content-length': bytes.length }),
      'blob',
      'ERR_DIGEST',
      /sends \d bytes, not 7/,
    )
    await fails(t, sends(bytes, { 'transfer-encoding': 'chunked' }), 'blob', 'ERR_DIGEST', /bytes/)
  }
  await fails(t, endless, 'blob', 'ERR_DIGEST', /more than 7 bytes/)
  const registry = await serve(t)
  const one = client(t, registry.host)
  await t.throwsAsync(one.blob('some/image', { ...blobOf('x'), size: 9 << 20 }), { code: 'ERR_IMAGE_LIMIT' })
  await t.throwsAsync(one.blob('some/image', blobOf('content'), { most: 6 }), { code: 'ERR_IMAGE_LIMIT' })
  t.is(registry.seen.length, 0)
})

test('a range is the range that was asked for', async (t) => {
  const range = (text: string, bytes = 'tent'): Fault => sends(bytes, { 'content-range': text }, 206)
  for (const text of [
    'bytes 2-6/7',
    'bytes 3-5/7',
    'bytes 3-6/8',
    'bytes */7',
    '3-6/7',
    '',
    'bytes 3-6/7, 0-1/7',
  ])
    await fails(t, range(text), 'open', 'ERR_DIGEST', /range is not 3-6\/7/)
  await fails(t, sends('tent', {}, 206), 'open', 'ERR_DIGEST', /range is not/)
  const longer = sends('tents', { 'content-range': 'bytes 3-6/7', 'content-length': 5 }, 206)
  await fails(t, longer, 'open', 'ERR_DIGEST', /sends 5 bytes, not 4/)
  await fails(t, sends('contents', { 'content-length': 8 }), 'open', 'ERR_DIGEST', /sends 8 bytes, not 7/)
  await fails(t, sends('', {}, 416), 'open', 'ERR_REGISTRY', /answered 416/)
})

test('a compressed answer is none that was asked for', async (t) => {
  const gzip = sends(gzipSync('content'), { 'content-encoding': 'gzip' })
  await fails(t, gzip, 'manifest', 'ERR_REGISTRY', /compressed its answer/)
})

test('silence and drops end', async (t) => {
  await fails(t, () => true, 'manifest', 'ERR_REGISTRY', /nothing came for 0\.5 s/)
  const stalled: Fault = (_, response) => {
    response.writeHead(200, { 'content-length': 7 })
    response.write('c')
    return true
  }
  await fails(t, stalled, 'blob', 'ERR_REGISTRY', /nothing came for 0\.5 s/)
  const drip: Fault = (_, response) => {
    response.writeHead(200)
    const timer = setInterval(() => response.write('x'), 100)
    response.on('close', () => clearInterval(timer))
    return true
  }
  await fails(t, drip, 'manifest', 'ERR_REGISTRY', /not all came within 1 s/)
})

test('who reads slowly is not cut off by the idle limit', async (t) => {
  const registry = await serve(t)
  const blob = registry.blob(randomBytes(4 << 20))
  const { body } = await client(t, registry.host, { limits: { idle: 200 } }).open('some/image', blob)
  let length = 0
  for await (const chunk of body as AsyncIterable<Buffer>) {
    if (length === 0) await new Promise((resolve) => setTimeout(resolve, 900))
    length += chunk.length
  }
  t.is(length, blob.size)
})

test('error bodies are read to 64 KiB, and make no terminal do anything', async (t) => {
  const evil = 'a\u001b]52;c;x\u0007\r\n{"log":"x"}\u009b\u202e\u2066\ud800\u007f'
  const shown = (_: unknown, response: Parameters<Fault>[1]): true =>
    refuse(response, 400, `X${evil}`, evil.repeat(200))
  for (const fault of [
    shown,
    sends(`{"errors":[{"code":"X","message":"${'x'.repeat(1 << 20)}"}]}`, {}, 400),
    endlessly(400),
  ]) {
    const registry = await serve(t, { fault })
    const error = await t.throwsAsync<Failure>(
      client(t, registry.host, { limits: { attempts: 1 } }).manifest('some/image', '1'),
    )
    t.is(error.code, 'ERR_REGISTRY')
    t.true(error.message.length < 8 * 1024)
    for (let waited = 0; waited < 200 && registry.sockets.size > 0; waited += 1)
      await new Promise((resolve) => setTimeout(resolve, 10))
    // What is on its way in the kernel's buffers counts.
    t.true(registry.sent < 32 << 20, String(registry.sent))
    t.false(/[\p{Cc}\u202a-\u202e\u2066-\u2069]|\p{Surrogate}/u.test(error.message), error.message)
  }
  const deep = await serve(t, { fault: sends(`{"errors":${'['.repeat(60_000)}`, {}, 400) })
  await t.throwsAsync(client(t, deep.host).manifest('some/image', '1'), { code: 'ERR_REGISTRY' })
})

test('an answer that nobody reads is not read for ever', async (t) => {
  const registry = await serve(t, {
    fault: ({ method }, response) => {
      if (method !== 'POST') return false
      return endlessly(201)({ method, url: '', headers: {}, body: Buffer.alloc(0) }, response)
    },
  })
  t.true(await client(t, registry.host).mount('some/image', digestOf('x'), 'other/image'))
  await new Promise((resolve) => setTimeout(resolve, 300))
  t.is(registry.sockets.size, 0)
})

test('what was not to be reached is said without secrets, underneath too', (t) => {
  const secrets = new Secrets()
  secrets.add('pw1234')
  const error = new Unreachable('via http://u:pw1234@proxy', 'X', new Error('pw1234'))
  const about = { host: 'a.test', subject: 'a.test/x', action: 'pull' } as const
  t.regex(told(unreachable(error, about, secrets)), /via http:\/\/u:\*\*\*@proxy/)
  t.false(told(unreachable(error, about, secrets)).includes('pw1234'))
})
