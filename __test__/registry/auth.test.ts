/** What a registry is shown, and who else is not: security.md D10. */
import { setTimeout as sleep } from 'node:timers/promises'
import test from 'ava'
import type { ExecutionContext } from 'ava'
import { parseChallenges } from '../../src/registry/challenge.ts'
import { certificate, client, configure, environment, scratch, short, told } from './scene.ts'
import type { Failure } from './scene.ts'
import { refuse, serve } from './server.ts'
import type { FakeRegistry, Fault } from './server.ts'

const password = 's3cr3t+pass'
const login = { kind: 'password', username: 'user', password } as const

/** Wants this token, which is to be had at that realm. */
function wants(realm: () => string, token: () => string = () => 'good', scope = ''): Fault {
  return ({ headers }, response) => {
    if (headers.authorization === `Bearer ${token()}`) return false
    const more = scope === '' ? '' : `,scope="${scope}"`
    response.setHeader('www-authenticate', `Bearer realm="${realm()}",service="some, service"${more}`)
    return refuse(response, 401, 'UNAUTHORIZED', 'authentication required')
  }
}

function grants(token: () => string, more: object = {}): Fault {
  return (_, response) => {
    response.end(JSON.stringify({ token: token(), ...more }))
    return true
  }
}

/** A registry and its token service. */
async function pair(
  t: ExecutionContext,
  service: Fault,
): Promise<{ registry: FakeRegistry; tokens: FakeRegistry }> {
  const tokens = await serve(t, { fault: service })
  const registry = await serve(t, { fault: wants(() => `${tokens.origin}/token?x=1`) })
  registry.manifest('some/image', '1', '{}')
  return { registry, tokens }
}

test('challenges: several, in one header or more, with commas in quotes, in any case', (t) => {
  const parsed = (...headers: string[]): unknown =>
    parseChallenges(headers).map(({ scheme, parameters }) => [scheme, Object.fromEntries(parameters)])
  t.deepEqual(parsed('Bearer realm="https://a/t",service="s",scope="repository:x:pull,push"'), [
    ['bearer', { realm: 'https://a/t', service: 's', scope: 'repository:x:pull,push' }],
  ])
  t.deepEqual(parsed('bEARER REALM = "r" , Service=s, Basic realm="a \\"b\\", c"', 'Negotiate'), [
    ['bearer', { realm: 'r', service: 's' }],
    ['basic', { realm: 'a "b", c' }],
    ['negotiate', {}],
  ])
  t.deepEqual(parsed('Negotiate, Basic realm=x, realm=y'), [
    ['negotiate', {}],
    ['basic', { realm: 'x' }],
  ])
  t.deepEqual(parsed('', ',,,', '"', '==,', 'Basic realm="open'), [['basic', { realm: 'open' }]])
  const start = Date.now()
  for (const text of ['a=', '"', '\\"', 'x ', ', ', 'Basic realm="'])
    t.true(parseChallenges([text.repeat(100_000)]).length <= 16)
  t.true(Date.now() - start < 2000)
})

test('Basic, where the registry wants it', async (t) => {
  const registry = await serve(t, {
    fault: ({ headers }, response) => {
      if (headers.authorization === `Basic ${Buffer.from(`user:${password}`).toString('base64')}`)
        return false
      response.setHeader('www-authenticate', ['Negotiate', 'Basic realm="x"'])
      return refuse(response, 401, 'UNAUTHORIZED', 'who?')
    },
  })
  registry.manifest('some/image', '1', '{}')
  const known = client(t, registry.host, { login })
  await known.manifest('some/image', '1')
  await known.manifest('some/image', '1')
  t.is(registry.seen.length, 3)
  const wrong = client(t, registry.host, { login: { ...login, password: 'other' } })
  await t.throwsAsync(wrong.manifest('some/image', '1'), { code: 'ERR_REGISTRY_AUTH' })
  t.is(registry.seen.length, 5)
})

test('a token is asked for once by all who need it, and again when it ran out', async (t) => {
  const { registry, tokens } = await pair(t, async (_, response) => {
    await sleep(50)
    response.end('{"access_token":"good","expires_in":3600}')
    return true
  })
  const one = client(t, registry.host, { login })
  await Promise.all([1, 2, 3].map(() => one.manifest('some/image', '1')))
  t.is(tokens.seen.length, 1)
  const { searchParams } = new URL(tokens.seen[0]?.url ?? '', 'http://x')
  t.deepEqual(
    [...searchParams],
    [
      ['x', '1'],
      ['service', 'some, service'],
      ['scope', 'repository:some/image:pull'],
      ['account', 'user'],
    ],
  )
  t.is(tokens.seen[0]?.headers.authorization, `Basic ${Buffer.from(`user:${password}`).toString('base64')}`)
  t.false(registry.knows(password))
  // Another repository, another token.
  await t.throwsAsync(one.manifest('other/image', '1'), { code: 'ERR_IMAGE_NOT_FOUND' })
  t.is(tokens.seen.length, 2)
})

