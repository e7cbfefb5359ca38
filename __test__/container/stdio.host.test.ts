/** What a payload reads and writes: pipes, strings, streams, descriptors, a terminal. */
import { execFileSync } from 'node:child_process'
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { PassThrough, Readable, Writable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { inspect } from 'node:util'
import test from 'ava'
import { runtime } from '../host/ground.ts'
import { scene } from './scene.ts'

test('stdout and stderr are apart, and strings', async (t) => {
  const { sh } = await scene(t)
  const { stdout, stderr } = await sh('echo out; echo err >&2; printf "ä€\\0x"')
  t.is(stdout, 'out\nä€\0x')
  t.is(stderr, 'err\n')
})

test('bytes on demand', async (t) => {
  const { engine, dir } = await scene(t)
  const { rootfs } = await import('./scene.ts')
  writeFileSync(join(dir, 'bytes'), Buffer.from([0, 255, 128, 10]))
  const { stdout, stderr } = await engine.run({ rootfs }, ['cat', '/b/bytes'], {
    encoding: 'buffer',
    mounts: [{ type: 'bind', source: dir, target: '/b' }],
  })
  t.deepEqual(stdout, Buffer.from([0, 255, 128, 10]))
  t.is(stderr.length, 0)
})

test('more than maxBuffer is dropped, counted, and never stops the payload', async (t) => {
  const { sh } = await scene(t)
  const { stdout, stderr, dropped, exitCode } = await sh(
    'dd if=/dev/zero bs=1k count=3000 2>/dev/null | tr "\\0" x; echo 12345 >&2',
    { maxBuffer: '1k' },
  )
  t.is(exitCode, 0)
  t.is(stdout, 'x'.repeat(1024))
  t.is(stderr, '12345\n')
  t.deepEqual(dropped, { stdout: 3000 * 1024 - 1024, stderr: 0 })
  t.is((await sh('echo 1', { maxBuffer: 0 })).stdout, '')
})

test('16 MiB are kept by default', async (t) => {
  const { sh } = await scene(t)
  const { stdout, dropped } = await sh('dd if=/dev/zero bs=1M count=17 2>/dev/null')
  t.is(stdout.length, 16 << 20)
  t.is(dropped.stdout, 1 << 20)
})

test('input is written and ends', async (t) => {
  const { run } = await scene(t)
  t.is((await run(['cat'], { input: 'ä line\n' })).stdout, 'ä line\n')
  const big = Buffer.alloc(3 << 20, 'y')
  t.is((await run(['wc', '-c'], { input: big })).stdout.trim(), String(big.length))
  t.is((await run(['cat'], { input: '' })).stdout, '')
})

test('a payload that does not read its input is no error', async (t) => {
  const { run } = await scene(t)
  t.is((await run(['true'], { input: Buffer.alloc(4 << 20) })).exitCode, 0)
})

test('stdin is a stream', async (t) => {
  const { run } = await scene(t)
  const p = run(['cat'])
  p.stdin?.write('one\n')
  p.stdin?.end('two\n')
  t.is((await p).stdout, 'one\ntwo\n')
})

test('an answer for each line', async (t) => {
  const { sh } = await scene(t)
  const p = sh('while read -r line; do echo "got $line"; done')
  p.stdin?.write('1\n')
  const got: string[] = []
  for await (const line of p.stdout?.lines() ?? []) {
    got.push(line)
    if (got.length < 3) p.stdin?.write(`${got.length + 1}\n`)
    else p.stdin?.end()
  }
  t.deepEqual(got, ['got 1', 'got 2', 'got 3'])
  t.is((await p).stdout, 'got 1\ngot 2\ngot 3\n')
})

test('lines: whole ones, whatever the chunks, and a last one without an end', async (t) => {
  const { sh } = await scene(t)
  const p = sh('printf "a"; sleep .05; printf "b\\n\\nä"; sleep .05; printf "\\r\\nlast"')
  const got: string[] = []
  for await (const line of p.stdout?.lines() ?? []) got.push(line)
  t.deepEqual(got, ['ab', '', 'ä\r', 'last'])
  await p
})

test('lines that nobody reads to the end stop nothing', async (t) => {
  const { sh } = await scene(t)
  const p = sh('i=0; while [ $i -lt 20000 ]; do echo "line $i"; i=$((i+1)); done')
  for await (const line of p.stdout?.lines() ?? []) {
    t.is(line, 'line 0')
    break
  }
  t.is((await p).exitCode, 0)
})

test('stderr has lines too', async (t) => {
  const { sh } = await scene(t)
  const p = sh('echo one >&2; echo two >&2')
  const got: string[] = []
  for await (const line of p.stderr?.lines() ?? []) got.push(line)
  t.deepEqual(got, ['one', 'two'])
  await p
})

test('all of a slow reader arrives', async (t) => {
  const { sh } = await scene(t)
  const p = sh('dd if=/dev/zero bs=64k count=64 2>/dev/null')
  let length = 0
  for await (const chunk of p.stdout ?? []) {
    length += (chunk as Buffer).length
    if (length % 7 === 0) await new Promise((resolve) => setTimeout(resolve, 1))
  }
  t.is(length, 64 << 16)
  t.is((await p).exitCode, 0)
})

test('ignore is /dev/null, one word for all or one each', async (t) => {
  const { sh } = await scene(t)
  const script = 'for n in 0 1 2; do [ -c /proc/self/fd/$n ] && readlink /proc/self/fd/$n; done'
  const all = sh(script, { stdio: 'ignore' })
  t.is(all.stdin, null)
  t.is(all.stdout, null)
  t.is((await all).stdout, '')
  const some = await sh(`${script}; stat -Lc "%F %t:%T" /proc/self/fd/0`, {
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  t.is(some.stdout, '/dev/null\n/dev/null\ncharacter special file 1:3\n')
  t.is(some.stderr, '')
})

test('a descriptor goes to the payload itself', async (t) => {
  const { run, dir } = await scene(t)
  writeFileSync(join(dir, 'in'), 'from a file\n')
  const [input, output] = [openSync(join(dir, 'in'), 'r'), openSync(join(dir, 'out'), 'w')]
  const p = run(['sh', '-c', 'cat; x=$(readlink /proc/1/fd/1); echo "$x" >&2'], {
    stdio: [input, output, 'pipe'],
  })
  t.is(p.stdin, null)
  t.is(p.stdout, null)
  const { stderr } = await p
  // A path of the host means nothing inside; what counts is that it is the file, not a pipe.
  t.false(stderr.includes('pipe:'))
  t.is(readFileSync(join(dir, 'out'), 'utf8'), 'from a file\n')
  closeSync(input)
  closeSync(output)
})

test('one descriptor can be stdout and stderr', async (t) => {
  const { sh, dir } = await scene(t)
  const file = openSync(join(dir, 'both'), 'a')
  await sh('echo one; echo two >&2; echo three', { stdio: ['ignore', file, file] })
  closeSync(file)
  t.is(readFileSync(join(dir, 'both'), 'utf8'), 'one\ntwo\nthree\n')
})

test('a stream in, and streams out', async (t) => {
  const { run } = await scene(t)
  const [out, err] = [new PassThrough(), new PassThrough()]
  const p = run(['sh', '-c', 'cat; echo e >&2'], { stdio: [Readable.from(['a', 'b']), out, err] })
  const { stdout } = await p
  out.end()
  err.end()
  t.is(await text(out), 'ab')
  t.is(await text(err), 'e\n')
  // The result has it as well.
  t.is(stdout, 'ab')
})

test('bytes as stdin', async (t) => {
  const { run } = await scene(t)
  t.is((await run(['cat'], { stdio: [Buffer.from('bytes'), 'pipe', 'pipe'] })).stdout, 'bytes')
})

test('a sink that does not keep up holds the payload back, and loses nothing', async (t) => {
  const { sh } = await scene(t)
  let length = 0
  const slow = new Writable({
    highWaterMark: 1024,
    write(chunk: Buffer, _, done) {
      length += chunk.length
      setTimeout(done, 1)
    },
  })
  const { exitCode } = await sh('dd if=/dev/zero bs=16k count=50 2>/dev/null', {
    stdio: ['ignore', slow, 'ignore'],
  })
  t.is(exitCode, 0)
  await new Promise((resolve) => slow.end(resolve))
  t.is(length, 50 << 14)
})

test('inherit is this program’s own', (t) => {
  const program = `
    import { run } from '${new URL('../../src/index.ts', import.meta.url).href}'
    import { makeRoot } from '${new URL('scene.ts', import.meta.url).href}'
    const rootfs = process.argv[1]
    makeRoot(rootfs)
    const p = run({ rootfs }, ['sh', '-c', 'cat; echo err >&2; exit 3'], { stdio: 'inherit' })
    const { exitCode, stdout } = await p
    console.log(exitCode, JSON.stringify(stdout), p.stdout)
  `
  const dir = `${runtime}/inherit.${process.pid}`
  const out = execFileSync(
    process.execPath,
    ['--input-type=module-typescript', '-e', program, `${dir}/root`],
    {
      input: 'typed\n',
      env: { ...process.env, CAISSON_ROOT: `${dir}/engine` },
      stdio: ['pipe', 'pipe', 'pipe'],
      encoding: 'utf8',
    },
  )
  execFileSync('rm', ['-rf', dir])
  t.is(out, 'typed\n3 "" null\n')
})

test('a non-blocking descriptor stays blocking for the payload', async (t) => {
  const { engine } = await scene(t)
  const { rootfs } = await import('./scene.ts')
  // Node makes pipes non-blocking; a payload that writes much into one would see EAGAIN.
  const inner = `
    import { Engine } from '${new URL('../../src/index.ts', import.meta.url).href}'
    process.stdout.write('')
    const engine = new Engine({ root: process.argv[1] })
    const { exitCode, stderr } = await engine.run({ rootfs: process.argv[2] }, ['dd', 'if=/dev/zero', 'bs=1M', 'count=4'], { stdio: ['ignore', 1, 'pipe'] })
    if (exitCode !== 0) console.error(stderr)
    await engine.close()
  `
  const out = execFileSync(
    'sh',
    [
      '-c',
      '"$0" --input-type=module-typescript -e "$1" "$2" "$3" | (sleep .3; wc -c)',
      process.execPath,
      inner,
      engine.roots.data,
      rootfs,
    ],
    { encoding: 'utf8' },
  )
  t.is(out.trim(), String(4 << 20))
})

test('a grandchild outside that keeps a pipe does not hold the result for ever', async (t) => {
  const { sh } = await scene(t)
  const p = sh('echo up; exec sleep 60')
  await p.started
  const holder = openSync(`/proc/${p.pid}/fd/2`, 'w')
  const began = performance.now()
  p.kill('SIGKILL')
  t.is((await p).cause, 'killed')
  const took = performance.now() - began
  t.true(took > 300 && took < 2000, `${took} ms`)
  closeSync(holder)
})

test('who reads slowly gets all of it, long after the payload ended', async (t) => {
  const { sh } = await scene(t)
  let chunks = 0
  const p = sh('dd if=/dev/zero bs=1k count=60 2>/dev/null; echo end')
  let length = 0
  for await (const chunk of p.stdout ?? []) {
    length += (chunk as Buffer).length
    if ((chunks += 1) <= 3) await new Promise((resolve) => setTimeout(resolve, 1200))
  }
  t.is(length, 60 * 1024 + 4)
  const slow = new Writable({
    highWaterMark: 1,
    write(chunk: Buffer, _, done) {
      length += chunk.length
      setTimeout(done, (chunks += 1) <= 3 ? 700 : 0)
    },
  })
  length = chunks = 0
  await sh('dd if=/dev/zero bs=1k count=150 2>/dev/null', { stdio: ['ignore', slow, 'ignore'] })
  await new Promise((resolve) => slow.end(resolve))
  t.is(length, 150 * 1024)
})

test('a terminal is one stream, of a pty of Caisson’s own', async (t) => {
  const { sh } = await scene(t)
  const p = sh(
    'tty; stty size; [ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo all; ls -l /dev/console; echo $TERM; exit 6',
    {
      tty: true,
      size: { columns: 132, rows: 43 },
    },
  )
  t.is(p.stderr, null)
  const { stdout, stderr, exitCode } = await p
  const lines = stdout.split('\r\n')
  t.is(lines[0], '/dev/pts/0')
  t.is(lines[1], '43 132')
  t.is(lines[2], 'all')
  t.regex(lines[3] ?? '', /^crw.* 136, +0 .*\/dev\/console$/)
  t.is(lines[4], 'xterm')
  t.is(stderr, '')
  t.is(exitCode, 6)
})

test('typing into a terminal, its size changed, ^C', async (t) => {
  const { sh } = await scene(t)
  const p = sh(
    'trap "stty size" WINCH; trap "echo bye; exit 7" INT; echo up; while :; do read line && echo "got $line"; done',
    { tty: true },
  )
  let seen = ''
  for await (const line of p.stdout?.lines() ?? []) {
    seen += `${line}\n`
    if (line === 'up\r') p.stdin?.write('hello\n')
    if (line === 'got hello\r') {
      p.resize({ columns: 90, rows: 20 })
    }
    if (line === '20 90\r') p.stdin?.write('\u0003')
  }
  const { exitCode } = await p
  t.is(exitCode, 7, seen)
  t.regex(seen, /^up\r\nhello\r\ngot hello\r\n20 90\r\n\^Cbye\r\n$/)
})

test('input and a terminal', async (t) => {
  const { run } = await scene(t)
  const p = run(['sh', '-c', 'read a; echo "<$a>"'], { tty: true, input: 'x\n' })
  t.regex((await p).stdout, /<x>\r\n$/)
})

test('a terminal’s payload has it as controlling terminal, in a session of its own', async (t) => {
  const { sh } = await scene(t)
  const { stdout } = await sh('cut -d" " -f5-7 /proc/1/stat; : >/dev/tty && echo opened', { tty: true })
  t.is(stdout, '1 1 34816\r\nopened\r\n')
})

test('what stdio cannot be is refused', async (t) => {
  const { sh } = await scene(t)
  const wrong = [
    ['pipe'],
    ['pipe', 'pipe', 'pipe', 'pipe'],
    -2,
    1.5,
    'nonsense',
    ['pipe', Readable.from([]), 'pipe'],
    ['pipe', new Uint8Array(1), 'pipe'],
  ]
  for (const stdio of wrong) {
    await t.throwsAsync(
      sh('true', { stdio: stdio as 'pipe' }),
      { code: 'ERR_INVALID_OPTION', message: /^stdio: / },
      inspect(stdio),
    )
  }
  await t.throwsAsync(sh('true', { stdio: ['ignore', 'pipe', 999] }), { message: /stderr/ })
  await t.throwsAsync(sh('true', { stdio: 'ignore', input: 'x' }), {
    code: 'ERR_INVALID_OPTION',
    message: /^input: /,
  })
})
