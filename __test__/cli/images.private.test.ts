/** Images by the CLI, against Debian's docker-registry: from login to prune, in docker's words. */
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import type { ExecutionContext } from 'ava'
import * as layouts from '../image/layouts.ts'
import { many, others } from '../image/many.ts'
import { scratch } from '../image/store.ts'
import { debian, user } from '../registry/debian.ts'
import { environment } from '../registry/scene.ts'
import { main } from './program.ts'
import type { Ended } from './program.ts'

interface Scene {
  directory: string
  host: string
  caisson: (words: string, input?: string) => Ended
}

/** A registry that wants a password, with an image in it; and the CLI on a root of its own. */
async function scene(t: ExecutionContext): Promise<Scene> {
  const directory = scratch(t)
  const { host } = await debian(t, { auth: 'htpasswd' })
  const layout = join(directory, 'layout')
  const labelled = {
    layers: [layouts.busybox(), layouts.tar([{ name: 'second', content: 'layer' }])],
    config: { Cmd: ['echo', 'by default'], Labels: { kind: 'test' } },
    document: {
      created: '2020-01-02T03:04:05Z',
      history: [
        { created: '2020-01-02T03:04:05Z', created_by: 'ADD busybox' },
        { created_by: 'ENV nothing', empty_layer: true },
        { created_by: 'COPY second', comment: 'a comment' },
      ],
    },
  }
  layouts.layout(layout, labelled, 'one')
  const { username, password } = user
  const creds = ['--dest-tls-verify=false', '--dest-creds', `${username}:${password}`]
  const copied = spawnSync('skopeo', [
    'copy',
    '-q',
    ...creds,
    `oci:${layout}:one`,
    `docker://${host}/a/one:1`,
  ])
  t.is(copied.status, 0, copied.stderr.toString())
  const root = join(directory, 'data')
  const env = { ...environment(directory), CAISSON_ROOT: root }
  return {
    directory,
    host,
    caisson: (words, input = '') => {
      const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...words.split(' ')], {
        env,
        input,
        encoding: 'utf8',
      })
      return { status, stdout, stderr }
    },
  }
}

function login(t: ExecutionContext, { caisson, host }: Scene): void {
  const { username, password } = user
  const { status, stdout, stderr } = caisson(`login -u ${username} --password-stdin ${host}`, `${password}\n`)
  t.is(status, 0, stderr)
  t.is(stdout, 'Login Succeeded\n')
  t.false(stderr.includes(password))
}

test('login, pull, run, tag, push, rmi, logout', async (t) => {
  const one = await scene(t)
  const { caisson, host, directory } = one
  const reference = `${host}/a/one:1`
  const refused = caisson(`pull ${reference}`)
  t.is(refused.status, 125)
  t.regex(refused.stderr, new RegExp(`caisson login ${host}`))
  t.is(caisson(`login -u ${user.username} --password-stdin ${host}`, 'wrong').status, 125)
  login(t, one)
  const config = JSON.parse(readFileSync(join(directory, '.docker/config.json'), 'utf8')) as { auths: object }
  t.deepEqual(Object.keys(config.auths), [host])

  const pulled = caisson(`pull ${reference}`)
  t.is(pulled.status, 0, pulled.stderr)
  t.regex(
    pulled.stdout,
    new RegExp(
      `^(?:[0-9a-f]{12}: (?:Downloading|Pull complete)\\n){4}Digest: sha256:[0-9a-f]{64}\\nStatus: Downloaded newer image for ${reference}\\n${reference}\\n$`,
    ),
  )
  t.regex(caisson(`pull ${reference}`).stdout, /^Digest: .*\nStatus: Image is up to date for /)
  t.is(caisson(`pull -q ${reference}`).stdout, `${reference}\n`)
  t.is(caisson(`run --rm ${reference}`).stdout, 'by default\n')
  t.is(caisson(`run --rm ${reference} cat /second`).stdout, 'layer')

  const copy = `${host}/b/copy:x`
  t.is(caisson(`tag ${reference} ${copy}`).status, 0)
  const pushed = caisson(`push ${copy}`)
  t.is(pushed.status, 0, pushed.stderr)
  t.regex(
    pushed.stdout,
    new RegExp(`^(?:[0-9a-f]{12}: Mounted\\n){2}${copy}: digest: sha256:[0-9a-f]{64}\\n$`),
  )
  const there = [
    'inspect',
    '--tls-verify=false',
    '--creds',
    `${user.username}:${user.password}`,
    `docker://${copy}`,
  ]
  t.is(spawnSync('skopeo', there).status, 0)

  t.is(caisson(`rmi ${reference}`).stdout, `Untagged: ${reference}\n`)
  t.regex(caisson(`rmi ${copy}`).stdout, new RegExp(`^Untagged: ${copy}\\nDeleted: sha256:[0-9a-f]{64}\\n$`))
  const gone = caisson(`rmi ${copy}`)
  t.is(gone.status, 1)
  t.is(gone.stderr, `caisson: No such image: ${copy}\n`)
  // What was pushed comes back.
  t.is(caisson(`run --rm -q ${copy}`).stdout, 'by default\n')
  t.is(caisson(`logout ${host}`).stdout, `Removing login credentials for ${host}\n`)
  t.is(caisson(`logout ${host}`).stdout, `Not logged in to ${host}\n`)
})

