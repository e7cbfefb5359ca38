/** Where a registry may lead, and what is shown there: security.md D10. */
import { promisify } from 'node:util'
import test from 'ava'
import { guardedLookup, mayLead, nearness } from '../../src/registry/addresses.ts'
import { proxy } from './proxy.ts'
import { certificate, client, configure, environment, scratch, told } from './scene.ts'
import type { Failure } from './scene.ts'
import { refuse, serve } from './server.ts'
import type { FakeRegistry, Fault } from './server.ts'

const password = 's3cr3t+pass'
const login = { kind: 'password', username: 'user', password } as const

/** Wants Basic, then redirects what is asked of blobs. */
function leading(to: (url: string) => string, status = 307): Fault {
  return ({ url, headers }, response) => {
    if (headers.authorization === undefined) {
      response.setHeader('www-authenticate', 'Basic realm="x"')
      return refuse(response, 401, 'UNAUTHORIZED', 'who?')
    }
    if (!url.includes('/blobs/')) return false
    response.writeHead(status, { location: to(url) }).end()
    return true
  }
}

test('another host or port is not shown what the registry is', async (t) => {
  for (const address of ['127.0.0.1', '127.0.0.2']) {
    const sink = await serve(t, { address })
    const blob = sink.blob('content')
    const registry = await serve(t, { fault: leading((url) => `${sink.origin}${url}`) })
    t.deepEqual(await client(t, registry.host, { login }).blob('some/image', blob), blob.bytes)
    t.true(registry.knows(password))
    t.is(sink.seen.length, 1)
    t.is(sink.seen[0]?.headers.authorization, undefined)
    t.false(sink.knows(password))
  }
})

test('the registry itself is shown it again behind its own redirect, and not behind a foreign one', async (t) => {
  const registry = await serve(t)
  const blob = registry.blob('content')
  const wants = leading((url) => `${url}?again`)
  registry.fault = (seen, response) => (seen.url.endsWith('?again') ? false : wants(seen, response))
  t.deepEqual(await client(t, registry.host, { login }).blob('some/image', blob), blob.bytes)
  t.truthy(registry.seen.at(-1)?.headers.authorization)

  const sink = await serve(t, {
    fault: ({ url }, response) => {
      response.writeHead(302, { location: `${registry.origin}${url}?again` }).end()
      return true
    },
  })
  const away = leading((url) => `${sink.origin}${url}`)
  registry.fault = (seen, response) => (seen.url.endsWith('?again') ? false : away(seen, response))
  t.deepEqual(await client(t, registry.host, { login }).blob('some/image', blob), blob.bytes)
  t.is(registry.seen.at(-1)?.headers.authorization, undefined)
})

test('a loop ends after five', async (t) => {
  const registry = await serve(t, { fault: leading((url) => url) })
  const blob = registry.blob('content')
  const error = await t.throwsAsync<Failure>(client(t, registry.host, { login }).blob('some/image', blob))
  t.is(error.code, 'ERR_REGISTRY')
  t.regex(error.message, /redirects more than 5 times/)
  // The one that was answered 401, and then one and five more.
  t.is(registry.asked(/^GET .*blobs/).length, 7)
})

test('from TLS to none: not followed', async (t) => {
  const sink = await serve(t)
  const blob = sink.blob('content')
  const tls = certificate(scratch(t), 'server')
  const registry = await serve(t, {
    tls,
    fault: leading((url) => `${sink.origin}${url}?signature=presigned1234`),
  })
  const error = await t.throwsAsync<Failure>(client(t, registry.host, { login }).blob('some/image', blob))
  t.is(error.code, 'ERR_REGISTRY')
  t.regex(error.message, /without TLS: not followed/)
  t.false(told(error).includes('presigned1234'))
  t.is(sink.seen.length, 0)
})

test('a registry that must have TLS is not asked without', async (t) => {
  const registry = await serve(t)
  const home = scratch(t)
  const registries = { [registry.host]: { insecure: false } }
  const env = environment(home, { CAISSON_REGISTRIES: configure(home, 'strict.json', { registries }) })
  await t.throwsAsync(client(t, registry.host, { env, login }).manifest('some/image', '1'), {
    code: 'ERR_REGISTRY',
  })
  t.is(registry.seen.length, 0)
})

