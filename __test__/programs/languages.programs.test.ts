/** Python and Node of Debian: scripts, servers, and signals that they hear as the first process. */
import test from 'ava'
import { hasUsers } from '../host/ground.ts'
import { program } from './scene.ts'

/** The image's user is nobody. */
const user = hasUsers ? {} : { user: 0 }

test('python: -c, a script by stdin, http.server until SIGINT', async (t) => {
  const { engine, image, start } = program(t, 'python')
  const sum = await engine.run(
    image,
    ['-c', 'import os, sys; print(sum(range(10)), os.getuid()); sys.exit(3)'],
    user,
  )
  t.is(sum.stdout, `45 ${hasUsers ? 65_534 : 0}\n`)
  t.is(sum.exitCode, 3)
  const parallel = `
import concurrent.futures, multiprocessing, socket, ssl, sqlite3, tempfile
def square(n): return n * n
with concurrent.futures.ProcessPoolExecutor(2) as pool: print(sum(pool.map(square, range(100))))
with tempfile.NamedTemporaryFile() as f: f.write(b'x'); print(sqlite3.connect(':memory:').execute('select 1').fetchone())
print(socket.gethostbyname('localhost'), socket.gethostname() == socket.gethostbyaddr('127.0.0.1')[0] or 'other')
`
  const script = await engine.run(image, ['-'], { ...user, input: parallel })
  t.is(script.stderr, '')
  t.is(script.stdout, '328350\n(1,)\n127.0.0.1 other\n')
  const { held, port, stop } = await start(['-m', 'http.server', '--directory', '/etc', '80'], user)
  const outside = await port(80)
  const page = await fetch(`http://127.0.0.1:${outside}/hostname`)
  t.is((await page.text()).trim(), held.id.slice(0, 12))
  const { result, said } = await stop()
  t.like(result, { exitCode: 0, signal: null, cause: 'exit' }, said)
  t.regex(said, /"GET \/hostname HTTP\/1.1" 200/)
  t.regex(said, /Keyboard interrupt received, exiting\./)
})

const server = `
const http = require('node:http')
const server = http.createServer((request, response) => {
  let size = 0
  request.on('data', (chunk) => (size += chunk.length))
  request.on('end', () => response.end(JSON.stringify({ url: request.url, size, pid: process.pid, env: process.env.NODE_ENV, at: process.cwd() })))
}).listen(3000, '127.0.0.1', () => console.log('ready'))
process.on('SIGTERM', () => { console.log('asked to end'); server.close(() => console.log('ended')) })
`

test('node: a server that hears SIGTERM, and worker threads', async (t) => {
  const { engine, image, start } = program(t, 'node')
  const threads = `const { Worker } = require('node:worker_threads')
const inside = "require('node:worker_threads').parentPort.postMessage('from a thread')"
new Worker(inside, { eval: true }).on('message', console.log)`
  t.is((await engine.run(image, ['-'], { input: threads })).stdout, 'from a thread\n')
  const { held, port, stop } = await start(['-e', server])
  const outside = await port(3000)
  const body = 'x'.repeat(5_000_000)
  const answers = await Promise.all(
    [1, 2, 3, 4].map(async (at) => {
      const answer = await fetch(`http://127.0.0.1:${outside}/${at}`, {
        method: 'POST',
        body,
        keepalive: false,
      })
      return (await answer.json()) as object
    }),
  )
  t.deepEqual(
    answers,
    [1, 2, 3, 4].map((at) => ({ url: `/${at}`, size: body.length, pid: 1, env: 'production', at: '/srv' })),
  )
  t.is((await held.exec(['node', '-p', '1 + 1'])).stdout, '2\n')
  const { result, said } = await stop()
  t.like(result, { exitCode: 0, signal: null, cause: 'exit' }, said)
  t.is(said, 'ready\nasked to end\nended\n')
})
