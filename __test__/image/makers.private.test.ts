/**
 * What others make is what they meant: images of umoci, skopeo, buildah and podman, pulled as root, as a user with a range of
 * ids and as one with a single id, are in the container what umoci unpacks of them.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { rmdirSync } from 'node:fs'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import test from 'ava'
import type { ExecutionContext } from 'ava'
import { cgroupMount } from '../host/cage.ts'
import { hostOf } from '../host/private.ts'
import { debian } from '../registry/debian.ts'
import { make, must, release } from './makers.ts'
import { scratch } from './store.ts'
import { list } from './trees.ts'

type Lists = Record<string, string[]>
const kinds = ['private', 'range', 'single'] as const

/** Pulls, starts, and lists what the container has: in its own user namespace, where there is one. */
const program = `
import { Engine } from '${new URL('../../src/container/engine.ts', import.meta.url).href}'
import { list } from '${new URL('trees.ts', import.meta.url).href}'
const directory = process.env.XDG_RUNTIME_DIR ?? '/run/root'
const lists = {}
for (const [at, reference] of process.argv.slice(1).entries()) {
  // A store of its own for each: what another form of an image brought would not be unpacked again.
  const engine = new Engine({ root: directory + '/data-' + at, runRoot: directory + '/run-' + at })
  await using held = await engine.start(reference)
  await using found = await engine.containers.get(held.id)
  const { pid } = found.info
  const enter = process.getuid() === 0 ? [] : ['nsenter', '--user', '--preserve-credentials', '--target', String(pid), '--']
  lists[reference] = list('/proc/' + pid + '/root', enter)
  await held[Symbol.asyncDispose]()
  await engine.close()
}
process.stdout.write(JSON.stringify(lists))
`

/** What somebody's containers have, by reference. */
async function seen(
  t: ExecutionContext,
  kind: (typeof kinds)[number],
  references: readonly string[],
): Promise<Lists> {
  const host = hostOf(kind)
  const words = ['--mount', '--propagation', 'private', 'bash', '-c', host.script, 'host']
  // That host has a /run of its own, so nothing of this test's is found there.
  const command = [process.execPath, '--input-type=module', '--eval', program, '--', ...references]
  const child = spawn('unshare', [...words, ...command], {
    env: { ...process.env, XDG_RUNTIME_DIR: undefined, ...host.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const [stdout, stderr, [status]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, 'close') as Promise<[number | null]>,
  ])
  t.is(status, 0, `${kind}: ${stderr}`)
  return JSON.parse(stdout) as Lists
}

/** A user's containers get no nodes of an image; where there is one id, links and FIFOs are its own. */
function asSeenBy(kind: (typeof kinds)[number], lines: readonly string[]): string[] {
  if (kind === 'private') return [...lines]
  const own = lines.filter((line) => !/^[^|]*\|0o[26]\d{4}\|/.test(line))
  if (kind === 'range') return own
  return own.map((line) => {
    const bare = /^[^|]*\|0o(?:12\d{4}|1\d{4})\|/.test(line)
    return bare ? line.replace(/\|\d+:\d+\|/, '|0:0|') : line
  })
}

/** Where there is one id, whose a file is in its image stands beside it. */
function trueOwner(line: string): string {
  const [note = '', owner = ''] = /user\.caisson\.owner=([0-9a-f]+);/.exec(line) ?? []
  if (note === '') return line
  return line.replace(note, '').replace('|0:0|', `|${Buffer.from(owner, 'hex').toString()}|`)
}

test('as umoci unpacks them', async (t) => {
  t.timeout(600_000)
  const directory = scratch(t)
  t.teardown(() => {
    for (const name of ['user/session', 'user']) rmdirSync(join(cgroupMount(), name))
  })
  t.teardown(() => release(directory))
  const { host } = await debian(t)
  const made = make(join(directory, 'made'), host)
  const expected: Lists = {}
  for (const [at, { maker, title, reference, layers }] of made.entries()) {
    const from = `docker://${reference}`
    const raw = must('skopeo', 'inspect', '--raw', '--tls-verify=false', from)
    const manifest = JSON.parse(raw) as { layers: { mediaType: string }[] }
    t.is(manifest.layers.length, layers, title)
    const wanted = title.includes('zstd') ? /zstd$/ : /gzip$/
    t.true(
      manifest.layers.every(({ mediaType }) => wanted.test(mediaType)),
      title,
    )
    if (expected[maker] !== undefined) continue
    const [layout, bundle] = [join(directory, `oci-${at}`), join(directory, `bundle-${at}`)]
    const words = ['--src-tls-verify=false', from, `oci:${layout}:made`]
    must('skopeo', 'copy', '--quiet', ...words)
    must('umoci', 'unpack', '--image', `${layout}:made`, bundle)
    expected[maker] = list(join(bundle, 'rootfs'))
    must('rm', '-r', layout, bundle)
  }
  for (const kind of kinds) {
    const lists = await seen(
      t,
      kind,
      made.map(({ reference }) => reference),
    )
    for (const { maker, title, reference } of made) {
      const lines = expected[maker] ?? []
      t.true(lines.length > 50, title)
      t.deepEqual(lists[reference]?.map(trueOwner), asSeenBy(kind, lines), `${title}, ${kind}`)
    }
  }
})
