/** Which servers stand for a registry: registries.json, certs.d, what is built in. */
import { join } from 'node:path'
import test from 'ava'
import { endpoints } from '../../src/registry/hosts.ts'
import { parseObject } from '../../src/registry/json.ts'
import { checkHost } from '../../src/registry/names.ts'
import { said, Secrets } from '../../src/registry/said.ts'
import { configure, environment, scratch } from './scene.ts'
import type { Failure } from './scene.ts'

test('without a file: TLS, but what is on this machine', (t) => {
  const env = environment(scratch(t))
  const only = (host: string) => endpoints(host, env)[0]
  t.like(only('example.com'), {
    origin: 'https://example.com',
    plain: false,
    tls: { verified: true, ca: [] },
  })
  for (const name of ['docker.io', 'index.docker.io', 'registry-1.docker.io'])
    t.like(only(name), { host: 'docker.io', origin: 'https://registry-1.docker.io', plain: false })
  for (const host of ['localhost', 'localhost:5000', '127.0.0.1:5000', '127.1.2.3', '[::1]:5000'])
    t.like(only(host), { host, origin: `https://${host}`, plain: true, tls: { verified: false } })
  for (const host of ['10.0.0.1:5000', 'localhost.example.com', '128.0.0.1'])
    t.like(only(host), { plain: false, tls: { verified: true } })
})

test('names of registries', (t) => {
  for (const name of ['a', 'a.b-c:1', 'EXAMPLE.com', '[2001:db8::1]:5000'])
    t.is(checkHost(name), name.toLowerCase())
  for (const name of [
    '',
    'a/b',
    'a:b',
    'a:99999',
    'a@b',
    'http://a',
    'a..b',
    '-a',
    'a b',
    'ä.test',
    '[x]',
    '../x',
    'a?b',
  ])
    t.throws(() => checkHost(name), { code: 'ERR_INVALID_OPTION' }, name)
})

test('mirrors, certificates by paths from the file, insecure', (t) => {
  const home = scratch(t)
  for (const name of ['ca', 'cert', 'key']) configure(home, `certs/${name}.pem`, `the ${name}`)
  const own = { ca: 'certs/ca.pem', cert: 'certs/cert.pem', key: 'certs/key.pem' }
  const registries = {
    'docker.io': { mirrors: ['https://m.test', 'https://n.test/some/prefix', 'http://plain.test:5000'] },
    'm.test': own,
    'plain.test:5000': { insecure: true },
    '127.0.0.1:5000': { insecure: false },
  }
  const env = environment(home, { CAISSON_REGISTRIES: configure(home, 'r.json', { registries }) })
  const tls = { ca: ['the ca'], client: { cert: 'the cert', key: 'the key' }, verified: true }
  const [m, n, plain, hub] = endpoints('docker.io', env)
  t.like(m, {
    host: 'm.test',
    origin: 'https://m.test',
    prefix: '',
    mirror: true,
    namespace: 'docker.io',
    tls,
  })
  t.like(n, {
    origin: 'https://n.test',
    prefix: 'some/prefix/',
    namespace: undefined,
    tls: { verified: true },
  })
  t.like(plain, { origin: 'http://plain.test:5000', plain: false })
  t.like(hub, { host: 'docker.io', mirror: false, plain: false })
  t.like(endpoints('127.0.0.1:5000', env)[0], { plain: false, tls: { verified: true } })
  t.like(endpoints('plain.test:5000', env)[0], { plain: true, tls: { verified: false } })
})

test('where the file is: the variable, this user’s, the machine’s', (t) => {
  const home = scratch(t)
  const registries = { 'a.test': { insecure: true } }
  configure(home, 'xdg/caisson/registries.json', { registries })
  const { CAISSON_REGISTRIES: _, ...env } = environment(home)
  t.true(endpoints('a.test', env, false)[0]?.plain)
  t.false(endpoints('a.test', env, true)[0]?.plain)
  const other = { ...env, CAISSON_REGISTRIES: configure(home, 'other.json', {}) }
  t.false(endpoints('a.test', other, false)[0]?.plain)
  const error = t.throws<Failure>(() =>
    endpoints('a.test', { ...env, CAISSON_REGISTRIES: join(home, 'none') }, false),
  )
  t.regex(error.message, /is not there, but CAISSON_REGISTRIES names it/)
})