test('images, history, inspect, df, prune', async (t) => {
  const one = await scene(t)
  const { caisson, host } = one
  login(t, one)
  const reference = `${host}/a/one:1`
  const head = 'REPOSITORY   TAG   IMAGE ID   CREATED   SIZE\n'
  t.is(caisson('images').stdout, head)
  const run = caisson(`run --rm ${reference} echo ran`)
  t.is(run.stdout, 'ran\n')
  t.regex(
    run.stderr,
    new RegExp(`^Unable to find image '${reference}' locally\\n[^]*Status: Downloaded newer image`),
  )
  t.is(caisson(`run --rm ${reference} echo ran`).stderr, '')

  const id = caisson('images -q').stdout.trim()
  t.regex(id, /^[0-9a-f]{12}$/)
  const [, row = ''] = caisson('images').stdout.split('\n')
  t.deepEqual(row.split(/ {2,}/).slice(0, 4), [
    `${host}/a/one`,
    '1',
    id,
    `${new Date().getFullYear() - 2020} years ago`,
  ])
  t.regex(caisson('images --digests').stdout, /sha256:[0-9a-f]{64}/)
  t.is(caisson(`images ${host}/a/* --format {{.Repository}}:{{.Tag}}`).stdout, `${reference}\n`)
  for (const [filter, count] of [
    ['label=kind=test', 1],
    ['label=kind=other', 0],
    ['dangling=true', 0],
    ['dangling=false', 1],
    ['reference=*/*/one', 1],
    ['reference=*/two', 0],
    [`since=${id}`, 0],
  ] as const)
    t.is(caisson(`images -q -f ${filter}`).stdout.split('\n').length - 1, count, filter)
  t.is(caisson('images -f nothing=x').status, 125)

  const steps = caisson(`history ${id} --format {{.CreatedBy}}|{{.Comment}}`).stdout
  t.is(steps, 'COPY second|a comment\nENV nothing|\nADD busybox|\n')
  t.regex(caisson(`history ${reference}`).stdout, /^IMAGE +CREATED +CREATED BY +SIZE +COMMENT\n/)
  for (const words of ['image inspect', 'inspect']) {
    const [described] = JSON.parse(caisson(`${words} ${id}`).stdout) as [Record<string, unknown>]
    t.like(described, { RepoTags: [reference], Os: 'linux', Config: { Labels: { kind: 'test' } } })
  }
  t.regex(caisson('system df').stdout, /^TYPE +TOTAL +SIZE +RECLAIMABLE\nImages +1 +[0-9.]+MB +0B\nBlobs +4 /)

  t.is(caisson('image prune', 'n\n').status, 0)
  t.is(caisson('image prune -f').stdout, 'Total reclaimed space: 0B\n')
  t.is(caisson('images -q').stdout, `${id}\n`)
  t.regex(caisson('image prune -f --blobs').stdout, /^Total reclaimed space: [0-9.]+[kM]B\n$/)
  t.is(caisson(`run --rm --pull never ${reference} echo ran`).stdout, 'ran\n')
  t.regex(caisson(`push ${reference}`).stderr, /its blob is not in the store any more/)
  t.regex(
    caisson('image prune -a -f').stdout,
    new RegExp(`^untagged: ${reference}\\ndeleted: sha256:[^]*reclaimed`),
  )
  t.is(caisson('images').stdout, head)
  t.is(caisson(`run --rm --pull never ${reference}`).status, 125)
})

