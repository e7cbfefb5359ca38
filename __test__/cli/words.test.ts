/** The words of `run`: what docker's users type, and what becomes of it. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { runDraft, runFlags } from '../../src/cli/flags/run.ts'
import { parseWords, WordError } from '../../src/cli/flags/words.ts'
import { helpText } from '../../src/cli/help.ts'
import { format } from '../../src/cli/output.ts'

function parse(...words: string[]): { rest: string[]; draft: ReturnType<typeof runDraft> } {
  const draft = runDraft()
  return { rest: parseWords(runFlags, words, draft), draft }
}

test('flags end at the image, and what follows is the payload’s', (t) => {
  const { rest, draft } = parse('-it', '--rm', 'oci:/x', 'ls', '-l', '--all')
  t.deepEqual(rest, ['oci:/x', 'ls', '-l', '--all'])
  t.true(draft.interactive)
  t.is(draft.options.tty, true)
})

test('values: apart, behind =, and behind the letter', (t) => {
  for (const words of [['-m', '32m'], ['-m32m'], ['-m=32m'], ['--memory', '32m'], ['--memory=32m']]) {
    t.is(parse(...words).draft.options.memory, '32m', words.join(' '))
  }
  t.is(parse('--init=false').draft.options.init, false)
  t.deepEqual(parse('-e', 'A=b=c', '-eD=', '--env=E=').draft.env, [
    ['A', 'b=c'],
    ['D', ''],
    ['E', ''],
  ])
})

test('words that cannot be taken say which', (t) => {
  const cases: [string[], RegExp][] = [
    [['--nonsense'], /^unknown flag: --nonsense$/],
    [['-it9'], /^unknown shorthand flag: '9' in -it9$/],
    [['--memory'], /^flag needs an argument: --memory$/],
    [['-m'], /^flag needs an argument: 'm' in -m$/],
    [['--rm=maybe'], /not true or false/],
    [['--cpus', 'many'], /^invalid argument "many" for "--cpus" flag: invalid syntax$/],
    [['--ulimit', 'nofile'], /invalid ulimit argument$/],
    [['-v', 'a:b:c:d'], /too many colons$/],
    [['-v', 'data:/x'], /volumes are not supported yet/],
    [['-v', '/a:/b:sideways'], /invalid mode: sideways$/],
    [['--mount', 'type=bind,source=/a'], /target is required$/],
    [['--mount', 'type=volume,target=/a'], /volume are not supported yet$/],
    [['--mount', 'type=bind,src=/a,dst=/b,colour=red'], /unknown option 'colour'/],
    [['--network', 'bridge'], /network bridge is not supported yet/],
    [['-e', '=b'], /invalid environment variable: =b$/],
    [['--env-file', '/nowhere'], /open \/nowhere: no such file or directory$/],
    [['--device-read-bps', 'sda:1m'], /bad format: sda:1m$/],
    [['--security-opt', 'apparmor=mine'], /apparmor=mine is not supported yet$/],
  ]
  for (const [words, message] of cases) {
    t.throws(() => parse(...words), { instanceOf: WordError, message }, words.join(' '))
  }
})

test('mounts by both of docker’s texts', (t) => {
  const { draft } = parse(
    '-v=/a:/b',
    '-v=/c:/d:ro,rslave',
    '--mount=type=bind,src=/e,dst=/f,readonly',
    '--mount=type=tmpfs,target=/g,tmpfs-size=1m',
  )
  t.deepEqual(draft.options.mounts, [
    { type: 'bind', source: '/a', target: '/b' },
    { type: 'bind', source: '/c', target: '/d', readOnly: true, propagation: 'rslave' },
    { type: 'bind', source: '/e', target: '/f', readOnly: true },
    { type: 'tmpfs', target: '/g', size: '1m' },
  ])
})

test('limits', (t) => {
  const { options } = parse(
    '--cpus=1.5',
    '--pids-limit=10',
    '--ulimit=nofile=10:20',
    '--ulimit=core=0',
    '--device-read-bps=/dev/a:1mb',
    '--device-write-iops=/dev/a:5',
  ).draft
  t.is(options.cpus, 1.5)
  t.is(options.pids, 10)
  t.deepEqual(options.ulimits, { nofile: { soft: 10, hard: 20 }, core: { soft: 0, hard: 0 } })
  t.deepEqual(options.io, [
    { device: '/dev/a', readBps: '1mb' },
    { device: '/dev/a', writeIops: 5 },
  ])
})

test('a file of variables', (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'caisson-env.'))
  t.teardown(() => {
    rmSync(dir, { recursive: true })
  })
  const file = join(dir, 'env')
  writeFileSync(file, '\ufeff# comment\n\n  A="quoted" \nB=\nCAISSON_TEST_ABSENT\nPATH\n')
  t.deepEqual(parse('--env-file', file).draft.files, [
    ['A', '"quoted" '],
    ['B', ''],
    ['PATH', process.env.PATH ?? ''],
  ])
  writeFileSync(file, 'A B=1\n')
  t.throws(() => parse('--env-file', file), { message: /variable 'A B' contains whitespaces$/ })
  writeFileSync(file, '=1\n')
  t.throws(() => parse('--env-file', file), { message: /no variable name on line '=1'$/ })
  writeFileSync(file, Buffer.from([0x41, 0x3d, 0xff]))
  t.throws(() => parse('--env-file', file), { message: /is not UTF-8$/ })
})

test('each flag is in the help, once, and in order', (t) => {
  const text = helpText('x', 'y', runFlags)
  const listed = [...text.matchAll(/--([a-z-]+)/g)].map((match) => match[1])
  for (const { long } of runFlags) t.true(listed.includes(long), long)
  const names = runFlags.map(({ long }) => long)
  t.deepEqual(names, names.toSorted())
  t.is(new Set(names).size, names.length)
})

test('facts by a template', (t) => {
  const facts = { version: '1', list: ['a'] }
  t.is(format({ a: { b: {} } }, '{{json .a}}'), '{"b":{}}\n')
  t.is(format(facts, 'json'), '{"version":"1","list":["a"]}\n')
  t.is(format(facts, 'v{{.Version}} {{json .list}}'), 'v1 ["a"]\n')
  t.throws(() => format(facts, '{{.nothing}}'), { message: /no field nothing/ })
  t.throws(() => format(facts, '{{range .list}}'), { instanceOf: WordError })
})
