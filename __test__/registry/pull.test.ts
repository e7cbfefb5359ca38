/** Pulling: manifests, blobs from where they broke off, mirrors, lists. */
import test from 'ava'
import { nextLink } from '../../src/registry/lists.ts'
import { blobOf, client, configure, digestOf, environment, scratch } from './scene.ts'
import type { Failure } from './scene.ts'
import { refuse, serve } from './server.ts'
import type { FakeRegistry } from './server.ts'

test('a manifest by tag and by digest, with its type', async (t) => {
  const registry = await serve(t)
  const digest = registry.manifest('some/image', '1', '{"a":1}', 'Application/VND.test+json; charset=utf-8')
  const one = client(t, registry.host)
  const served = { bytes: Buffer.from('{"a":1}'), mediaType: 'application/vnd.test+json', digest }
  t.deepEqual(await one.manifest('some/image', '1'), served)
  t.deepEqual(await one.manifest('some/image', digest), served)
  t.is(await one.head('some/image', '1'), digest)
  t.is(await one.head('some/image', '2'), undefined)
  t.regex(registry.seen[0]?.headers.accept ?? '', /oci\.image\.index.*manifest\.list\.v2/)
  await one.manifest('some/image', '1', { accept: 'application/x' })
  t.is(registry.seen.at(-1)?.headers.accept, 'application/x')
  registry.fault = (_, response) =>
    !!response.writeHead(200, { 'docker-content-digest': 'sha256:../../x' }).end()
  t.is(await one.head('some/image', '1'), undefined)
})

test('a blob from an offset; from the beginning where the server knows no ranges', async (t) => {
  const registry = await serve(t)
  const blob = registry.blob('some content')
  const one = client(t, registry.host)
  const read = async (offset: number): Promise<[number, string]> => {
    const { body, start } = await one.open('some/image', blob, offset)
    return [start, Buffer.concat(await body.toArray()).toString()]
  }
  t.deepEqual(await read(0), [0, 'some content'])
  t.is(registry.seen.at(-1)?.headers.range, undefined)
  t.deepEqual(await read(5), [5, 'content'])
  t.is(registry.seen.at(-1)?.headers.range, 'bytes=5-')
  t.deepEqual(await read(12), [0, 'some content'])
  registry.ranges = false
  t.deepEqual(await read(5), [0, 'some content'])
  for (const offset of [-1, 13, 0.5, NaN]) await t.throwsAsync(read(offset), { code: 'ERR_INVALID_OPTION' })
})

test('names that could be more than names are sent to nobody', async (t) => {
  const registry = await serve(t)
  const one = client(t, registry.host)
  for (const name of [
    '',
    '../x',
    'a//b',
    'A/b',
    'a/../../b',
    'a?b',
    'a%2fb',
    'a/b#',
    'a b',
    'ä',
    'a'.repeat(256),
    '/a',
    'a/',
    'a\n',
  ])
    await t.throwsAsync(one.manifest(name, '1'), { code: 'ERR_INVALID_OPTION' }, name)
  for (const tag of ['', '..', '.a', '-a', 'a/b', 'a?b', 'a b', 'a'.repeat(129), 'ä'])
    await t.throwsAsync(one.manifest('a', tag), { code: 'ERR_INVALID_OPTION' }, tag)
  for (const digest of [
    'sha256:abc',
    'md5:0',
    `sha256:${'A'.repeat(64)}`,
    `sha256:../..${'a'.repeat(58)}`,
    `sha256:${'a'.repeat(65)}`,
  ]) {
    await t.throwsAsync(one.manifest('a', digest), { code: 'ERR_DIGEST' }, digest)
    await t.throwsAsync(one.blob('a', { digest, size: 1 }), { code: 'ERR_DIGEST' }, digest)
    await t.throwsAsync(one.hasBlob('a', digest), { code: 'ERR_DIGEST' }, digest)
  }
  await t.throwsAsync(one.manifest('a', `sha512:${'a'.repeat(128)}`), { code: 'ERR_UNSUPPORTED' })
  t.is(registry.seen.length, 0)
})

