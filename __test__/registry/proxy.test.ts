/** Proxies: HTTPS_PROXY, HTTP_PROXY, NO_PROXY, and a Node that knows none. */
import test from 'ava'
import { knowsProxies, proxyOf } from '../../src/registry/proxy.ts'
import { proxy } from './proxy.ts'
import { certificate, client, configure, environment, scratch, told } from './scene.ts'
import type { Failure } from './scene.ts'
import { refuse, serve } from './server.ts'

test('which requests go through one', (t) => {
  const env = {
    HTTPS_PROXY: 'http://p:1',
    http_proxy: 'http://p:2',
    NO_PROXY: 'example.com, .inner.test, only.test:444',
  }
  const over = (url: string, more: object = {}): string | undefined =>
    proxyOf(new URL(url), { ...env, ...more })
  t.is(over('https://other.test/'), 'http://p:1')
  t.is(over('http://other.test/'), 'http://p:2')
  for (const url of [
    'https://example.com/',
    'https://a.example.com/',
    'https://b.inner.test/',
    'https://only.test:444/',
    'https://127.0.0.1:5000/',
    'http://[::1]/',
    'https://localhost:5000/',
  ])
    t.is(over(url), undefined, url)
  t.is(over('https://notexample.com/'), 'http://p:1')
  t.is(over('https://only.test/'), 'http://p:1')
  t.is(over('https://other.test/', { NO_PROXY: '*' }), undefined)
  t.is(over('https://other.test/', { HTTPS_PROXY: '' }), undefined)
})

test('a Node without proxies says so, by the name of the variable', (t) => {
  for (const version of ['22.21.0', '24.5.0', '24.21.0', '25.0.0']) t.true(knowsProxies(version), version)
  for (const version of ['22.0.0', '22.20.9', '23.11.0', '24.4.9']) t.false(knowsProxies(version), version)
  const url = new URL('https://example.com/')
  const error = t.throws<Failure>(() => proxyOf(url, { HTTPS_PROXY: 'http://user:pw1234@p:1' }, '22.20.0'))
  t.is(error.code, 'ERR_UNSUPPORTED')
  t.regex(error.message, /HTTPS_PROXY is set, but Node 22\.20\.0/)
  t.false(told(error).includes('pw1234'))
  t.is(proxyOf(url, {}, '22.20.0'), undefined)
})

test('TLS goes through it as it is, and plain http by its URL', async (t) => {
  const home = scratch(t)
  const authority = certificate(home, 'authority')
  const secured = await serve(t, { tls: certificate(home, 'server', authority) })
  const plain = await serve(t)
  const through = await proxy(t, { 'registry.test': secured.host, 'plain.test': plain.host })
  const registries = {
    'registry.test': { ca: 'authority.crt' },
    'plain.test': { insecure: true },
  }
  const env = environment(home, {
    CAISSON_REGISTRIES: configure(home, 'registries.json', { registries }),
    https_proxy: through.url,
    http_proxy: through.url,
  })
  for (const [name, server] of [
    ['registry.test', secured],
    ['plain.test', plain],
  ] as const) {
    const blob = server.blob('content')
    t.deepEqual(await client(t, name, { env }).blob('some/image', blob), blob.bytes)
  }
  t.true(through.seen.includes('CONNECT registry.test:443'))
  t.true(through.seen.some((line) => line.startsWith('GET http://plain.test/v2/some/image/blobs/')))
})

test('a proxy that is not there, or refuses, is said without its password', async (t) => {
  const refusing = await proxy(t, { '': 'refuse' })
  for (const place of ['127.0.0.1:1', new URL(refusing.url).host]) {
    const env = environment(scratch(t), { HTTPS_PROXY: `http://user:pw%401234@${place}` })
    const error = await t.throwsAsync<Failure>(
      client(t, 'registry.test', { env, limits: { attempts: 1 } }).manifest('some/image', '1'),
    )
    t.is(error.code, 'ERR_REGISTRY')
    t.regex(error.message, /registry\.test cannot be reached/)
    t.false(/pw(@|%40)1234/.test(told(error)), told(error))
  }
  t.is(refusing.seen.length, 1)
})

test('a registry that knows the proxy’s password is not repeated', async (t) => {
  const registry = await serve(t, {
    fault: (_, response) => refuse(response, 400, 'X', 'proxy says pw@1234 %70w%401234'),
  })
  const through = await proxy(t, { 'plain.test': registry.host })
  const home = scratch(t)
  const registries = { 'plain.test': { insecure: true } }
  const url = through.url.replace('//', '//user:%70w%401234@')
  const more = {
    CAISSON_REGISTRIES: configure(home, 'r.json', { registries }),
    https_proxy: url,
    http_proxy: url,
  }
  const one = client(t, 'plain.test', { env: environment(home, more) })
  const error = await t.throwsAsync<Failure>(one.manifest('some/image', '1'))
  t.regex(error.message, /proxy says \*\*\* \*\*\*/)
})
