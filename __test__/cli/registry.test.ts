/** `registry tags`, `registry referrers` and `manifest inspect`, against the tests' own registry. */
import { spawn } from 'node:child_process'
import { buffer } from 'node:stream/consumers'
import test from 'ava'
import type { ExecutionContext } from 'ava'
import { digestOf, environment, scratch } from '../registry/scene.ts'
import { refuse, serve } from '../registry/server.ts'
import type { FakeRegistry } from '../registry/server.ts'
import { main } from './program.ts'
import type { Ended } from './program.ts'

interface Scene {
  registry: FakeRegistry
  caisson: (...words: string[]) => Promise<Ended>
}

async function scene(t: ExecutionContext): Promise<Scene> {
  const registry = await serve(t)
  const env = environment(scratch(t))
  return {
    registry,
    caisson: async (...words) => {
      // Not spawnSync: the registry is ours.
      const child = spawn(process.execPath, [main, ...words], { env, stdio: ['ignore', 'pipe', 'pipe'] })
      const ended = new Promise<number | null>((resolve) => child.on('close', resolve))
      const [stdout, stderr] = await Promise.all([buffer(child.stdout), buffer(child.stderr)])
      return { status: await ended, stdout: stdout.toString(), stderr: stderr.toString() }
    },
  }
}

/** A repository of five tags, two on a page. */
function paged(registry: FakeRegistry): void {
  const tags = ['a', 'b', 'c', 'd', 'e']
  registry.fault = ({ url }, response) => {
    const { pathname, searchParams } = new URL(url, 'http://x')
    if (pathname !== '/v2/some/app/tags/list') return refuse(response, 404, 'NAME_UNKNOWN', 'unknown')
    const from = tags.indexOf(searchParams.get('last') ?? '') + 1
    const page = tags.slice(from, from + 2)
    if (from + 2 < tags.length)
      response.setHeader('link', `</v2/some/app/tags/list?n=2&last=${page.at(-1)}>; rel="next"`)
    response.end(JSON.stringify({ name: 'some/app', tags: page }))
    return true
  }
}

test('tags: every page, the first of them, and both forms', async (t) => {
  const { registry, caisson } = await scene(t)
  paged(registry)
  const name = `${registry.host}/some/app`
  t.deepEqual(await caisson('registry', 'tags', name), { status: 0, stdout: 'a\nb\nc\nd\ne\n', stderr: '' })
  t.is(registry.seen.length, 3)
  registry.seen.length = 0
  t.is((await caisson('registry', 'tags', '--limit', '3', name)).stdout, 'a\nb\nc\n')
  t.is(registry.seen.length, 2)
  t.is((await caisson('registry', 'tags', '--limit=1', '--format', 'json', name)).stdout, '{"Tag":"a"}\n')
  const missing = await caisson('registry', 'tags', `${registry.host}/other`)
  t.is(missing.status, 125)
  t.regex(missing.stderr, /other/)
})

const artifact = 'application/vnd.example.signature'

test('referrers: of a tag and of a digest, by type, and from the fallback tag', async (t) => {
  const { registry, caisson } = await scene(t)
  const subject = registry.manifest('some/app', '1', '{"schemaVersion":2}')
  const entry = (text: string, artifactType: string): object => ({
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    digest: digestOf(text),
    size: text.length,
    artifactType,
    annotations: { note: 'a\u001B[2Jb' },
  })
  const manifests = [entry('one', artifact), entry('two', 'application/x\u009B2Jy')]
  const list = JSON.stringify({ schemaVersion: 2, manifests })
  registry.fault = ({ url }, response) =>
    url.startsWith(`/v2/some/app/referrers/${subject}`) && !!response.end(list)
  const name = `${registry.host}/some/app`
  const { status, stdout, stderr } = await caisson('registry', 'referrers', `${name}:1`)
  t.is(status, 0, stderr)
  t.is(
    stdout,
    [
      `DIGEST${' '.repeat(68)}ARTIFACT TYPE                       SIZE`,
      `${digestOf('one')}   ${artifact}   3`,
      `${digestOf('two')}   application/x 2Jy                   3`,
      '',
    ].join('\n'),
  )
  const filtered = ['registry', 'referrers', '--artifact-type', artifact, '--format', '{{.Digest}}']
  t.is((await caisson(...filtered, `${name}@${subject}`)).stdout, `${digestOf('one')}\n`)
  t.true(registry.seen.at(-1)?.url.endsWith(`?artifactType=${encodeURIComponent(artifact)}`))
  const [first] = (await caisson('registry', 'referrers', '--format', 'json', `${name}:1`)).stdout.split('\n')
  t.deepEqual(JSON.parse(first ?? ''), entry('one', artifact))

  // A registry that knows no such list.
  registry.fault = undefined
  registry.manifest('some/app', subject.replace(':', '-'), list)
  t.is((await caisson(...filtered, `${name}:1`)).stdout, `${digestOf('one')}\n`)
  registry.manifests.delete(`some/app:${subject.replace(':', '-')}`)
  t.deepEqual(await caisson(...filtered, `${name}:1`), { status: 0, stdout: '', stderr: '' })
  t.is((await caisson(...filtered, `${name}:nothing`)).status, 125)
})

test('a manifest, byte for byte', async (t) => {
  const { registry, caisson } = await scene(t)
  const text = '{\n   "schemaVersion": 2, "manifests": [ ]\n}'
  const digest = registry.manifest('some/app', '1', text, 'application/vnd.oci.image.index.v1+json')
  for (const name of [`${registry.host}/some/app:1`, `${registry.host}/some/app@${digest}`])
    t.deepEqual(await caisson('manifest', 'inspect', name), { status: 0, stdout: text, stderr: '' })
  t.is((await caisson('manifest', 'inspect', `${registry.host}/some/app:2`)).status, 125)
})

test('words that mean nothing', async (t) => {
  const { registry, caisson } = await scene(t)
  for (const [words, message] of [
    ['registry nothing', 'unknown command: caisson registry nothing'],
    ['registry tags', "'caisson registry tags' requires exactly 1 argument"],
    ['registry tags x:1', "'x:1' names an image"],
    ['registry tags --limit many x', 'invalid argument "many" for "--limit" flag'],
    ['registry tags --limit 0 x', 'limit: is no number from 1 to 10000'],
    ['registry referrers a b', "'caisson registry referrers' requires exactly 1 argument"],
    ['manifest create x', 'unknown command: caisson manifest create'],
    ['manifest inspect A', "image: 'A' must be lower case"],
  ] as const) {
    const { status, stderr } = await caisson(...words.split(' '))
    t.is(status, 125, words)
    t.true(stderr.includes(message), `${words}: ${stderr}`)
  }
  t.deepEqual(registry.seen, [])
  t.regex((await caisson('registry')).stdout, /referrers, tags/)
  t.regex((await caisson('registry', 'tags', '--help')).stdout, /--limit int/)
})
