/** What a registry is shown is shown to nobody else, and told to nobody (security.md D10). */
import { once } from 'node:events'
import { inspect } from 'node:util'
import type { ExecutionContext } from 'ava'
import type { WrittenImage } from '../image/layouts.ts'
import { manifest, options, withLayer } from '../image/lies.ts'
import { hold, layerOf, program, publish, registryOf } from '../image/published.ts'
import { engine, scratch, shimsAreGone } from '../image/store.ts'
import { told } from '../registry/scene.ts'
import { refuse, serve } from '../registry/server.ts'
import type { FakeRegistry, Fault } from '../registry/server.ts'
import { own } from './processes.ts'
import { row } from './row.ts'

const password = 's3cr3t+pass'
const basic = `Basic ${Buffer.from(`user:${password}`).toString('base64')}`

/** A registry with the image `app`, and this program's login for it. */
async function known(t: ExecutionContext): Promise<{
  directory: string
  registry: FakeRegistry
  written: WrittenImage
}> {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const written = publish(registry, directory, options)
  const auth = Buffer.from(`user:${password}`).toString('base64')
  process.env.DOCKER_AUTH_CONFIG = JSON.stringify({ auths: { [registry.host]: { auth } } })
  return { directory, registry, written }
}

/** Wants Basic; then as `more` has it. */
function wantsBasic(more: Fault = () => false): Fault {
  return (seen, response) => {
    if (seen.headers.authorization === basic) return more(seen, response)
    response.setHeader('www-authenticate', 'Basic realm="x"')
    return refuse(response, 401, 'UNAUTHORIZED', 'who?')
  }
}

/** Wants a token of this service. */
function wantsToken(realm: () => string): Fault {
  return ({ headers }, response) => {
    if (headers.authorization === 'Bearer granted') return false
    response.setHeader('www-authenticate', `Bearer realm="${realm()}",service="s"`)
    return refuse(response, 401, 'UNAUTHORIZED', 'who?')
  }
}

for (const address of ['127.0.0.1', '127.0.0.2']) {
  row('D10', `blobs elsewhere, on ${address}`, async (t) => {
    const { directory, registry, written } = await known(t)
    const [sink, nobody] = [await serve(t, { address }), await serve(t, { address })]
    for (const [digest, bytes] of registry.blobs) sink.blobs.set(digest, bytes)
    const urls = [`${nobody.origin}/layer`]
    const mediaType = 'application/vnd.oci.image.layer.nondistributable.v1.tar+gzip'
    manifest({ registry, directory, written }, withLayer({ urls, mediaType }))
    registry.fault = wantsBasic(({ url }, response) => {
      if (!url.includes('/blobs/')) return false
      response.writeHead(307, { location: `${sink.origin}${url}` }).end()
      return true
    })
    const { stdout } = await engine(t, directory).run(`${registry.host}/app`, ['ls', '/noise'])
    t.is(stdout, '/noise\n')
    t.true(registry.knows(password))
    // A config, two layers.
    t.is(sink.asked(/^GET .*blobs/).length, 3)
    t.false(sink.knows(password))
    t.true(sink.seen.every(({ headers }) => headers.authorization === undefined))
    // Where a descriptor says that its layer is, too.
    t.deepEqual(nobody.seen, [])
  })
}

row('D10', 'a token service on another host, without TLS', async (t) => {
  const { directory, registry } = await known(t)
  const grants: Fault = (_, response) => !!response.end('{"token":"granted"}')
  const sink = await serve(t, { address: '127.0.0.2', fault: grants })
  registry.fault = wantsToken(() => `${sink.origin}/token`)
  const error = await t.throwsAsync(engine(t, directory).pull(`${registry.host}/app`))
  t.like(error, { code: 'ERR_REGISTRY_AUTH' })
  t.regex(error.message, /another host, without TLS/)
  t.deepEqual(sink.seen, [])
})

row('D10', 'a token service that sends us on', async (t) => {
  const { directory, registry } = await known(t)
  const sink = await serve(t, { fault: (_, response) => !!response.end('{"token":"granted"}') })
  const service = await serve(t, {
    fault: ({ url }, response) => !!response.writeHead(307, { location: `${sink.origin}${url}` }).end(),
  })
  registry.fault = wantsToken(() => `${service.origin}/token`)
  const { stdout } = await engine(t, directory).run(`${registry.host}/app`, ['ls', '/noise'])
  t.is(stdout, '/noise\n')
  t.true(service.knows(password))
  t.is(sink.seen.length, 1)
  t.false(sink.knows(password))
})

row('D10', 'a registry that says what it was shown', async (t) => {
  const { directory, registry } = await known(t)
  registry.fault = wantsBasic((_, response) =>
    refuse(response, 400, basic, `user:${password} ${encodeURIComponent(password)} ${basic}`),
  )
  const error = await t.throwsAsync(engine(t, directory).pull(`${registry.host}/app`))
  t.like(error, { code: 'ERR_REGISTRY' })
  for (const text of [told(error), inspect(error, { depth: 9, showHidden: true })]) {
    t.true(text.includes('***'))
    for (const secret of [password, encodeURIComponent(password), basic.slice(6)])
      t.false(text.includes(secret), text)
  }
})

row('D10', 'no other process has it, in its arguments or its environment', async (t) => {
  const { directory, registry, written } = await known(t)
  registry.fault = wantsBasic()
  const { reached, release } = hold(registry, layerOf(written, 1), 1000)
  const child = program(directory, `await engine.pull('${registry.host}/app')`)
  const exit = once(child, 'exit')
  await reached
  const processes = own()
  release()
  t.is(((await exit) as [number])[0], 0)
  await shimsAreGone(directory)
  t.deepEqual([...new Set(processes.map(({ name }) => name))].toSorted(), ['caisson-shim', 'caisson-unpack'])
  for (const { name, text } of processes) {
    t.false(text.includes('DOCKER_AUTH_CONFIG'), name)
    t.false(text.includes(basic.slice(6)), name)
  }
})
