/** `caisson` as a person uses it: the program itself, its streams and exit codes. */
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import type { ExecutionContext } from 'ava'
import { rootfs, scene } from '../container/scene.ts'
import * as layouts from '../image/layouts.ts'
import { shimsAreGone } from '../image/store.ts'
import { main } from './program.ts'
import type { Ended } from './program.ts'

async function cli(t: ExecutionContext): Promise<{
  dir: string
  caisson: (words: readonly string[], input?: string) => Ended
  start: (words: readonly string[]) => ReturnType<typeof spawn>
}> {
  const { dir, root } = await scene(t)
  const env = { PATH: process.env.PATH, CAISSON_ROOT: root, FROM_HERE: 'yes' }
  return {
    dir,
    caisson: (words, input) => {
      const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...words], {
        env,
        input,
        encoding: 'utf8',
      })
      return { status, stdout, stderr }
    },
    start: (words) => spawn(process.execPath, [main, ...words], { env, stdio: ['ignore', 'pipe', 'pipe'] }),
  }
}

const run = ['run', '--rm', '--rootfs', rootfs]

test('exit codes are docker’s', async (t) => {
  const { caisson } = await cli(t)
  const cases: [string[], number, RegExp][] = [
    [[...run, 'true'], 0, /^$/],
    [[...run, 'sh', '-c', 'exit 3'], 3, /^$/],
    [[...run, 'nonsense'], 127, /^caisson: exec: "nonsense": executable file not found in \$PATH\n$/],
    [[...run, '/etc/passwd'], 126, /^caisson: exec: "\/etc\/passwd": permission denied\n$/],
    [[...run], 125, /^caisson: command: no command specified/],
    [['run'], 125, /requires at least 1 argument\n\nRun 'caisson run --help'/],
    [
      ['run', '--nonsense', 'x'],
      125,
      /^caisson: unknown flag: --nonsense\n\nRun 'caisson run --help' for more information\n$/,
    ],
    [['run', '-p', '80:80', 'x'], 125, /^caisson: -p, --publish is not supported yet/],
    [['run', '--restart=always', 'x'], 125, /^caisson: --restart is not supported yet/],
    [['run', 'oci:/nowhere'], 125, /^caisson: /],
    [[...run.slice(0, -1), '/nowhere', 'true'], 125, /\/nowhere: no such file or directory\n$/],
    [
      ['run', '-m', '1m', '--rootfs', rootfs, 'true'],
      125,
      /^caisson: memory: Minimum memory limit allowed is 6MB/,
    ],
    [['nonsense'], 125, /^caisson: unknown command: caisson nonsense\n\nRun 'caisson --help'/],
    [['run', '--timeout', '200ms', '--rootfs', rootfs, 'sleep', '60'], 124, /after its timeout of 200ms\n$/],
    [['run', '--ulimit', 'cpu=1:1', '--rootfs', rootfs, 'sh', '-c', 'while :; do :; done'], 137, /^$/],
  ]
  for (const [words, status, message] of cases) {
    const ended = caisson(words)
    t.is(ended.status, status, `${words.join(' ')}: ${ended.stderr}`)
    t.regex(ended.stderr, message, words.join(' '))
  }
})

test('streams are the payload’s own', async (t) => {
  const { caisson } = await cli(t)
  t.deepEqual(caisson([...run, 'sh', '-c', 'echo out; echo err >&2; cat'], 'unread'), {
    status: 0,
    stdout: 'out\n',
    stderr: 'err\n',
  })
  t.is(caisson(['run', '-i', '--rootfs', rootfs, 'cat'], 'read').stdout, 'read')
})

test('flags reach the container', async (t) => {
  const { caisson, dir } = await cli(t)
  mkdirSync(join(dir, 'shared'))
  writeFileSync(join(dir, 'env'), 'A=file\nB=file\nFROM_HERE\n')
  const words =
    `run --env-file ${dir}/env -e B=flag -w /home/alice -u alice -h box -v ${dir}/shared:/ro:ro --read-only ` +
    '--tmpfs /scratch:size=1m --cap-drop ALL --security-opt no-new-privileges --ulimit nofile=99 --rootfs'
  const script =
    'echo $A $B $FROM_HERE; pwd; id -un; hostname; touch /ro/x /x; touch /scratch/x && echo scratch; ulimit -n; ' +
    'grep -E "CapBnd|NoNew" /proc/self/status'
  const ended = caisson([...words.split(' '), rootfs, 'sh', '-c', script])
  t.is(
    ended.stdout,
    'file flag yes\n/home/alice\nalice\nbox\nscratch\n99\nCapBnd:\t0000000000000000\nNoNewPrivs:\t1\n',
    ended.stderr,
  )
  t.is(ended.stderr.match(/Read-only file system/g)?.length, 2)
})