test('mirrors come first, and the registry behind them; what failed is said', async (t) => {
  const [bad, good, registry] = [await serve(t), await serve(t), await serve(t)] as [
    FakeRegistry,
    FakeRegistry,
    FakeRegistry,
  ]
  bad.fault = (_, response) => refuse(response, 500, 'UNKNOWN', 'broken disk')
  const home = scratch(t)
  const registries = {
    [registry.host]: { mirrors: [bad.origin, 'http://127.0.0.1:1/', `${good.origin}/some/prefix/`] },
  }
  const env = environment(home, { CAISSON_REGISTRIES: configure(home, 'r.json', { registries }) })
  const digest = good.manifest('some/prefix/some/image', '1', '{"from":"mirror"}')
  registry.manifest('some/image', '2', '{"from":"registry"}')
  const one = client(t, registry.host, { env })
  t.is((await one.manifest('some/image', '1')).digest, digest)
  t.is(registry.seen.length, 0)
  t.is(new URL(bad.seen[0]?.url ?? '', 'http://x').searchParams.get('ns'), registry.host)
  t.false(good.seen[0]?.url.includes('ns='))
  t.is((await one.manifest('some/image', '2')).bytes.toString(), '{"from":"registry"}')
  const error = await t.throwsAsync<Failure>(one.manifest('some/image', '3'))
  t.is(error.code, 'ERR_IMAGE_NOT_FOUND')
  t.regex(error.message, /mirrors failed: .*broken disk.*cannot be reached.*not found/s)
  // What a mirror flips is the registry's to mend.
  const blob = registry.blob('content')
  good.blobs.set(blob.digest, Buffer.from('c0ntent'))
  t.deepEqual(await one.blob('some/image', blob), blob.bytes)
  // One that cannot be reached is left alone for a while.
  bad.fault = (_, response) => !!response.destroy()
  bad.seen.length = 0
  await one.manifest('some/image', '1')
  const tried = bad.seen.length
  t.true(tried > 0)
  await one.manifest('some/image', '1')
  t.is(bad.seen.length, tried)
  // What is pushed goes to the registry alone.
  bad.seen.length = 0
  await one.putManifest('some/image', '4', Buffer.from('{}'), 'a/b')
  t.is(bad.seen.length, 0)
})

test('tags, page after page; what is no tag is none', async (t) => {
  const registry = await serve(t, {
    fault: ({ url }, response) => {
      const last = new URL(url, 'http://x').searchParams.get('last')
      if (last === null) response.setHeader('link', '</v2/some/image/tags/list?last=b&n=2>; rel="next"')
      response.end(JSON.stringify({ name: 'x', tags: last === null ? ['a', 'b', '../x', 7] : ['c'] }))
      return true
    },
  })
  t.deepEqual(await client(t, registry.host).tags('some/image'), ['a', 'b', 'c'])
  registry.seen.length = 0
  // As many as are wanted, and no page more.
  t.deepEqual(await client(t, registry.host).tags('some/image', { limit: 2 }), ['a', 'b'])
  t.deepEqual(
    registry.seen.map(({ url }) => url),
    ['/v2/some/image/tags/list?n=2'],
  )
  t.deepEqual(await client(t, registry.host).tags('some/image', { limit: 1 }), ['a'])
  t.deepEqual(await client(t, registry.host).tags('some/image', { limit: 3 }), ['a', 'b', 'c'])
  for (const limit of [0, 1.5, Number.NaN, 10_001])
    t.like(await t.throwsAsync(client(t, registry.host).tags('some/image', { limit })), {
      code: 'ERR_INVALID_OPTION',
      subject: 'limit',
    })
  registry.fault = (_, response) => !!response.end('{"tags":null}')
  t.deepEqual(await client(t, registry.host).tags('some/image'), [])
})

test('lists that do not end, or go on elsewhere', async (t) => {
  const sink = await serve(t)
  let link = '</v2/some/image/tags/list?again>; rel=next'
  const registry = await serve(t, {
    fault: (_, response) => {
      response.setHeader('link', link)
      response.end('{"tags":["a"]}')
      return true
    },
  })
  const tags = (limits: object) => client(t, registry.host, { limits }).tags('some/image')
  await t.throwsAsync(tags({ pages: 50 }), { code: 'ERR_IMAGE_LIMIT', message: /more than 50 pages/ })
  t.is(registry.seen.length, 50)
  await t.throwsAsync(tags({ tags: 20 }), { code: 'ERR_IMAGE_LIMIT', message: /more than 20 tags/ })
  for (link of [`<${sink.origin}/v2/x>; rel="next"`, '</secret>; rel="next"'])
    await t.throwsAsync(tags({}), { code: 'ERR_REGISTRY', message: /next page of its list is elsewhere/ })
  t.is(sink.seen.length, 0)
  t.is(nextLink(['<a>; rel="prev", <b>; title="x"; rel="next"']), 'b')
  t.is(nextLink(['<a>; rel="nextish"', '<b>']), undefined)
})

test('referrers by the list, else by the tag; filtered here too', async (t) => {
  const registry = await serve(t)
  const one = client(t, registry.host)
  const subject = digestOf('subject')
  const entry = (artifactType: string): object => ({
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    digest: digestOf(artifactType),
    size: 3,
    artifactType,
    annotations: {
      k: 'v',
      no: 7,
    },
  })
  const index = JSON.stringify({ manifests: [entry('a/b'), entry('c/d'), 7, { digest: 'x' }] })
  t.deepEqual(await one.referrers('some/image', subject), [])
  registry.manifest('some/image', subject.replace(':', '-'), index)
  const found = await one.referrers('some/image', subject, 'c/d')
  t.deepEqual(
    found.map(({ artifactType, annotations }) => [artifactType, annotations]),
    [['c/d', { k: 'v' }]],
  )
  t.is((await one.referrers('some/image', subject)).length, 2)
  registry.fault = ({ url }, response) => url.includes('/referrers/') && !!response.end(index)
  t.is((await one.referrers('some/image', subject)).length, 2)
  t.is(blobOf('x').size, 1)
})