test('a token that is not taken any more is replaced once', async (t) => {
  let token = 'one'
  const tokens = await serve(t, { fault: grants(() => token) })
  const registry = await serve(t, {
    fault: wants(
      () => tokens.origin,
      () => token,
    ),
  })
  registry.manifest('some/image', '1', '{}')
  const one = client(t, registry.host)
  await one.manifest('some/image', '1')
  token = 'two'
  await one.manifest('some/image', '1')
  t.is(tokens.seen.length, 2)
  registry.fault = wants(
    () => tokens.origin,
    () => 'another',
  )
  await t.throwsAsync(one.manifest('some/image', '1'), { code: 'ERR_REGISTRY_AUTH' })
  t.true(tokens.seen.length <= 4)
})

test('one who gives up takes the token from nobody else', async (t) => {
  const { registry } = await pair(t, async (_, response) => {
    await sleep(200)
    response.end('{"token":"good"}')
    return true
  })
  const one = client(t, registry.host)
  const controller = new AbortController()
  const [given, kept] = [
    one.manifest('some/image', '1', { signal: controller.signal }),
    one.manifest('some/image', '1'),
  ]
  setTimeout(() => controller.abort(new Error('enough')), 100)
  await t.throwsAsync(given, { message: 'enough' })
  t.is((await kept).bytes.toString(), '{}')
})

test('the scope of the challenge is asked for as well', async (t) => {
  const tokens = await serve(t, { fault: grants(() => 'good') })
  const registry = await serve(t, {
    fault: wants(
      () => tokens.origin,
      () => 'good',
      'repository:a:pull registry:catalog:*',
    ),
  })
  registry.manifest('some/image', '1', '{}')
  await client(t, registry.host).manifest('some/image', '1')
  t.deepEqual(new URL(tokens.seen[0]?.url ?? '', 'http://x').searchParams.getAll('scope'), [
    'repository:some/image:pull',
    'repository:a:pull',
    'registry:catalog:*',
  ])
})

test('identity tokens are sent as a form, else as a password, and to nobody but the realm', async (t) => {
  for (const status of [200, 400, 401, 404, 405]) {
    const { registry, tokens } = await pair(t, ({ method }, response) => {
      if (method === 'POST' && status !== 200) return refuse(response, status, 'UNSUPPORTED', 'no')
      response.end('{"token":"good"}')
      return true
    })
    await client(t, registry.host, { login: { kind: 'identity', token: 'renew+1' } }).manifest(
      'some/image',
      '1',
    )
    t.deepEqual(
      tokens.seen.map(({ method }) => method),
      status === 200 ? ['POST'] : ['POST', 'GET'],
    )
    t.deepEqual(
      [...new URLSearchParams(tokens.seen[0]?.body.toString())],
      [
        ['grant_type', 'refresh_token'],
        ['client_id', 'caisson'],
        ['service', 'some, service'],
        ['scope', 'repository:some/image:pull'],
        ['refresh_token', 'renew+1'],
      ],
    )
    t.false(registry.knows('renew+1'))
  }
})

test('a registry token is shown to the registry alone', async (t) => {
  const { registry, tokens } = await pair(
    t,
    grants(() => 'never'),
  )
  const ready = client(t, registry.host, { login: { kind: 'registry', token: 'good' } })
  await ready.manifest('some/image', '1')
  t.is(tokens.seen.length, 0)
  const wrong = client(t, registry.host, { login: { kind: 'registry', token: 'bad1234' } })
  const error = await t.throwsAsync<Failure>(wrong.manifest('some/image', '1'))
  t.is(error.code, 'ERR_REGISTRY_AUTH')
  t.false(told(error).includes('bad1234'))
})

test('a realm without TLS on another host gets no password', async (t) => {
  const sink = await serve(t, { address: '127.0.0.2', fault: grants(() => 'good') })
  const registry = await serve(t, { fault: wants(() => `${sink.origin}/token`) })
  registry.manifest('some/image', '1', '{}')
  for (const shown of [login, { kind: 'identity', token: password }] as const) {
    const error = await t.throwsAsync<Failure>(
      client(t, registry.host, { login: shown }).manifest('some/image', '1'),
    )
    t.is(error.code, 'ERR_REGISTRY_AUTH')
    t.regex(error.message, /another host, without TLS/)
  }
  t.is(sink.seen.length, 0)
  // Nobody has nothing to lose.
  await client(t, registry.host, { login: null }).manifest('some/image', '1')
  t.is(sink.seen.length, 1)
})

test('a realm without TLS of a registry with TLS is not asked at all', async (t) => {
  const sink = await serve(t, { fault: grants(() => 'good') })
  const tls = certificate(scratch(t), 'server')
  const registry = await serve(t, { tls, fault: wants(() => `${sink.origin}/token`) })
  for (const shown of [login, null]) {
    const error = await t.throwsAsync<Failure>(
      client(t, registry.host, { login: shown }).manifest('some/image', '1'),
    )
    t.is(error.code, 'ERR_REGISTRY_AUTH')
    t.regex(error.message, /has no TLS: nothing is sent there/)
  }
  t.is(sink.seen.length, 0)
})