test('places that are no place for a blob', async (t) => {
  for (const [to, said] of [
    ['http://169.254.0.1:1/x', /this machine's own network/],
    ['http://[fe80::1]:1/x', /this machine's own network/],
    ['http://[::ffff:169.254.0.1]:1/x', /this machine's own network/],
    ['http://0xa9fe0001:1/x', /this machine's own network/],
    ['ftp://127.0.0.1/x', /neither http nor https/],
    ['file:///etc/passwd', /neither http nor https/],
    ['http://user:pw@127.0.0.1:1/x', /password in the URL/],
    ['http://', /no URL/],
  ] as const) {
    const registry = await serve(t, { fault: leading(() => to) })
    const error = await t.throwsAsync<Failure>(
      client(t, registry.host, { login }).blob('some/image', registry.blob('content')),
    )
    t.is(error.code, 'ERR_REGISTRY', to)
    t.regex(error.message, said)
  }
})

test('a registry elsewhere leads to nothing on this machine, by address or by name', async (t) => {
  const sink = await serve(t)
  const blob = sink.blob('content')
  const port = sink.host.split(':')[1] ?? ''
  const far = await serve(t)
  const through = await proxy(t, { 'registry.test': far.host })
  const home = scratch(t)
  for (const host of [
    '127.0.0.1',
    'localhost',
    'a.localhost',
    '[::1]',
    '[::ffff:127.0.0.1]',
    '0.0.0.0',
    '2130706433',
  ]) {
    far.fault = ({ url }, response) => {
      response.writeHead(307, { location: `http://${host}:${port}${url}` }).end()
      return true
    }
    const env = environment(home, { HTTP_PROXY: through.url, HTTPS_PROXY: through.url })
    const registry = client(t, 'registry.test:5000', { env: { ...env, CAISSON_REGISTRIES: insecure(home) } })
    const error = await t.throwsAsync<Failure>(registry.blob('some/image', blob))
    t.is(error.code, 'ERR_REGISTRY', host)
    t.regex(error.message, /this machine's own network/, host)
  }
  t.true(far.seen.length > 0)
  t.is(sink.seen.length, 0)
})

test('an upload is not led away', async (t) => {
  const sink = await serve(t)
  const registry = await serve(t, {
    fault: ({ method, url }, response) => {
      if (method === 'GET') return false
      response.writeHead(307, { location: `${sink.origin}${url}` }).end()
      return true
    },
  })
  const put = client(t, registry.host).putManifest('some/image', '1', Buffer.from('{}'), 'a/b')
  const error = await t.throwsAsync<Failure>(put)
  t.is(error.code, 'ERR_REGISTRY')
  t.regex(error.message, /redirects an upload/)
  t.is(sink.seen.length, 0)
})

test('an upload goes on elsewhere without what the registry is shown', async (t) => {
  const sink = await serve(t)
  const registry: FakeRegistry = await serve(t, {
    fault: ({ method, headers }, response) => {
      if (headers.authorization === undefined) {
        response.setHeader('www-authenticate', 'Basic realm="x"')
        return refuse(response, 401, 'UNAUTHORIZED', 'who?')
      }
      if (method !== 'POST') return false
      sink.uploads.set('/v2/x/y/blobs/uploads/1', Buffer.alloc(0))
      response.writeHead(202, { location: `${sink.origin}/v2/x/y/blobs/uploads/1?_state=a%3D` }).end()
      return true
    },
  })
  const bytes = Buffer.from('content')
  const { digest, size } = sink.blob(bytes)
  await client(t, registry.host, { login }).upload('some/image', { digest, size }, async function* () {
    yield bytes
  })
  t.is(sink.asked(/^PUT/).length, 1)
  t.false(sink.knows(password))
})

test('what is in a URL of a redirect is in no error', async (t) => {
  const sink = await serve(t, { fault: (_, response) => refuse(response, 403, 'DENIED', 'no') })
  const registry = await serve(t, { fault: leading((url) => `${sink.origin}${url}?signature=presigned1234`) })
  const error = await t.throwsAsync(
    client(t, registry.host, { login }).blob('some/image', registry.blob('x')),
  )
  t.true(sink.seen[0]?.url.includes('presigned1234'))
  t.false(told(error).includes('presigned1234'))
})

test('how near an address is', async (t) => {
  for (const host of [
    '127.0.0.1',
    '127.9.9.9',
    '0.0.0.0',
    '[::1]',
    '[::]',
    '[::ffff:7f00:1]',
    'localhost',
    'LOCALHOST.',
    'x.localhost',
  ])
    t.is(nearness(host), 'loopback', host)
  for (const host of ['169.254.169.254', '[fe80::1]', '[febf::1]', '[::ffff:a9fe:a9fe]', '[fd00:ec2::254]'])
    t.is(nearness(host), 'link-local', host)
  for (const host of [
    '128.0.0.1',
    '10.0.0.1',
    'example.com',
    'localhost.example',
    '[2001:db8::1]',
    '[fec0::1]',
  ])
    t.is(nearness(host), 'far', host)
  t.false(mayLead('far', 'loopback'))
  t.false(mayLead('loopback', 'link-local'))
  t.true(mayLead('loopback', 'loopback'))
  t.true(mayLead('loopback', 'far'))
  const resolving = (from: 'far' | 'loopback') =>
    promisify((done: (error: Error | null, found: unknown) => void) => {
      guardedLookup(from)('localhost', { all: true }, done)
    })
  await t.throwsAsync(resolving('far')(), { message: /this machine's own network/ })
  await t.notThrowsAsync(resolving('loopback')())
})

function insecure(home: string): string {
  return configure(home, 'insecure.json', { registries: { 'registry.test:5000': { insecure: true } } })
}