test('an image, its config, and an init that is the sealed executable', async (t) => {
  const { caisson, dir } = await cli(t)
  const config = { Entrypoint: ['sh', '-c'], Cmd: ['echo image $0'], Env: ['A=b'] }
  layouts.layout(join(dir, 'layout'), { layers: [layouts.busybox()], config })
  const state = ['--root', join(dir, 'state')]
  const image = `oci:${dir}/layout:latest`
  t.is(caisson([...state, 'run', image]).stdout, 'image sh\n')
  t.is(caisson([...state, 'run', image, 'echo $A']).stdout, 'b\n')
  t.is(caisson([...state, 'run', '--entrypoint', 'echo', image, 'c']).stdout, 'c\n')
  // Who may trace pid 1 sees what it is.
  const init = ['--init', '--cap-add', 'SYS_PTRACE', image]
  const { stdout } = caisson([...state, 'run', ...init, 'readlink /proc/1/exe; cat /proc/1/comm'])
  t.regex(stdout, /^\/memfd:caisson-runtime \(deleted\)\ncaisson-init\n$/)
  t.regex(caisson([...state, 'run', `oci:${dir}/layout:absent`]).stderr, /absent/)
  await shimsAreGone(join(dir, 'state'))
})

test('a seccomp profile in docker’s form', async (t) => {
  const { caisson, dir } = await cli(t)
  const file = join(dir, 'seccomp.json')
  const mkdir = { names: ['mkdir', 'mkdirat'], action: 'SCMP_ACT_ERRNO', errnoRet: 38 }
  const architectures = [{ architecture: 'SCMP_ARCH_X86_64', subArchitectures: ['SCMP_ARCH_X86'] }]
  const profile = {
    defaultAction: 'SCMP_ACT_ALLOW',
    archMap: architectures,
    syscalls: [{ ...mkdir, excludes: { caps: ['CAP_SYS_ADMIN'] } }],
  }
  writeFileSync(file, JSON.stringify(profile))
  const words = ['--security-opt', `seccomp=${file}`, '--rootfs', rootfs, 'mkdir', '/tmp/x']
  t.regex(caisson(['run', ...words]).stderr, /Function not implemented/)
  t.is(caisson(['run', '--cap-add', 'SYS_ADMIN', ...words]).status, 0)
  writeFileSync(file, JSON.stringify({ ...profile, syscalls: [{ ...mkdir, exclude: {} }] }))
  t.regex(caisson(['run', ...words]).stderr, /syscalls\[0\].*exclude/)
  writeFileSync(file, 'no')
  t.regex(caisson(['run', ...words]).stderr, /seccomp\.json is no seccomp profile/)
})

