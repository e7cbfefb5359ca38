/** The client against Debian's docker-registry: what is pushed is pulled again, with each way to be let in. */
import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { promisify } from 'node:util'
import test from 'ava'
import type { ExecutionContext } from 'ava'
import type { Registry } from '../../src/registry/registry.ts'
import { debian, user } from './debian.ts'
import { blobOf, certificate, client, configure, digestOf, environment, scratch, told } from './scene.ts'
import type { Failure } from './scene.ts'

const manifestType = 'application/vnd.oci.image.manifest.v1+json'

/** Pushes an image of one config and one layer; answers what it consists of. */
async function pushed(registry: Registry, name: string, tag: string, chunkSize?: number) {
  const config = blobOf('{"architecture":"amd64","os":"linux"}')
  const layer = blobOf(randomBytes(300_000))
  for (const { bytes, digest, size } of [config, layer]) {
    await registry.upload(
      name,
      { digest, size },
      async function* () {
        for (let at = 0; at < size; at += 70_000) yield bytes.subarray(at, at + 70_000)
      },
      { chunkSize },
    )
  }
  const describe = ({ digest, size }: { digest: string; size: number }, mediaType: string): object => ({
    mediaType,
    digest,
    size,
  })
  const bytes = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: manifestType,
      config: describe(config, 'application/vnd.oci.image.config.v1+json'),
      layers: [describe(layer, 'application/vnd.oci.image.layer.v1.tar')],
    }),
  )
  const digest = await registry.putManifest(name, tag, bytes, manifestType)
  return { config, layer, bytes, digest }
}

async function pulled(
  t: ExecutionContext,
  registry: Registry,
  name: string,
  tag: string,
  image: Awaited<ReturnType<typeof pushed>>,
) {
  const served = await registry.manifest(name, tag)
  t.is(served.digest, image.digest)
  t.is(served.mediaType, manifestType)
  t.deepEqual(served.bytes, image.bytes)
  t.is(await registry.head(name, tag), image.digest)
  t.deepEqual(await registry.blob(name, image.config), image.config.bytes)
  for (const offset of [0, 100_001]) {
    const { body, start } = await registry.open(name, image.layer, offset)
    t.is(start, offset)
    const chunks: Buffer[] = []
    for await (const chunk of body as AsyncIterable<Buffer>) chunks.push(chunk)
    t.true(Buffer.concat(chunks).equals(image.layer.bytes.subarray(offset)))
  }
}

test('plain: push in one request and in chunks, pull, mount, list', async (t) => {
  const { host } = await debian(t)
  const registry = client(t, host)
  await registry.ping()
  for (const [tag, chunkSize] of [
    ['whole', undefined],
    ['chunks', 100_000],
  ] as const) {
    const image = await pushed(registry, 'some/image', tag, chunkSize)
    await pulled(t, registry, 'some/image', tag, image)
    const { digest } = image.layer
    t.true(await registry.hasBlob('some/image', digest))
    t.false(await registry.hasBlob('other/image', digest))
    t.true(await registry.mount('other/image', digest, 'some/image'))
    t.true(await registry.hasBlob('other/image', digest))
    t.deepEqual(await registry.referrers('some/image', image.digest), [])
  }
  t.deepEqual((await registry.tags('some/image')).toSorted(), ['chunks', 'whole'])
  // This registry has no list of what refers to an image, and shows an index only to who says that he takes one.
  const subject = await pushed(registry, 'some/image', 'subject', undefined)
  const mediaType = 'application/vnd.oci.image.index.v1+json'
  const described = { mediaType: manifestType, digest: subject.digest, size: subject.bytes.length }
  const manifests = [{ ...described, artifactType: 'a/signature' }]
  const index = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, manifests }))
  await registry.putManifest('some/image', subject.digest.replace(':', '-'), index, mediaType)
  const [found] = await registry.referrers('some/image', subject.digest)
  t.is(found?.artifactType, 'a/signature')
  // What is not there to mount is uploaded, in the session that the registry began.
  const blob = blobOf(randomBytes(1000))
  t.false(await registry.mount('third/image', blob.digest, 'some/image'))
  await registry.upload('third/image', blob, () => [blob.bytes] as unknown as AsyncIterable<Buffer>)
  t.true(await registry.hasBlob('third/image', blob.digest))
})

test('plain: what is not there is said as such', async (t) => {
  const { host } = await debian(t)
  const registry = client(t, host)
  const error = await t.throwsAsync<Failure>(registry.manifest('some/image', 'none'))
  t.is(error.code, 'ERR_IMAGE_NOT_FOUND')
  t.true(error.message.startsWith(`${host}/some/image:none: not found`), error.message)
  t.is(await registry.head('some/image', 'none'), undefined)
  await t.throwsAsync(registry.blob('some/image', blobOf('nothing')), { code: 'ERR_REGISTRY' })
  await t.throwsAsync(registry.tags('some/image'), { code: 'ERR_IMAGE_NOT_FOUND' })
})

test('plain: bytes that are not the digest are refused by the registry, and the upload is given up', async (t) => {
  const { host } = await debian(t)
  const registry = client(t, host)
  const right = blobOf('right')
  const lying = registry.upload('some/image', right, async function* () {
    yield Buffer.from('wrong')
  })
  const error = await t.throwsAsync<Failure>(lying)
  t.is(error.code, 'ERR_REGISTRY')
  t.regex(error.message, /digest_invalid/)
  t.false(await registry.hasBlob('some/image', right.digest))
})

