/** PostgreSQL of Debian: a session by psql, a stop by SIGINT, and a second start that has nothing to recover. */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { hasUsers } from '../host/ground.ts'
import { program } from './scene.ts'

const password = 'of the test'

/**
 * PostgreSQL refuses to be root, and where there is one id, it is root's. There the program gets a user namespace of its own,
 * in which the same id has another number; for that the container needs a capability over itself.
 */
const alone = {
  entrypoint: ['unshare', '--map-user=postgres', '--map-group=postgres', '/usr/local/bin/start-postgres'],
  capAdd: ['SYS_ADMIN'],
}

test('a session, a stop, another start', async (t) => {
  t.timeout(240_000)
  const { start, client, directory } = program(t, 'postgres')
  const data = join(directory, 'volume')
  mkdirSync(data, { recursive: true })
  const mounts = [{ type: 'bind' as const, source: data, target: '/data' }]
  const options = { env: { POSTGRES_PASSWORD: password }, mounts, ...(!hasUsers && alone) }
  const statements = [
    'CREATE TABLE people (id serial PRIMARY KEY, name text NOT NULL)',
    "INSERT INTO people (name) SELECT 'person ' || n FROM generate_series(1, 10000) n",
    'SET max_parallel_workers_per_gather = 2',
    'SELECT count(*), max(name) FROM people',
  ]
  const session = async (outside: number, sql: readonly string[]): Promise<string> => {
    const words = ['psql', '-h', '127.0.0.1', '-p', String(outside), '-U', 'postgres', '-X', '-A', '-t', '-q']
    const { stdout, stderr } = await client([...words, '-v', 'ON_ERROR_STOP=1', '-f', '-'], {
      env: { PGPASSWORD: password, PGSSLMODE: 'disable' },
      input: sql.map((line) => `${line};\n`).join(''),
    })
    t.is(stderr, '')
    return stdout
  }
  const ready = 'database system is ready to accept connections'
  const first = await start(undefined, options)
  await first.says(ready)
  t.is(await session(await first.port(5432), statements), '10000|person 9999\n')
  const ended = await first.stop()
  t.like(ended.result, { exitCode: 0, signal: null, cause: 'exit' }, ended.said)
  t.regex(ended.said, /received fast shutdown request/)
  t.regex(ended.said, /database system is shut down\s*$/)

  const second = await start(undefined, options)
  await second.says(ready)
  t.is(await session(await second.port(5432), ['SELECT count(*) FROM people']), '10000\n')
  const again = await second.stop()
  t.like(again.result, { exitCode: 0, signal: null, cause: 'exit' }, again.said)
  t.regex(again.said, /database system was shut down at/)
  t.notRegex(again.said, /recovery|not properly shut down|PANIC|ERROR/)
  t.regex(again.said, /database system is shut down\s*$/)
})