test('a file for the id', async (t) => {
  const { caisson, dir } = await cli(t)
  const file = join(dir, 'cid')
  t.is(caisson(['run', '--cidfile', file, '--rootfs', rootfs, 'true']).status, 0)
  t.regex(readFileSync(file, 'utf8'), /^[0-9a-f]{64}$/)
  const again = caisson(['run', '--cidfile', file, '--rootfs', rootfs, 'true'])
  t.is(again.status, 125)
  t.regex(again.stderr, /container ID file found, make sure the other container isn't running or delete/)
  const other = join(dir, 'other')
  t.is(caisson(['run', '--cidfile', other, '--rootfs', rootfs, 'nonsense']).status, 127)
  t.false(existsSync(other))
})

async function end(child: ReturnType<typeof spawn>): Promise<number | null> {
  return new Promise((resolve) => {
    child.once('exit', resolve)
  })
}

async function says(child: ReturnType<typeof spawn>, word: string): Promise<void> {
  await new Promise<void>((resolve) => {
    child.stdout?.on('data', (chunk: Buffer) => {
      if (chunk.toString().includes(word)) resolve()
    })
  })
}

test('signals are passed on, and the third that is ignored kills', async (t) => {
  const { start } = await cli(t)
  const script = 'trap "echo got; exit 9" TERM; echo up; while :; do sleep 0.1; done'
  const handled = start([...run, 'sh', '-c', script])
  const first = end(handled)
  await says(handled, 'up')
  handled.kill('SIGTERM')
  t.is(await first, 9)

  const deaf = start([...run, 'sh', '-c', 'echo up; exec sleep 60'])
  const second = end(deaf)
  await says(deaf, 'up')
  for (let times = 0; times < 3; times += 1) {
    deaf.kill('SIGINT')
    await new Promise((resolve) => {
      setTimeout(resolve, 100)
    })
  }
  t.is(await second, 137)
})

/** Drives a program on a pty: what is typed when what was seen, then the exit code. */
const driver = `
import os, pty, select, sys, termios, struct, fcntl, time, json
steps = json.loads(sys.argv[1])
pid, fd = pty.fork()
if pid == 0:
    os.execvp(sys.argv[2], sys.argv[2:])
fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack('HHHH', 33, 101, 0, 0))
seen, at, end = b'', 0, time.time() + 20
while time.time() < end:
    ready, _, _ = select.select([fd], [], [], 0.1)
    if ready:
        try: data = os.read(fd, 4096)
        except OSError: break
        if not data: break
        seen += data
    if steps and (found := seen.find(steps[0][0].encode(), at)) >= 0:
        wait, action = steps.pop(0)
        at = found + len(wait)
        if action.startswith('size '):
            rows, columns = map(int, action.split()[1:])
            fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack('HHHH', rows, columns, 0, 0))
        else: os.write(fd, action.encode())
if time.time() >= end: os.kill(pid, 9)
_, status = os.waitpid(pid, 0)
sys.stdout.write(seen.decode('utf8', 'replace') + '|' + str(os.waitstatus_to_exitcode(status)))
`

test('a terminal: a shell with job control, its size, ^C, and the exit code', async (t) => {
  const { dir, root } = await scene(t)
  writeFileSync(join(dir, 'driver.py'), driver)
  const steps = [
    ['up0', 'tty; stty size; sleep 77 &\r'],
    ['33 101', 'size 20 90'],
    ['', 'sleep 0.3; stty size; jobs; kill %1\r'],
    // Said by the job itself: before it is in the foreground ^C is the shell's.
    ['20 90', "sh -c 'echo st$((1))art; exec sleep 60'\r"],
    ['st1art', '\u0003'],
    ['^C', ''],
    // What is typed before the shell asks for it again is lost.
    ['[6n', 'echo $((40 + 2)); exit 5\r'],
  ]
  const words = ['run', '-it', '-e', 'PS1=$ ', '--rootfs', rootfs, 'sh', '-c', 'echo up$((0)); exec sh -i']
  const { stdout } = spawnSync(
    'python3',
    [join(dir, 'driver.py'), JSON.stringify(steps), process.execPath, main, '--root', root, ...words],
    { encoding: 'utf8' },
  )
  t.regex(stdout, /\/dev\/pts\/0/)
  t.regex(stdout, /\n42\r+\n/)
  t.regex(stdout, /\[1\]/)
  t.true(stdout.endsWith('|5'), stdout)
})

test('a terminal: what a program writes reaches the user’s as it is, which is as before afterwards', async (t) => {
  const { dir, root } = await scene(t)
  writeFileSync(join(dir, 'driver.py'), driver)
  const script = 'echo up$((0)); read x; stty -opost; printf "ab\\ncd\\n."'
  const caisson = [process.execPath, main, '--root', root, 'run', '-it', '--rootfs', rootfs]
  const outer = ['sh', '-c', '"$@"; stty -a', 'sh', ...caisson, 'sh', '-c', script]
  const steps = JSON.stringify([['up0', 'x\r']])
  const { stdout } = spawnSync('python3', [join(dir, 'driver.py'), steps, ...outer], { encoding: 'utf8' })
  t.true(stdout.includes('ab\ncd\n.'), stdout)
  t.regex(stdout, /\nopost [^]*\nisig icanon /)
})

test('info and version', async (t) => {
  const { caisson } = await cli(t)
  const facts = JSON.parse(caisson(['info', '--format', 'json']).stdout) as {
    runtimePath: string
    root: string
  }
  t.true(existsSync(facts.runtimePath))
  t.is(caisson(['--root', '/run/elsewhere', 'info', '-f', '{{.root}}']).stdout, '/run/elsewhere\n')
  t.is(caisson(['info', '--nonsense']).status, 125)
  t.regex(caisson(['version']).stdout, /^caisson version \d+\.\d+\.\d+\n$/)
  for (const words of [['--help'], ['run', '--help'], ['info', '--help'], ['version', '--help']]) {
    const help = caisson(words)
    t.is(help.status, 0)
    t.regex(help.stdout, /Usage: /)
  }
})