test('what a file says wrong is said by path and field', (t) => {
  const home = scratch(t)
  for (const [content, said_] of [
    ['{', /is no JSON object/],
    ['[]', /is no JSON object/],
    [{ registry: {} }, /unknown field 'registry'/],
    [{ registries: [] }, /registries is no object/],
    [{ registries: { 'a/b': {} } }, /'a\/b', which is no HOST/],
    [{ registries: { 'a.test': { mirror: [] } } }, /registries\.a\.test has an unknown field 'mirror'/],
    [{ registries: { 'a.test': { mirrors: 'x' } } }, /registries\.a\.test\.mirrors is no array/],
    [{ registries: { 'a.test': { insecure: 'yes' } } }, /registries\.a\.test\.insecure is no boolean/],
    [{ registries: { 'a.test': { idle: '7' } } }, /registries\.a\.test\.idle is no number of seconds/],
    [{ registries: { 'a.test': { idle: 0 } } }, /registries\.a\.test\.idle is no number of seconds/],
    [{ registries: { 'a.test': { idle: 1e9 } } }, /registries\.a\.test\.idle is no number of seconds/],
    [{ registries: { 'a.test': { ca: 7 } } }, /registries\.a\.test\.ca is no path/],
    [{ registries: { 'a.test': { ca: 'none.pem' } } }, /none\.pem: is not there/],
    [{ registries: { 'a.test': { cert: 'x' } } }, /only one of cert and key/],
    [{ registries: { 'a.test': { mirrors: ['m.test'] } } }, /'m\.test' is no URL/],
    [{ registries: { 'a.test': { mirrors: ['http://m.test'] } } }, /http:\/\/m\.test has no TLS/],
    [{ registries: { 'a.test': { mirrors: ['https://u:pw1234@m.test'] } } }, /passwords do not belong here/],
    [{ registries: { 'a.test': { mirrors: ['https://m.test/?x'] } } }, /more or less than/],
    [{ registries: { 'a.test': { mirrors: ['file:///x'] } } }, /more or less than/],
    [{ registries: { 'a.test': {}, 'A.test': {} } }, /a\.test twice/],
  ] as const) {
    const path = configure(home, 'r.json', content)
    const env = environment(home, { CAISSON_REGISTRIES: path })
    const error = t.throws<Failure>(() => endpoints('a.test', env), undefined, String(said_))
    t.is(error.code, 'ERR_INVALID_OPTION')
    t.regex(error.message, said_)
    t.true(error.message.startsWith(path) || error.message.includes('none.pem'), error.message)
    t.false(error.message.includes('pw1234'))
  }
})

test('docker’s certs.d', (t) => {
  const home = scratch(t)
  const env = environment(home)
  const at = '.config/docker/certs.d/a.test:5000'
  for (const name of ['one.crt', 'two.crt', 'me.cert', 'me.key']) configure(home, `${at}/${name}`, name)
  t.like(endpoints('a.test:5000', env, false)[0]?.tls, {
    ca: ['one.crt', 'two.crt'],
    client: { cert: 'me.cert', key: 'me.key' },
    verified: true,
  })
  t.deepEqual(endpoints('a.test', env, false)[0]?.tls.ca, [])
  // Of a user's home root takes nothing.
  t.deepEqual(endpoints('a.test:5000', env, true)[0]?.tls.ca, [])
  configure(home, `.config/docker/certs.d/b.test/me.cert`, 'x')
  t.throws(() => endpoints('b.test', env, false), { message: /has no me\.key beside it/ })
})

test('a stranger’s text steers nothing, and is short', (t) => {
  t.is(said('plain ü €'), 'plain ü €')
  t.is(said('\u001b]0;x\u0007\r\n\u0085'), '\\x1b]0;x\\x07\\x0d\\x0a\\x85')
  t.is(said('\u202eabc\u2069\ud800'), '\\u{202e}abc\\u{2069}\\u{d800}')
  t.is(said('x'.repeat(2000)).length, 1027)
  const secrets = new Secrets()
  secrets.add('pass', 'user')
  secrets.add('password')
  secrets.add('')
  secrets.add(undefined)
  t.is(
    secrets.redact('password pass user:pass dXNlcjpwYXNz'),
    '*** *** user:*** ***'.replace('user:***', '***'),
  )
})

test('JSON of others: an object, not deep, and read by own fields', (t) => {
  const parse = (text: string) => parseObject(Buffer.from(text))
  t.deepEqual(parse('{"a":"]]{{\\""}'), { a: ']]{{"' })
  for (const text of ['[]', '1', 'null', '{', '"x"']) t.is(parse(text), undefined, text)
  t.is(parseObject(Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x7d])), undefined)
  t.truthy(parse(`{"a":${'['.repeat(63)}${']'.repeat(63)}}`))
  t.is(parse(`{"a":${'['.repeat(64)}${']'.repeat(64)}}`), undefined)
})
