/** `caisson commit` and `caisson export`, of a container that another program holds; and where their images go. */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, existsSync, openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import type { ExecutionContext } from 'ava'
import { engine, scratch } from '../image/store.ts'
import { entriesOf, importBase } from '../image/written.ts'
import { debian } from '../registry/debian.ts'
import { environment } from '../registry/scene.ts'
import { main } from './program.ts'
import type { Ended } from './program.ts'

interface Scene {
  directory: string
  caisson: (words: readonly string[], input?: Buffer) => Ended
  env: Record<string, string>
}

/** A container `web`, held by another program, that has written `/mine`. */
async function scene(t: ExecutionContext): Promise<Scene> {
  const directory = scratch(t)
  const one = engine(t, directory)
  await importBase(one, directory)
  await one.close()
  const env = { ...environment(directory), CAISSON_ROOT: join(directory, 'data') }
  const words = [
    'run',
    '--name',
    'web',
    '-e',
    'OWN=1',
    'base',
    'sh',
    '-c',
    'echo mine >/mine; rm /gone; echo up; sleep 1000',
  ]
  const child = spawn(process.execPath, [main, ...words], { env, stdio: ['ignore', 'pipe', 'inherit'] })
  t.teardown(async () => {
    child.kill('SIGKILL')
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
  })
  await once(child.stdout, 'data')
  return {
    directory,
    env,
    caisson: (given, input) => {
      const options = { env, input, encoding: 'utf8' as const }
      const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...given], options)
      return { status, stdout, stderr }
    },
  }
}

test('commit, run, history, push, rmi, and back', async (t) => {
  const { caisson } = await scene(t)
  const { host } = await debian(t)
  const reference = `${host}/made:1`
  const made = caisson([
    'commit',
    '-a',
    'A <a@b.c>',
    '-m',
    'by hand',
    '-c',
    'CMD ["cat", "/mine"]',
    '--change=ENV X=y',
    'web',
    reference,
  ])
  t.is(made.status, 0, made.stderr)
  t.regex(made.stdout, /^sha256:[0-9a-f]{64}\n$/)
  const id = made.stdout.trim()
  t.is(caisson(['run', '--rm', reference]).stdout, 'mine\n')
  t.is(caisson(['run', '--rm', id, 'ls', '/gone']).status, 1)
  t.is(caisson(['history', '--format', '{{.Comment}}', reference]).stdout, 'by hand\nImported from -\n')
  t.is(caisson(['image', 'inspect', '-f', '{{.Author}}', id]).stdout, 'A <a@b.c>\n')
  t.deepEqual(JSON.parse(caisson(['image', 'inspect', '-f', '{{json .Config.Env}}', id]).stdout), [
    'A=1',
    'B=2',
    'OWN=1',
    'X=y',
  ])
  const pushed = caisson(['push', reference])
  t.is(pushed.status, 0, pushed.stderr)
  t.is(caisson(['rmi', reference]).status, 0)
  t.is(caisson(['run', '--rm', '--pull', 'never', id]).status, 125)
  t.is(caisson(['run', '--rm', '-q', reference]).stdout, 'mine\n')

  const bare = caisson(['commit', '--no-pause', 'web'])
  t.is(bare.status, 0, bare.stderr)
  t.is(caisson(['images', '-q', '-f', 'dangling=true']).stdout, `${bare.stdout.slice(7, 19)}\n`)
  t.is(caisson(['commit', '--pause', 'web']).status, 0)
})

test('export to a file, to stdout, and into import', async (t) => {
  const { caisson, directory, env } = await scene(t)
  const [file, piped] = [join(directory, 'a.tar'), join(directory, 'b.tar')]
  t.deepEqual(caisson(['export', '-o', file, 'web']), { status: 0, stdout: '', stderr: '' })
  const to = openSync(piped, 'w')
  const { status } = spawnSync(process.execPath, [main, 'export', 'web'], {
    env,
    stdio: ['ignore', to, 'inherit'],
  })
  closeSync(to)
  t.is(status, 0)
  t.deepEqual(readFileSync(piped), readFileSync(file))
  t.true(entriesOf(file).some((line) => line.startsWith('mine ')))
  const imported = caisson(['import', '-c', 'CMD cat /mine', '-', 'flat'], readFileSync(file))
  t.is(imported.status, 0, imported.stderr)
  t.is(caisson(['run', '--rm', 'flat']).stdout, 'mine\n')
  // A reader that leaves early is an error, and holds nobody.
  const cut = spawnSync(
    'sh',
    ['-c', `"${process.execPath}" "${main}" export web | head -c 1000 >/dev/null`],
    { env, encoding: 'utf8' },
  )
  t.is(cut.status, 0)
  t.is(caisson(['exec', 'web', 'echo', 'alive']).stdout, 'alive\n')
})

test('words that mean nothing', async (t) => {
  const { caisson, directory, env } = await scene(t)
  const target = join(directory, 'x.tar')
  for (const [words, message] of [
    [['commit'], "'caisson commit' requires at least 1 and at most 2 arguments"],
    [['commit', 'web', 'a', 'b'], "'caisson commit' requires at least 1 and at most 2 arguments"],
    [['commit', 'nobody'], 'No such container: nobody'],
    [['commit', 'web', 'UPPER'], "image: 'UPPER' must be lower case"],
    [['commit', '-c', 'RUN x', 'web'], "change: 'RUN x': is none of CMD, ENTRYPOINT, ENV"],
    [['commit', '--pause=maybe', 'web'], 'not true or false'],
    [['export'], "'caisson export' requires exactly 1 argument"],
    [['export', 'web', 'more'], "'caisson export' requires exactly 1 argument"],
    [['export', '-o', target, 'nobody'], 'No such container: nobody'],
    [['export', '-o', directory, 'web'], 'is a directory'],
    [['export', '-o', '/dev/full', 'web'], "target: '/dev/full' cannot be written: ENOSPC"],
  ] as const) {
    const { status, stdout, stderr } = caisson(words)
    // Docker's, too.
    t.is(status, [...words].some((word) => word === 'nobody') ? 1 : 125, words.join(' '))
    t.is(stdout, '')
    t.true(stderr.includes(message), `${words.join(' ')}: ${stderr}`)
    t.regex(stderr, /^caisson: [^\n]*\n(?:\nRun|$)/, stderr)
  }
  t.false(existsSync(target))
  const terminal = spawnSync('script', ['-qec', `"${process.execPath}" "${main}" export web`, '/dev/null'], {
    env,
    encoding: 'utf8',
  })
  t.regex(terminal.stdout, /cowardly refusing to save to a terminal\. Use the -o flag or redirect/)
  t.is(terminal.status, 125)
  for (const name of ['commit', 'export'])
    t.regex(caisson([name, '--help']).stdout, new RegExp(`^Usage:  caisson ${name} \\[OPTIONS\\] CONTAINER`))
})
