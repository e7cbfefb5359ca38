/** Logins: where they are found, in which order, through which program; and how they are kept. */
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  statSync,
  symlinkSync,
} from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import type { ExecutionContext } from 'ava'
import { erase, find, store } from '../../src/registry/credentials.ts'
import { client, configure, environment, scratch, told } from './scene.ts'
import type { Failure } from './scene.ts'
import { refuse, serve } from './server.ts'

const auth = (text: string): { auth: string } => ({ auth: Buffer.from(text).toString('base64') })
const password = (username: string, word: string) => ({ kind: 'password', username, password: word })

async function found(env: Record<string, string>, host: string, repository?: string): Promise<unknown> {
  return (await find(host, repository, { env, strict: false })).login
}

/** A credential helper that is this shell script; answers the environment in which it is found. */
function helper(home: string, name: string, script: string): Record<string, string> {
  const path = configure(home, `bin/docker-credential-${name}`, `#!/bin/sh\n${script}\n`)
  chmodSync(path, 0o755)
  return environment(home, { PATH: `${home}/bin:${process.env.PATH}` })
}

test('docker’s file: by host, without scheme and path, the very key first', async (t) => {
  const home = scratch(t)
  const env = environment(home)
  t.is(await found(env, 'a.test'), undefined)
  configure(home, '.docker/config.json', {
    auths: {
      'https://a.test/v1/': auth('old:x'),
      'a.test': auth('user:pa:ss\0'),
      'b.test:5000': { username: 'u', password: 'p' },
      'https://index.docker.io/v1/': auth('hub:h'),
      'c.test': { ...auth('<token>:'), identitytoken: 'identity' },
      'd.test': { registrytoken: 'ready' },
      'e.test': {},
    },
    psFormat: 'x',
  })
  t.deepEqual(await found(env, 'a.test'), password('user', 'pa:ss'))
  t.deepEqual(await found(env, 'b.test:5000'), password('u', 'p'))
  t.is(await found(env, 'b.test'), undefined)
  t.is(await found(env, 'test'), undefined)
  t.is(await found(env, 'x.a.test'), undefined)
  for (const name of ['docker.io', 'index.docker.io', 'registry-1.docker.io'])
    t.deepEqual(await found(env, name), password('hub', 'h'))
  t.deepEqual(await found(env, 'c.test'), { kind: 'identity', token: 'identity', username: '<token>' })
  t.deepEqual(await found(env, 'd.test'), { kind: 'registry', token: 'ready' })
  t.is(await found(env, 'e.test'), undefined)
  const moved = { ...env, DOCKER_CONFIG: join(home, 'elsewhere') }
  t.is(await found(moved, 'a.test'), undefined)
  configure(home, 'elsewhere/config.json', { auths: { 'a.test': auth('other:o') } })
  t.deepEqual(await found(moved, 'a.test'), password('other', 'o'))
  const inline = { ...env, DOCKER_AUTH_CONFIG: JSON.stringify({ auths: { 'a.test': auth('first:f') } }) }
  t.deepEqual(await found(inline, 'a.test'), password('first', 'f'))
  t.deepEqual(await found(inline, 'b.test:5000'), password('u', 'p'))
})

test('podman’s file: the longest key by whole words, and only after docker’s', async (t) => {
  const home = scratch(t)
  const env = environment(home, { REGISTRY_AUTH_FILE: join(home, 'auth.json') })
  configure(home, 'auth.json', {
    auths: {
      'a.test/ns/repo': auth('repo:r'),
      'a.test/ns': auth('ns:n'),
      'a.test': auth('all:a'),
      'b.test/ns': auth('b:b'),
      'docker.io': auth('hub:h'),
    },
  })
  t.deepEqual(await found(env, 'a.test', 'ns/repo'), password('repo', 'r'))
  t.deepEqual(await found(env, 'a.test', 'ns/repository'), password('ns', 'n'))
  t.deepEqual(await found(env, 'a.test', 'nsx'), password('all', 'a'))
  t.deepEqual(await found(env, 'a.test'), password('all', 'a'))
  t.is(await found(env, 'b.test', 'other'), undefined)
  t.deepEqual(await found(env, 'docker.io', 'library/x'), password('hub', 'h'))
  configure(home, '.docker/config.json', { auths: { 'a.test': auth('docker:d') } })
  t.deepEqual(await found(env, 'a.test', 'ns/repo'), password('docker', 'd'))
})

