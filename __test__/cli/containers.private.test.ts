/** `caisson ps`, `exec`, `kill`, `stop`, `stats`, `inspect`: containers that other programs hold. */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import test from 'ava'
import type { ExecutionContext } from 'ava'
import { rootfs, scene } from '../container/scene.ts'
import { main } from './program.ts'
import type { Ended } from './program.ts'

async function cli(t: ExecutionContext): Promise<{
  caisson: (words: readonly string[], input?: string) => Ended
  hold: (name: string, script: string) => Promise<ReturnType<typeof spawn>>
}> {
  const { root } = await scene(t)
  const env = { PATH: process.env.PATH, CAISSON_ROOT: root }
  return {
    caisson: (words, input) => {
      const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...words], {
        env,
        input,
        encoding: 'utf8',
      })
      return { status, stdout, stderr }
    },
    hold: async (name, script) => {
      const words = [
        'run',
        '--name',
        name,
        '-l',
        `of=${name}`,
        '--rootfs',
        rootfs,
        'sh',
        '-c',
        `echo up; ${script}`,
      ]
      const child = spawn(process.execPath, [main, ...words], { env, stdio: ['ignore', 'pipe', 'inherit'] })
      t.teardown(async () => {
        if (child.exitCode !== null || child.signalCode !== null) return
        child.kill('SIGKILL')
        await once(child, 'exit')
      })
      await once(child.stdout, 'data')
      return child
    },
  }
}

const deaf = 'while :; do sleep .02; done'

test('they are shown', async (t) => {
  const { caisson, hold } = await cli(t)
  t.is(caisson(['ps']).stdout, 'CONTAINER ID   IMAGE   COMMAND   CREATED   STATUS   PORTS   NAMES\n')
  await hold('one', deaf)
  await hold('two', deaf)
  const [head = '', ...rows] = caisson(['ps']).stdout.trimEnd().split('\n')
  t.regex(head, /^CONTAINER ID +IMAGE +COMMAND +CREATED +STATUS +PORTS +NAMES$/)
  t.deepEqual(
    rows.map((row) => row.split(/ {2,}/).at(-1)),
    ['two', 'one'],
  )
  for (const row of rows) t.regex(row, /^[0-9a-f]{12} +\S+ +"sh -c echo up; whil…" +.* ago +Up /)
  const ids = caisson(['ps', '-q', '--no-trunc']).stdout.trim().split('\n')
  for (const id of ids) t.regex(id, /^[0-9a-f]{64}$/)
  t.is(caisson(['ps', '--format', '{{.Names}}', '-f', 'label=of=one']).stdout, 'one\n')
  t.is(
    caisson(['ps', '-l', '--format', 'table {{.Names}}\t{{.State}}']).stdout,
    'NAMES   STATE\ntwo     running\n',
  )
  const [json = ''] = caisson(['ps', '--format', 'json', '-f', 'name=^one$']).stdout.split('\n')
  t.like(JSON.parse(json) as object, { Names: 'one', Labels: 'of=one', State: 'running' })
  t.is(caisson(['ps', '-f', 'colour=red']).status, 125)
  const [found] = JSON.parse(caisson(['inspect', 'one']).stdout) as { Id: string; State: { Pid: number } }[]
  t.is(found?.Id, ids[1])
  t.is(caisson(['inspect', '-f', '{{.State.Pid}} {{.Name}}', 'one']).stdout, `${found?.State.Pid} /one\n`)
  t.deepEqual(caisson(['inspect', 'none']), {
    status: 1,
    stdout: '[]\n',
    stderr: 'Error: No such object: none\n',
  })
  const [, figures = ''] = caisson(['stats', '--no-stream', 'one']).stdout.split('\n')
  t.regex(figures, /^[0-9a-f]{12} +one +\d+\.\d\d% /)
})

test('they are entered', async (t) => {
  const { caisson, hold } = await cli(t)
  await hold('one', deaf)
  const words = ['exec', '-i', '-e', 'A=b', '-w', '/tmp', '-u', '0:staff', 'one', 'sh', '-c']
  const { stdout, stderr, status } = caisson(
    [...words, 'cat; echo $A; pwd; id -g; echo err >&2; exit 6'],
    'in\n',
  )
  t.deepEqual([stdout, stderr, status], ['in\nb\n/tmp\n50\n', 'err\n', 6])
  t.is(caisson(['exec', 'one', 'sh', '-c', 'kill -9 $$']).status, 137)
  t.is(caisson(['exec', '--timeout', '200ms', 'one', 'sleep', '60']).status, 124)
  const cases: [string[], number, RegExp][] = [
    [['one', 'none'], 127, /^caisson: exec: "none": executable file not found in \$PATH\n$/],
    [['one', '/etc/passwd'], 126, /permission denied\n$/],
    [['-w', '/none', 'one', 'true'], 125, /cwd: \/none: ENOENT/],
    [['none', 'true'], 1, /^caisson: No such container: none\n$/],
    [['one'], 125, /requires at least 2 arguments/],
    [['--privileged', 'one', 'true'], 125, /a command has at most the rights of its container/],
    [['-d', 'one', 'true'], 125, /--detach is not supported yet/],
    [['-it', 'one', 'true'], 1, /^cannot attach stdin to a TTY-enabled container/],
  ]
  for (const [more, code, message] of cases) {
    const ended = caisson(['exec', ...more])
    t.is(ended.status, code, more.join(' '))
    t.regex(ended.stderr, message)
  }
  t.is(caisson(['exec', '-t', 'one', 'tty']).stdout, '/dev/pts/0\r\n')
})

test('they are ended', async (t) => {
  const { caisson, hold } = await cli(t)
  const one = await hold('one', `trap "exit 3" USR1; ${deaf}`)
  const two = await hold('two', `trap "exit 4" TERM; ${deaf}`)
  const three = await hold('three', deaf)
  const ends = [one, two, three].map(async (child) => once(child, 'exit'))
  t.is(caisson(['kill', '-s', 'USR1', 'one']).stdout, 'one\n')
  t.is((await ends[0])?.[0], 3)
  const stopped = caisson(['stop', '-t', '1', 'two', 'none', 'three'])
  t.deepEqual(stopped.stdout.trim().split('\n').toSorted(), ['three', 'two'])
  t.is(stopped.stderr, 'caisson: No such container: none\n')
  t.is(stopped.status, 1)
  t.is((await ends[1])?.[0], 4)
  t.is((await ends[2])?.[0], 137)
  t.is(caisson(['ps', '-q']).stdout, '')
  for (const name of ['ps', 'exec', 'kill', 'stop', 'stats', 'inspect'])
    t.regex(caisson([name, '--help']).stdout, new RegExp(`^Usage:  caisson ${name} `))
})
