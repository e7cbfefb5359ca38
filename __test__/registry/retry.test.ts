/** What may pass is tried again, as long as the server says; what may not, is not. */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import test from 'ava'
import { retryAfter } from '../../src/registry/failure.ts'
import { client, environment, scratch } from './scene.ts'
import type { Failure } from './scene.ts'
import { refuse, serve } from './server.ts'
import type { Fault } from './server.ts'

/** Fails the first `count` requests in this way. */
function first(count: number, fault: Fault): Fault {
  let seen = 0
  return (one, response) => {
    seen += 1
    return seen <= count ? fault(one, response) : false
  }
}

test('Retry-After: seconds or a date', (t) => {
  t.is(retryAfter(undefined), undefined)
  t.is(retryAfter('7'), 7000)
  t.is(retryAfter('Wed, 21 Oct 2015 07:28:00 GMT', Date.parse('Wed, 21 Oct 2015 07:27:30 GMT')), 30_000)
  t.is(retryAfter('Wed, 21 Oct 2015 07:28:00 GMT', Date.parse('Wed, 21 Oct 2016 07:27:30 GMT')), 0)
  t.is(retryAfter('soon'), undefined)
})

test('408, 429, 5xx and resets pass within five attempts', async (t) => {
  for (const status of [408, 429, 500, 502, 503]) {
    const registry = await serve(t, {
      fault: first(4, (_, response) => refuse(response, status, 'UNAVAILABLE', 'no')),
    })
    registry.manifest('some/image', '1', '{}')
    t.is((await client(t, registry.host).manifest('some/image', '1')).bytes.toString(), '{}')
    t.is(registry.seen.length, 5)
  }
  const reset = await serve(t, { fault: first(2, (_, response) => !!response.destroy()) })
  reset.manifest('some/image', '1', '{}')
  t.is((await client(t, reset.host).manifest('some/image', '1')).bytes.toString(), '{}')
  // In the middle of a body too.
  const broken = await serve(t, {
    fault: first(2, (_, response) => {
      response.writeHead(200, { 'content-length': 100 })
      response.write('{', () => response.destroy())
      return true
    }),
  })
  broken.manifest('some/image', '1', '{}')
  t.is((await client(t, broken.host).manifest('some/image', '1')).bytes.toString(), '{}')
})

test('what does not pass is said after five; what cannot, at once', async (t) => {
  const registry = await serve(t, {
    fault: (_, response) => refuse(response, 503, 'UNAVAILABLE', 'overloaded'),
  })
  const error = await t.throwsAsync<Failure>(client(t, registry.host).manifest('some/image', '1'))
  t.is(error.code, 'ERR_REGISTRY')
  t.regex(error.message, /answered 503: unavailable: overloaded/)
  t.is(registry.seen.length, 5)
  for (const status of [400, 404, 405, 418]) {
    const never = await serve(t, { fault: (_, response) => refuse(response, status, 'UNSUPPORTED', 'no') })
    await t.throwsAsync(client(t, never.host).manifest('some/image', '1'))
    t.is(never.seen.length, 1, String(status))
  }
  const gone = await t.throwsAsync<Failure>(client(t, '127.0.0.1:1').manifest('some/image', '1'))
  t.is(gone.code, 'ERR_REGISTRY')
  t.regex(gone.message, /127\.0\.0\.1:1 cannot be reached: .*ECONNREFUSED/)
})

test('a server says how long, up to a minute', async (t) => {
  const wait: Fault = (_, response) => {
    response.setHeader('retry-after', '1')
    return refuse(response, 429, 'TOOMANYREQUESTS', 'slow down')
  }
  const registry = await serve(t, { fault: first(1, wait) })
  registry.manifest('some/image', '1', '{}')
  const start = performance.now()
  await client(t, registry.host).manifest('some/image', '1')
  t.true(performance.now() - start >= 990)
  registry.fault = (_, response) => {
    response.setHeader('retry-after', '21600')
    return refuse(response, 429, 'TOOMANYREQUESTS', 'pull rate limit')
  }
  registry.seen.length = 0
  const error = await t.throwsAsync<Failure>(client(t, registry.host).manifest('some/image', '1'))
  t.regex(error.message, /too many requests \(429\).*pull rate limit.*in 21600 s, or log in: caisson login/)
  t.is(registry.seen.length, 1)
})

test('a signal ends a wait, a request and a body, with its reason', async (t) => {
  const waiting = await serve(t, {
    fault: (_, response) => {
      response.setHeader('retry-after', '50')
      return refuse(response, 503, 'UNAVAILABLE', 'later')
    },
  })
  const silent = await serve(t, { fault: () => true })
  const halfway = await serve(t, {
    fault: (_, response) => {
      response.writeHead(200, { 'content-length': 100 })
      response.write('{')
      return true
    },
  })
  for (const { host } of [waiting, silent, halfway]) {
    const start = performance.now()
    const signal = AbortSignal.timeout(300)
    const error = await t.throwsAsync<Error>(client(t, host).manifest('some/image', '1', { signal }))
    t.is(error, signal.reason as Error)
    t.true(performance.now() - start < 2000)
  }
  const before = AbortSignal.abort(new Error('before'))
  await t.throwsAsync(client(t, silent.host).manifest('some/image', '1', { signal: before }), {
    message: 'before',
  })
  const { body } = await client(t, halfway.host).open(
    'some/image',
    { digest: `sha256:${'0'.repeat(64)}`, size: 100 },
    0,
    {
      signal: AbortSignal.timeout(300),
    },
  )
  await t.throwsAsync(body.toArray(), { name: 'TimeoutError' })
})

test('what is idle keeps no program alive', async (t) => {
  const registry = await serve(t)
  registry.manifest('some/image', '1', '{}')
  const source = new URL('../../src/registry/registry.ts', import.meta.url).href
  const script = `import { Registry } from ${JSON.stringify(source)}
    const registry = new Registry(${JSON.stringify(registry.host)})
    await registry.manifest('some/image', '1'); await registry.head('some/image', '1'); console.log('done')`
  const words = ['--no-warnings', '--input-type=module', '-e', script]
  // Kept-alive connections of Node's servers last five seconds.
  const options = { timeout: 4000, env: environment(scratch(t)) }
  const { stdout } = await promisify(execFile)(process.execPath, words, options)
  t.is(stdout, 'done\n')
  t.is(registry.sockets.size, 0)
})