test('files that cannot be understood are named, and not quoted', async (t) => {
  const home = scratch(t)
  const env = environment(home)
  for (const content of [
    '{"auths":{"a.test":{"auth":"c2VjcmV0"}}}',
    '{"auths":["secret"]}',
    'secret',
    '["secret"]',
    '{"auths":{"a.test":"secret"}}',
  ]) {
    const path = configure(home, '.docker/config.json', content)
    const error = await t.throwsAsync<Failure>(found(env, 'a.test'), undefined, content)
    t.is(error.code, 'ERR_INVALID_OPTION')
    t.true(error.message.startsWith(path), error.message)
    t.false(/secret|c2VjcmV0/.test(told(error)))
  }
  const inline = { ...env, DOCKER_AUTH_CONFIG: '{secret' }
  const error = await t.throwsAsync<Failure>(found(inline, 'a.test'))
  t.regex(error.message, /DOCKER_AUTH_CONFIG: is no JSON object/)
})

test('a helper: its own before that for all, the registry on its stdin, little of the environment', async (t) => {
  const home = scratch(t)
  const script = `[ "$1" = get ] || exit 9
read -r server; env >'${home}/env'; printf '%s' "$server" >'${home}/server'; echo '{"ServerURL":"x","Username":"'$0'","Secret":"p"}'`
  const env = {
    ...helper(home, 'own', script),
    ...helper(home, 'all', script),
    LD_PRELOAD: '/nowhere.so',
    NODE_OPTIONS: '--require=/nowhere',
    AWS_PROFILE: 'work',
  }
  configure(home, '.docker/config.json', {
    credsStore: 'all',
    credHelpers: { 'a.test': 'own' },
    auths: { 'a.test': auth('file:f') },
  })
  t.deepEqual(await found(env, 'a.test'), password(`${home}/bin/docker-credential-own`, 'p'))
  t.is(readFileSync(join(home, 'server'), 'utf8'), 'a.test')
  t.deepEqual(await found(env, 'docker.io'), password(`${home}/bin/docker-credential-all`, 'p'))
  t.is(readFileSync(join(home, 'server'), 'utf8'), 'https://index.docker.io/v1/')
  const seen = readFileSync(join(home, 'env'), 'utf8')
  t.regex(seen, /^AWS_PROFILE=work$/m)
  t.false(/LD_PRELOAD|NODE_OPTIONS|CAISSON/.test(seen), seen)
})