test('htpasswd: by config.json, and not without or with a wrong password', async (t) => {
  const { host } = await debian(t, { auth: 'htpasswd' })
  const home = scratch(t)
  const auth = Buffer.from('user:secret').toString('base64')
  configure(home, '.docker/config.json', { auths: { [host]: { auth } } })
  const registry = client(t, host, { env: environment(home) })
  await registry.ping()
  await pulled(t, registry, 'some/image', '1', await pushed(registry, 'some/image', '1'))
  const stranger = client(t, host)
  const error = await t.throwsAsync<Failure>(stranger.manifest('some/image', '1'))
  t.is(error.code, 'ERR_REGISTRY_AUTH')
  t.true(error.message.includes(`caisson login ${host}`))
  const wrong = client(t, host, { login: { kind: 'password', username: 'user', password: 'hunter2' } })
  const refused = await t.throwsAsync<Failure>(wrong.ping())
  t.is(refused.code, 'ERR_REGISTRY_AUTH')
  t.false(told(refused).includes('hunter2'))
})

test('TLS: by an authority in registries.json, by insecure; not by trust', async (t) => {
  const home = scratch(t)
  const authority = certificate(home, 'authority')
  const { host } = await debian(t, { tls: certificate(home, 'server', authority) })
  const strict = (more: object): Record<string, string> => ({
    ...environment(home),
    CAISSON_REGISTRIES: configure(home, 'registries.json', {
      registries: { [host]: { insecure: false, ...more } },
    }),
  })
  const registry = client(t, host, { env: strict({ ca: 'authority.crt' }) })
  await pulled(t, registry, 'some/image', '1', await pushed(registry, 'some/image', '1'))
  const untrusting = client(t, host, { env: strict({}) })
  const error = await t.throwsAsync<Failure>(untrusting.manifest('some/image', '1'))
  t.is(error.code, 'ERR_REGISTRY')
  t.regex(error.message, /certificate of .* is not good.*certs\.d/)
  // On this machine, as docker has it, nobody needs to have signed anything.
  const lax = client(t, host, { env: environment(home) })
  t.is((await lax.manifest('some/image', '1')).mediaType, manifestType)
})

test('TLS: by this machine’s authorities, which Node does not know', async (t) => {
  const home = scratch(t)
  const authority = certificate(home, 'authority')
  const { host } = await debian(t, { tls: certificate(home, 'server', authority) })
  const registries = { [host]: { insecure: false } }
  const env = { ...environment(home), CAISSON_REGISTRIES: configure(home, 'r.json', { registries }) }
  const source = new URL('../../src/registry/registry.ts', import.meta.url).href
  const script = `import { Registry } from ${JSON.stringify(source)}
    await new Registry(${JSON.stringify(host)}).ping(); console.log('trusted')`
  const words = ['--no-warnings', '--input-type=module', '-e', script]
  // Where OpenSSL looks for the machine's.
  const options = { timeout: 20_000, env: { ...env, SSL_CERT_FILE: authority.certPath } }
  t.is((await promisify(execFile)(process.execPath, words, options)).stdout, 'trusted\n')
  await t.throwsAsync(promisify(execFile)(process.execPath, words, { timeout: 20_000, env }))
})

test('TLS: with a client certificate, and not without', async (t) => {
  const home = scratch(t)
  const authority = certificate(home, 'authority')
  const tls = certificate(home, 'server', authority)
  certificate(home, 'me', authority)
  const { host } = await debian(t, { tls, clients: authority })
  const own = { insecure: false, ca: 'authority.crt' }
  const env = (more: object): Record<string, string> => ({
    ...environment(home),
    CAISSON_REGISTRIES: configure(home, `${Object.keys(more).length}.json`, {
      registries: { [host]: { ...own, ...more } },
    }),
  })
  const registry = client(t, host, { env: env({ cert: 'me.crt', key: 'me.key' }) })
  await pulled(t, registry, 'some/image', '1', await pushed(registry, 'some/image', '1'))
  await t.throwsAsync(client(t, host, { env: env({}) }).ping(), { code: 'ERR_REGISTRY' })
  const mixed = client(t, host, { env: env({ cert: 'me.crt', key: 'server.key' }) })
  await t.throwsAsync(mixed.ping(), { code: 'ERR_INVALID_OPTION', message: /cannot be used/ })
})

test('tokens: with a password, with an identity token, for nobody; one token for several requests', async (t) => {
  const { host, tokens } = await debian(t, { auth: 'token' })
  const registry = client(t, host, { login: { kind: 'password', ...user } })
  await registry.ping()
  const image = await pushed(registry, 'public/image', '1')
  await pulled(t, registry, 'public/image', '1', image)
  // One for /v2/, one to push, one to pull.
  t.is(tokens?.seen.length, 3)
  const renewed = client(t, host, { login: { kind: 'identity', token: 'renewing' } })
  await pulled(t, renewed, 'public/image', '1', image)
  t.true(await renewed.mount('private/image', image.layer.digest, 'public/image'))
  await pushed(renewed, 'private/image', '1')
  const nobody = client(t, host)
  await pulled(t, nobody, 'public/image', '1', image)
  for (const act of [
    () => nobody.manifest('private/image', '1'),
    () => nobody.putManifest('public/image', '1', image.bytes, manifestType),
  ]) {
    const error = await t.throwsAsync<Failure>(act())
    t.is(error.code, 'ERR_REGISTRY_AUTH')
    t.true(error.message.includes(`caisson login ${host}`), error.message)
  }
  const wrong = client(t, host, { login: { kind: 'password', username: 'user', password: 'hunter2' } })
  const error = await t.throwsAsync<Failure>(wrong.manifest('public/image', '1'))
  t.is(error.code, 'ERR_REGISTRY_AUTH')
  t.false(told(error).includes('hunter2'))
  t.is(digestOf(image.bytes), image.digest)
})
