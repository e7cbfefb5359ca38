/** nginx and redis of Debian: started from their images, asked by their own clients, stopped by their own signals. */
import { once } from 'node:events'
import { request } from 'node:http'
import { text } from 'node:stream/consumers'
import test from 'ava'
import { hasUsers } from '../host/ground.ts'
import { program } from './scene.ts'

/** Where there is one user, nginx's workers stay that one. */
const nginx = hasUsers
  ? undefined
  : ['sh', '-c', "sed -i 's/^user .*/user root;/' /etc/nginx/nginx.conf; exec nginx -g 'daemon off;'"]

test('nginx: pages by fetch, by node:http and by a client of its own; SIGQUIT ends it in peace', async (t) => {
  const { start } = program(t, 'nginx')
  const { held, port, stop } = await start(nginx)
  const outside = await port(80)
  const agent = held.agent()
  const page = await fetch('http://nginx/', { dispatcher: agent })
  t.is(page.status, 200)
  t.regex(page.headers.get('server') ?? '', /^nginx/)
  t.regex(await page.text(), /Welcome to nginx/)
  const asked = request(`http://127.0.0.1:${outside}/none`).end()
  const [answer] = (await once(asked, 'response')) as [NodeJS.ReadableStream & { statusCode: number }]
  t.is(answer.statusCode, 404)
  t.regex(await text(answer), /404 Not Found/)
  const workers = await held.exec(['sh', '-c', 'grep -h ^Uid: /proc/[0-9]*/status | cut -f2 | sort -u'])
  t.is(workers.stdout, hasUsers ? '0\n33\n' : '0\n')
  agent.destroy()
  const { result, said } = await stop()
  t.like(result, { exitCode: 0, signal: null, cause: 'exit' }, said)
  t.regex(said, /"GET \/ HTTP\/1.1" 200/)
  t.regex(said, /signal 3 \(SIGQUIT\) received, shutting down/)
  t.regex(said, /gracefully shutting down/)
})

test('redis: SET and GET by redis-cli; SIGTERM saves what it holds', async (t) => {
  const { start, client } = program(t, 'redis')
  const { held, port, stop } = await start(undefined, hasUsers ? {} : { user: 0 })
  const outside = await port(6379)
  const cli = async (...words: string[]): Promise<string> => {
    const { stdout, stderr } = await client(['redis-cli', '-p', String(outside), ...words])
    return (stdout + stderr).trim()
  }
  t.is(await cli('SET', 'greeting', 'hello there'), 'OK')
  t.is(await cli('GET', 'greeting'), 'hello there')
  t.is(await cli('--pipe').then((said) => said.split('\n').at(-1)), 'errors: 0, replies: 0')
  t.regex(await cli('INFO', 'server'), /process_id:1\r?\n/)
  t.is(await cli('CONFIG', 'GET', 'dir'), 'dir\n/data')
  const many = Array.from({ length: 2000 }, (_, at) => `SET key:${at} ${'x'.repeat(100)}\n`).join('')
  const piped = await client(['redis-cli', '-p', String(outside), '--pipe'], { input: many })
  t.regex(piped.stdout, /errors: 0, replies: 2000/)
  t.is(await cli('DBSIZE'), '2001')
  const owner = await held.exec(['stat', '-c', '%U', '/proc/1'])
  t.is(owner.stdout, hasUsers ? 'redis\n' : 'root\n')
  const { result, said } = await stop()
  t.like(result, { exitCode: 0, signal: null, cause: 'exit' }, said)
  t.regex(said, /Received SIGTERM scheduling shutdown/)
  t.regex(said, /DB saved on disk/)
  t.regex(said, /Redis is now ready to exit, bye bye/)
  t.notRegex(said, /# Warning|Can't/)
})