test('a helper that has a token, knows nothing, fails, does not end, or does not stop', async (t) => {
  const home = scratch(t)
  configure(home, '.docker/config.json', { credsStore: 'x', auths: { 'a.test': auth('file:f') } })
  const asked = async (script: string): Promise<{ login: unknown; trouble: string | undefined }> => {
    const env = helper(home, 'x', script)
    return find('a.test', undefined, { env, strict: false, limit: 500 })
  }
  const token = await asked(`echo '{"Username":"<token>","Secret":"s"}'`)
  t.deepEqual(token, { login: { kind: 'identity', token: 's' }, trouble: undefined })
  const file = password('file', 'f')
  t.deepEqual(await asked('echo credentials not found in native keychain; exit 1'), {
    login: file,
    trouble: undefined,
  })
  for (const [script, said] of [
    ['echo the keyring is locked; exit 1', /x: get ended with 1: the keyring is locked/],
    [`printf 'a\\033[2Jb'; exit 1`, /ended with 1: a\\x1b\[2Jb/],
    [`echo '{"Username":"u","Secret":"hunter2"}'; exit 1`, /ended with 1$/],
    ['echo hunter2', /printed no Username and Secret/],
    ['sleep 60 & sleep 60', /did not end within 0\.5 s/],
    [
      'while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done',
      /printed more than 65536/,
    ],
    ['kill -9 $$', /ended with SIGKILL/],
  ] as const) {
    const start = performance.now()
    const { login, trouble = '' } = await asked(script)
    t.deepEqual(login, file)
    t.regex(trouble, said)
    t.false(trouble.includes('hunter2'))
    t.true(performance.now() - start < 5000)
  }
  for (const name of ['../x', 'a b', '$(id)', '']) {
    configure(home, '.docker/config.json', { credHelpers: { 'a.test': name } })
    const { trouble } = await find('a.test', undefined, { env: environment(home), strict: false })
    if (name !== '') t.regex(trouble ?? '', /is no name of a credential helper/)
  }
  configure(home, '.docker/config.json', { credsStore: 'missing' })
  const { trouble } = await find('a.test', undefined, { env: environment(home), strict: false })
  t.regex(trouble ?? '', /docker-credential-missing: is not on PATH/)
})

test('a helper that fails is told where a login is missed, and nowhere else', async (t) => {
  const registry = await serve(t)
  registry.manifest('some/image', '1', '{}')
  const home = scratch(t)
  configure(home, '.docker/config.json', { credsStore: 'missing' })
  const one = client(t, registry.host, { env: environment(home) })
  await one.manifest('some/image', '1')
  registry.fault = (_, response) => {
    response.setHeader('www-authenticate', 'Basic realm="x"')
    return refuse(response, 401, 'UNAUTHORIZED', 'who?')
  }
  const error = await t.throwsAsync<Failure>(one.manifest('some/image', '1'))
  t.regex(error.message, /caisson login .*\(docker-credential-missing: is not on PATH/)
})

test('root runs no helper that others could have put there', async (t) => {
  const home = scratch(t)
  configure(home, '.docker/config.json', { credsStore: 'x' })
  const env = helper(home, 'x', `touch '${home}/ran'; echo '{"Username":"u","Secret":"s"}'`)
  const ask = () => find('a.test', undefined, { env, strict: true })
  const loose: [string, number, number][] = [
    [join(home, 'bin'), 0o777, 0o755],
    [join(home, 'bin'), 0o775, 0o755],
    [join(home, 'bin/docker-credential-x'), 0o777, 0o755],
    [home, 0o777, 0o700],
  ]
  for (const [path, mode, after] of loose) {
    chmodSync(path, mode)
    const { trouble } = await ask()
    t.regex(trouble ?? '', /can be changed by others than root: not run as root/, path)
    chmodSync(path, after)
  }
  t.false(existsSync(join(home, 'ran')))
  // A relative place on PATH is nobody's.
  const relative = { ...env, PATH: `${process.cwd() === home ? '.' : 'bin'}:` }
  t.regex((await find('a.test', undefined, { env: relative, strict: true })).trouble ?? '', /is not on PATH/)
  if (process.geteuid?.() === 0) t.deepEqual((await ask()).login, password('u', 's'))
})

test('a login is kept as docker keeps it: other keys stay, the file is for its owner', async (t) => {
  const home = scratch(t)
  const env = environment(home)
  const path = join(home, '.docker/config.json')
  const kept = await store('a.test', { username: 'user', password: 'pa:ss' }, { env })
  t.deepEqual(kept, { place: path, plain: true, shadowed: undefined })
  t.is(statSync(path).mode & 0o7777, 0o600)
  t.is(statSync(join(home, '.docker')).mode & 0o7777, 0o700)
  t.deepEqual(await found(env, 'a.test'), password('user', 'pa:ss'))
  const before = {
    psFormat: 'x',
    auths: { 'https://a.test/v1/': auth('old:o'), 'b.test': auth('b:b') },
    proxies: { default: {} },
  }
  configure(home, '.docker/config.json', before)
  chmodSync(path, 0o644)
  await store('a.test', { identityToken: 'identity', username: 'user' }, { env })
  t.is(statSync(path).mode & 0o7777, 0o600)
  t.deepEqual(JSON.parse(readFileSync(path, 'utf8')), {
    ...before,
    auths: { 'b.test': auth('b:b'), 'a.test': { ...auth('user:'), identitytoken: 'identity' } },
  })
  await store('docker.io', { username: 'hub', password: 'h' }, { env })
  t.deepEqual(await found(env, 'docker.io'), password('hub', 'h'))
  t.true(readFileSync(path, 'utf8').includes('"https://index.docker.io/v1/"'))
  t.true(await erase('docker.io', { env }))
  t.true(await erase('a.test', { env }))
  t.false(await erase('a.test', { env }))
  t.is(await found(env, 'a.test'), undefined)
  t.deepEqual(await found(env, 'b.test'), password('b', 'b'))
  t.deepEqual(readdirSync(join(home, '.docker')), ['config.json'])
  const inline = { ...env, DOCKER_AUTH_CONFIG: '{}' }
  t.is(
    (await store('a.test', { username: 'u', password: 'p' }, { env: inline })).shadowed,
    'DOCKER_AUTH_CONFIG',
  )
})

test('a link stays a link, and a file that is not understood stays as it is', async (t) => {
  const home = scratch(t)
  const env = environment(home)
  const target = configure(home, 'dotfiles/docker.json', { psFormat: 'x' })
  mkdirSync(join(home, '.docker'))
  const path = join(home, '.docker/config.json')
  symlinkSync(target, path)
  await store('a.test', { username: 'u', password: 'p' }, { env })
  t.true(lstatSync(path).isSymbolicLink())
  t.deepEqual(JSON.parse(readFileSync(target, 'utf8')), { psFormat: 'x', auths: { 'a.test': auth('u:p') } })
  configure(home, 'dotfiles/docker.json', '{broken')
  await t.throwsAsync(store('a.test', { username: 'u', password: 'p' }, { env }), {
    code: 'ERR_INVALID_OPTION',
  })
  t.is(readFileSync(target, 'utf8'), '{broken')
  for (const given of [
    { username: '', password: 'p' },
    { username: 'a:b', password: 'p' },
    { username: 'u', password: '' },
  ])
    await t.throwsAsync(store('b.test', given, { env }), { code: 'ERR_INVALID_OPTION' })
})

test('a helper keeps and forgets it instead', async (t) => {
  const home = scratch(t)
  const env = helper(home, 'x', `cat >'${home}/'$1`)
  configure(home, '.docker/config.json', { credsStore: 'x' })
  const options = { env, strict: false }
  const kept = await store('a.test', { username: 'user', password: 'hunter2' }, options)
  t.deepEqual(kept, { place: 'docker-credential-x', plain: false, shadowed: undefined })
  t.deepEqual(JSON.parse(readFileSync(join(home, 'store'), 'utf8')), {
    ServerURL: 'a.test',
    Username: 'user',
    Secret: 'hunter2',
  })
  const config = readFileSync(join(home, '.docker/config.json'), 'utf8')
  t.deepEqual(JSON.parse(config), { credsStore: 'x', auths: { 'a.test': {} } })
  await store('a.test', { identityToken: 'identity' }, options)
  t.regex(readFileSync(join(home, 'store'), 'utf8'), /"Username":"<token>","Secret":"identity"/)
  t.true(await erase('a.test', options))
  t.is(readFileSync(join(home, 'erase'), 'utf8'), 'a.test')
  noSecret(t, home)
})

function noSecret(t: ExecutionContext, home: string): void {
  t.false(readFileSync(join(home, '.docker/config.json'), 'utf8').includes('hunter2'))
}
