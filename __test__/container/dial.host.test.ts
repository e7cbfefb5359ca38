/** Connections into a container's network, without a port of the machine's. */
import { once } from 'node:events'
import { request } from 'node:http'
import { networkInterfaces } from 'node:os'
import { text } from 'node:stream/consumers'
import test from 'ava'
import type { Container } from '../../src/index.ts'
import { rootfs, scene } from './scene.ts'

const listener =
  'nc -l -p 7000 -e cat & while ! grep -q ":1B58 " /proc/net/tcp*; do sleep .01; done; echo up; wait'

async function up(held: Container): Promise<void> {
  for await (const line of held.main.stdout?.lines() ?? []) if (line === 'up') return
}

test('bytes there and back, and nothing of it on the machine', async (t) => {
  const { engine } = await scene(t)
  const interfaces = JSON.stringify(networkInterfaces())
  await using held = await engine.start({ rootfs }, ['sh', '-c', listener])
  await up(held)
  const socket = await held.dial(7000)
  socket.end('echo this')
  t.is(await text(socket), 'echo this')
  t.is(JSON.stringify(networkInterfaces()), interfaces)
})

test('where nobody listens it says so', async (t) => {
  const { engine } = await scene(t)
  await using held = await engine.start({ rootfs }, ['sleep', '60'])
  const error = await t.throwsAsync(held.dial(7001), { code: 'ERR_DIAL', message: /port 7001: ECONNREFUSED/ })
  t.is((error as unknown as { errno: number }).errno, 111)
  for (const port of [0, 65_536, 1.5, -1, Number.NaN, '80' as unknown as number])
    await t.throwsAsync(held.dial(port), { code: 'ERR_INVALID_OPTION', message: /^port: / })
  await held.stop({ timeout: 0 })
  await t.throwsAsync(held.dial(7001), { code: 'ERR_NOT_RUNNING' })
})

test('many at once, each to its own container', async (t) => {
  const { engine } = await scene(t)
  const script = 'mkdir /tmp/w; echo $0 >/tmp/w/who; httpd -p 80 -h /tmp/w; echo up; sleep 60'
  const held = await Promise.all(
    Array.from({ length: 5 }, async (_, index) =>
      engine.start({ rootfs }, ['sh', '-c', script, `c${index}`]),
    ),
  )
  await Promise.all(held.map(up))
  const get = async (one: Container): Promise<string> => {
    const asked = request('http://anything/who', { agent: one.agent() }).end()
    const [answer] = (await once(asked, 'response')) as [NodeJS.ReadableStream]
    return text(answer)
  }
  const seen = await Promise.all(
    Array.from({ length: 50 }, async (_, index) => get(held[index % 5] as Container)),
  )
  t.deepEqual(
    seen,
    seen.map((__, index) => `c${index % 5}\n`),
  )
  await Promise.all(held.map(async (one) => one[Symbol.asyncDispose]()))
})

test('a container that ends while it is dialled', async (t) => {
  const { engine } = await scene(t)
  for (let round = 0; round < 10; round += 1) {
    const held = await engine.start({ rootfs }, ['sleep', '60'])
    const dials = [1, 2, 3].map(async (port) => t.throwsAsync(held.dial(port)))
    held.kill()
    for (const error of await Promise.all(dials))
      t.true(['ERR_DIAL', 'ERR_NOT_RUNNING'].includes((error as { code?: string }).code ?? ''), String(error))
    await held.wait()
  }
})

test('it is known when something listens', async (t) => {
  const { engine } = await scene(t)
  await using held = await engine.start({ rootfs }, ['sh', '-c', 'sleep .2; httpd -p 80; sleep 60'])
  const begun = performance.now()
  await held.listening(80)
  t.true(performance.now() - begun > 100)
  const socket = await held.dial(80)
  socket.destroy()
  await held.listening(80)
  const late = { code: 'ERR_DIAL', message: /^port 81: nobody listened within 50 ms/ }
  await t.throwsAsync(held.listening(81, { timeout: 50 }), late)
  await t.throwsAsync(held.listening(81, { signal: AbortSignal.timeout(50) }), { name: 'TimeoutError' })
  await t.throwsAsync(held.listening(0), { code: 'ERR_INVALID_OPTION' })
  await using found = await engine.containers.get(held.id)
  await found.listening(80)
  const [never] = await Promise.allSettled([held.listening(82), held.stop({ timeout: 0 })])
  t.is(never.status === 'rejected' && (never.reason as { code?: string }).code, 'ERR_NOT_RUNNING')
})

test('fetch by the same agent', async (t) => {
  const { engine } = await scene(t)
  const script = 'mkdir /tmp/w; echo here >/tmp/w/page; httpd -f -p 80 -h /tmp/w'
  await using held = await engine.start({ rootfs }, ['sh', '-c', script])
  await held.listening(80)
  const agent = held.agent()
  const answer = await fetch('http://anything/page', { dispatcher: agent })
  t.is(await answer.text(), 'here\n')
  const asked = request('http://anything/page', { agent }).end()
  const [message] = (await once(asked, 'response')) as [NodeJS.ReadableStream]
  t.is(await text(message), 'here\n')
  await t.throwsAsync(fetch('http://anything:81/', { dispatcher: agent }), { message: 'fetch failed' })
  await t.throwsAsync(fetch('https://anything/', { dispatcher: agent }), { message: 'fetch failed' })
  agent.destroy()
})