test('realms that are none', async (t) => {
  for (const [realm, said] of [
    ['https://169.254.169.254/token', /this machine's own network/],
    ['http://user:pw@127.0.0.1/', /password in its URL/],
    ['file:///etc/passwd', /has no TLS/],
    ['token', /names no token service/],
    ['', /names no token service/],
  ] as const) {
    const registry = await serve(t, { fault: wants(() => realm) })
    const error = await t.throwsAsync<Failure>(
      client(t, registry.host, { login }).manifest('some/image', '1'),
    )
    t.is(error.code, 'ERR_REGISTRY_AUTH', realm)
    t.regex(error.message, said)
  }
})

test('where a token service leads to, the password does not go', async (t) => {
  const sink = await serve(t, { address: '127.0.0.2', fault: grants(() => 'good') })
  const { registry } = await pair(t, ({ method, url }, response) => {
    if (method === 'POST') return refuse(response, 404, 'UNSUPPORTED', 'no')
    response.writeHead(302, { location: `${sink.origin}${url}` }).end()
    return true
  })
  for (const shown of [login, { kind: 'identity', token: password, username: 'user' }] as const)
    await client(t, registry.host, { login: shown }).manifest('some/image', '1')
  t.is(sink.seen.length, 2)
  t.false(sink.knows(password))
})

test('a mirror is shown what is for the mirror', async (t) => {
  const basic: Fault = ({ headers }, response) => {
    if (headers.authorization !== undefined) return false
    response.setHeader('www-authenticate', 'Basic realm="x"')
    return refuse(response, 401, 'UNAUTHORIZED', 'who?')
  }
  const [mirror, registry] = [await serve(t, { fault: basic }), await serve(t, { fault: basic })]
  registry.manifest('some/image', '1', '{}')
  const home = scratch(t)
  const registries = { [registry.host]: { mirrors: [mirror.origin] } }
  const auth = (text: string): object => ({ auth: Buffer.from(text).toString('base64') })
  configure(home, '.docker/config.json', { auths: { [registry.host]: auth(`user:${password}`) } })
  const env = environment(home, { CAISSON_REGISTRIES: configure(home, 'r.json', { registries }) })
  for (const options of [{ env }, { env, login }]) {
    await client(t, registry.host, options).manifest('some/image', '1')
    t.true(registry.knows(password))
    t.false(mirror.knows(password))
  }
  t.true(mirror.seen.length > 0)
})

test('token services that answer nonsense, too much, or not', async (t) => {
  const answers: [string, Fault, RegExp][] = [
    ['no token', (_, response) => !!response.end('{"tok":"x"}'), /answered without a token/],
    ['no JSON', (_, response) => !!response.end('<html>'), /answered without a token/],
    ['no header', (_, response) => !!response.end('{"token":"a\\r\\nx: y"}'), /answered without a token/],
    [
      'too large',
      (_, response) => !!response.end(`{"token":"${'x'.repeat(1 << 20)}"}`),
      /larger than 1048576/,
    ],
    [
      'endless',
      (_, response) => {
        response.writeHead(200)
        const more = (): void => {
          while (response.write('x'.repeat(65_536)));
        }
        response.on('drain', more)
        more()
        return true
      },
      /larger than 1048576/,
    ],
    ['silent', () => true, /did not answer within 0\.5 s/],
    [
      'drip by drip',
      (_, response) => {
        response.writeHead(200)
        const timer = setInterval(() => response.write(' '), 50)
        response.on('close', () => clearInterval(timer))
        return true
      },
      /did not answer within 0\.5 s/,
    ],
  ]
  for (const [what, fault, said] of answers) {
    const { registry } = await pair(t, fault)
    const one = client(t, registry.host, { login, limits: { token: 500 } })
    const error = await t.throwsAsync<Failure>(one.manifest('some/image', '1'), undefined, what)
    t.is(error.code, 'ERR_REGISTRY_AUTH', what)
    t.regex(error.message, said, what)
  }
  t.is(short.token, 4000)
})

test('what is secret is in no error, however it comes back', async (t) => {
  const base64 = Buffer.from(`user:${password}`).toString('base64')
  const echo = `${password} ${base64} ${encodeURIComponent(password)} s3cr3t%2Bpass Basic ${base64}`
  const { registry, tokens } = await pair(t, (_, response) => refuse(response, 401, 'DENIED', `not ${echo}`))
  const failures: unknown[] = []
  failures.push(await t.throwsAsync(client(t, registry.host, { login }).manifest('some/image', '1')))
  tokens.fault = grants(() => 'secrettoken1')
  registry.fault = wants(
    () => tokens.origin,
    () => 'secrettoken1',
  )
  const one = client(t, registry.host, { login, limits: { attempts: 1 } })
  await one.manifest('some/image', '1')
  for (const status of [400, 403, 404, 429, 500]) {
    registry.fault = (_, response) => refuse(response, status, 'DENIED', `not ${echo} secrettoken1`)
    failures.push(await t.throwsAsync(one.manifest('some/image', '1')))
  }
  for (const failure of failures) {
    const text = told(failure)
    t.true(text.includes('***'), text)
    for (const secret of [password, base64, encodeURIComponent(password), 'secrettoken1'])
      t.false(text.includes(secret), text)
  }
})
