/** What is kept, and what goes: names, dangling images, collecting, and what a container or a pull still needs. */
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import type { ExecutionContext } from 'ava'
import type { Engine } from '../../src/container/engine.ts'
import { tryLock } from '../../src/state/lock.ts'
import { debian } from '../registry/debian.ts'
import * as layouts from './layouts.ts'
import { engine, held, scratch } from './store.ts'

interface Scene {
  directory: string
  host: string
  one: Engine
  /** Puts an image of these layers under a name of the registry. */
  publish: (name: string, layers: readonly Buffer[]) => string
}

async function scene(t: ExecutionContext): Promise<Scene> {
  const directory = scratch(t)
  const { host } = await debian(t)
  let serial = 0
  const publish = (name: string, layers: readonly Buffer[]): string => {
    const layout = join(directory, `layout-${(serial += 1)}`)
    layouts.layout(layout, { layers }, 'x')
    const words = ['copy', '-q', '--dest-tls-verify=false', `oci:${layout}:x`, `docker://${host}/${name}`]
    const { status, stderr } = spawnSync('skopeo', words, { encoding: 'utf8' })
    t.is(status, 0, stderr)
    return `${host}/${name}`
  }
  return { directory, host, one: engine(t, directory), publish }
}

const base = layouts.busybox()
const extra = (content: string): Buffer => layouts.tar([{ name: 'extra', content }])

function blobs(directory: string): number {
  return readdirSync(join(directory, 'data/images/blobs/sha256')).length
}

test('layers that images share stay for as long as one of them does', async (t) => {
  const { directory, one, publish } = await scene(t)
  const [first, second] = [publish('first:1', [base, extra('1')]), publish('second:1', [base, extra('2')])]
  await one.images.pull(first)
  await one.images.pull(second)
  t.like(held(directory), { layers: 3, facts: 2 })
  // Two layers of each, one of them shared; a config and a manifest of each.
  t.is(blobs(directory), 7)
  const { untagged, deleted } = await one.images.remove(first)
  t.deepEqual(untagged, [first])
  t.is(deleted.length, 1)
  t.like(held(directory), { layers: 2, facts: 1 })
  t.is(blobs(directory), 4)
  t.is((await one.run(second, ['cat', '/extra'], { pull: 'never' })).stdout, '2')
  await one.images.remove(second)
  t.like(held(directory), { layers: 0, facts: 0 })
  t.is(blobs(directory), 0)
  t.false(existsSync(join(directory, 'data/trash')))
})

test('a tag that moves leaves a dangling image, which a prune removes', async (t) => {
  const { one, publish } = await scene(t)
  const name = publish('moves:1', [base, extra('old')])
  const old = await one.images.pull(name)
  publish('moves:1', [base, extra('new')])
  const fresh = await one.images.pull(name)
  t.not(fresh.id, old.id)
  t.is((await one.run(name, ['cat', '/extra'])).stdout, 'new')
  const [dangling] = (await one.images.list()).filter(({ names }) => names.length === 0)
  t.is(dangling?.id, old.id)
  t.like(await one.images.get(old.id.slice('sha256:'.length, 20)), { id: old.id, names: [] })
  const pruned = await one.images.prune()
  t.deepEqual(pruned.deleted, [old.id])
  t.true(pruned.reclaimed > 0)
  t.deepEqual(
    (await one.images.list()).map(({ id }) => id),
    [fresh.id],
  )
})

test('an image of which a container runs is not removed, by any program', async (t) => {
  const { directory, one, publish } = await scene(t)
  const name = publish('used:1', [base, extra('used')])
  await one.images.pull(name)
  const running = await one.start(name, ['sh', '-c', 'while :; do sleep .05; done'])
  const other = engine(t, directory)
  t.like(await t.throwsAsync(other.images.remove(name)), { code: 'ERR_IMAGE_IN_USE' })
  // By force its name goes. What the container has under it stays.
  await other.images.remove(name, { force: true })
  t.deepEqual(await other.images.list(), [])
  t.like(held(directory), { layers: 2, facts: 1 })
  t.is((await running.exec(['cat', '/extra'])).stdout, 'used')
  t.is((await other.images.prune({ all: true })).deleted.length, 0)
  t.is((await running.exec(['cat', '/extra'])).stdout, 'used')
  await running.stop({ timeout: 0 })
  await other.images.prune()
  t.like(held(directory), { layers: 0, facts: 0 })
})

test('while somebody pulls nothing is collected; who ends last does it', async (t) => {
  const { directory, one, publish } = await scene(t)
  const [first, second] = [publish('first:1', [base]), publish('second:1', [base, extra('2')])]
  await one.images.pull(first)
  // What a pull holds from its first look to the name.
  const pulling = tryLock(join(directory, 'data/keep'), 'shared')
  t.truthy(pulling)
  await one.images.remove(first)
  t.like(held(directory), { layers: 1, facts: 1 })
  pulling?.release()
  await one.images.pull(second)
  t.like(held(directory), { layers: 2, facts: 1 })
  t.is((await one.run(second, ['cat', '/extra'], { pull: 'never' })).stdout, '2')
})

test('an image has one id and many names', async (t) => {
  const { one, publish, host } = await scene(t)
  const name = publish('named:1', [base])
  const { id } = await one.images.pull(name)
  await one.images.tag(name, `${host}/other:2`)
  await one.images.tag(id, 'short')
  t.deepEqual((await one.images.get(id)).names, [name, `${host}/other:2`, 'short:latest'])
  const hex = id.slice('sha256:'.length)
  for (const reference of [id, hex, hex.slice(0, 12), 'short', 'docker.io/library/short:latest', name])
    t.is((await one.images.get(reference)).id, id, reference)
  t.like(await t.throwsAsync(one.images.get('nothing')), { code: 'ERR_IMAGE_NOT_FOUND' })
  t.like(await t.throwsAsync(one.images.get('')), { code: 'ERR_INVALID_OPTION' })
  t.like(await t.throwsAsync(one.images.tag(name, `a@sha256:${'0'.repeat(64)}`)), { subject: 'target' })
  t.like(await t.throwsAsync(one.images.remove(hex)), { code: 'ERR_IMAGE_IN_USE' })
  t.deepEqual(await one.images.remove('short'), { untagged: ['short:latest'], deleted: [] })
  t.is((await one.images.remove(hex, { force: true })).untagged.length, 2)
  t.deepEqual(await one.images.list(), [])
})

test('layers that are gone are made again of their blobs, and blobs that are gone are pulled', async (t) => {
  const { directory, one, publish } = await scene(t)
  const name = publish('lost:1', [base, extra('here')])
  await one.images.pull(name)
  await one.close()
  for (const part of ['layers', 'facts', 'layouts'])
    spawnSync('unshare', ['--user', '--map-root-user', 'rm', '-rf', join(directory, 'data', part)])
  rmSync(join(directory, 'data/layers'), { recursive: true, force: true })
  const again = engine(t, directory)
  t.is((await again.run(name, ['cat', '/extra'], { pull: 'never' })).stdout, 'here')
  await again.images.prune({ blobs: true })
  t.is(blobs(directory), 2)
  t.is((await again.run(name, ['cat', '/extra'], { pull: 'never' })).stdout, 'here')
  t.like(await t.throwsAsync(again.images.push(name)), { code: 'ERR_IMAGE_NOT_FOUND' })
})