test('all platforms: pulled, shown once, pushed, saved, loaded', async (t) => {
  const one = await scene(t)
  const { caisson, host, directory } = one
  login(t, one)
  const layout = join(directory, 'many')
  const { index, images } = many(layout, 'x')
  const creds = ['--dest-tls-verify=false', '--dest-creds', `${user.username}:${user.password}`]
  const words = ['copy', '-q', '--all', '--preserve-digests', ...creds, `oci:${layout}:x`]
  t.is(spawnSync('skopeo', [...words, `docker://${host}/a/many:1`]).status, 0)
  const [reference, other] = [`${host}/a/many:1`, `${host}/b/many:1`]
  t.regex(caisson(`pull --all-platforms ${reference}`).stdout, new RegExp(`Digest: ${index.digest}\n`))
  t.is(caisson('images -q').stdout.trim().split('\n').length, 1)
  const [described] = JSON.parse(caisson(`image inspect ${reference}`).stdout) as [{ Platforms: string[] }]
  t.is(described.Platforms.length, 3)
  t.is(caisson(`run --rm --platform linux/${others[0]} ${reference} cat /platform`).stdout, others[0])
  t.is(caisson(`tag ${reference} ${other}`).status, 0)
  t.regex(caisson(`push ${other}`).stdout, new RegExp(`: digest: ${index.digest}\n$`))
  const raw = caisson(`manifest inspect ${other}`).stdout
  t.is(layouts.sha256(raw), index.digest)
  t.regex(
    caisson(`push --platform ${others[1]} ${other}`).stdout,
    new RegExp(`: digest: ${images[others[1]]?.manifest.digest}\n$`),
  )
  t.is(caisson(`registry tags ${host}/b/many`).stdout, '1\n')
  const file = join(directory, 'many.tar')
  t.is(caisson(`save -o ${file} ${reference}`).status, 0)
  t.is(caisson(`rmi ${reference}`).stdout, `Untagged: ${reference}\n`)
  t.regex(caisson(`rmi ${other}`).stdout, /Deleted: /)
  t.is(caisson(`load --all-platforms -q -i ${file}`).stdout, `Loaded image: ${reference}\n`)
  t.regex(caisson(`push ${reference}`).stdout, new RegExp(`: digest: ${index.digest}\n$`))
  const both = caisson(`pull --all-platforms --platform arm64 ${reference}`)
  t.is(both.status, 125)
  t.regex(both.stderr, /mutually exclusive/)
})

test('words that mean nothing', async (t) => {
  const { caisson } = await scene(t)
  for (const [words, message] of [
    ['pull', "'caisson pull' requires exactly 1 argument"],
    ['pull A', "image: 'A' must be lower case"],
    ['pull --platform x/y/z/a debian', "platform: 'x/y/z/a' is not OS/ARCH[/VARIANT]"],
    ['tag a', "'caisson tag' requires exactly 2 arguments"],
    ['rmi', "'caisson rmi' requires at least 1 argument"],
    ['image nothing', 'unknown command: caisson image nothing'],
    ['system nothing', 'unknown command: caisson system nothing'],
    ['login -p a --password-stdin x', '--password and --password-stdin are mutually exclusive'],
    ['login --password-stdin x', 'Must provide --username with --password-stdin'],
    ['run --pull sometimes x', 'must be always, missing or never'],
  ] as const) {
    const { status, stderr } = caisson(words)
    t.is(status, 125, words)
    t.true(stderr.includes(message), `${words}: ${stderr}`)
  }
})
