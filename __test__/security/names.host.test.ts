/** Names that would come to stand for other images than they say (security.md D13). */
import { join } from 'node:path'
import * as archives from '../image/archives.ts'
import { archive, docker } from '../image/archives.ts'
import * as layouts from '../image/layouts.ts'
import { indexed, options, refusedPull } from '../image/lies.ts'
import { publish, registryOf } from '../image/published.ts'
import { empty, engine, held, scratch } from '../image/store.ts'
import { row } from './row.ts'

const base = layouts.busybox()
const which = (content: string): layouts.ImageOptions => ({
  layers: [base, layouts.tar([{ name: 'which', content }])],
  compress: true,
})

row('D13', 'what one repository served is not another’s', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const { manifest } = publish(registry, directory, which('evil'), 'latest', 'evil/app')
  publish(registry, directory, which('good'), 'latest', 'good/app')
  const one = engine(t, directory)
  await one.pull(`${registry.host}/evil/app`)
  const run = one.run(`${registry.host}/good/app@${manifest.digest}`, ['cat', '/which'])
  t.like(await t.throwsAsync(run), { code: 'ERR_IMAGE_NOT_FOUND' })
})

row('D13', 'a name that stands for another image moves, and that is said', async (t) => {
  const directory = scratch(t)
  const one = engine(t, directory)
  const second = archives.config([base], { Cmd: ['echo', 'second'] })
  const [first, other] = [
    archive(join(directory, '1.tar'), docker([{ layers: [base], RepoTags: ['hello:1'] }])),
    archive(join(directory, '2.tar'), docker([{ layers: [base], RepoTags: ['hello:1'], config: second }])),
  ]
  const said: object[] = []
  const onProgress = (progress: { kind: string }): void => {
    if (progress.kind !== 'layer') said.push(progress)
  }
  const id = layouts.sha256(archives.config([base]))
  for (const file of [first, first, other]) await one.images.load(file, { onProgress })
  t.deepEqual(said, [
    { kind: 'loaded', name: 'hello:1', id },
    { kind: 'loaded', name: 'hello:1', id },
    { kind: 'renamed', name: 'hello:1', id },
    { kind: 'loaded', name: 'hello:1', id: layouts.sha256(second) },
  ])
  t.is((await one.run('hello:1')).stdout, 'second\n')
  t.deepEqual((await one.images.get(id)).names, [])
})

row('D13', 'a name with a digest is a registry’s word, which an archive cannot give', async (t) => {
  const directory = scratch(t)
  const one = engine(t, directory)
  const RepoTags = [`good/name@${layouts.sha256('evil')}`]
  const [image] = await one.images.load(
    archive(join(directory, 'a.tar'), docker([{ layers: [base], RepoTags }])),
  )
  t.deepEqual([image?.names, image?.repoDigests], [[], []])
  await t.throwsAsync(one.images.get(RepoTags[0] ?? ''), { code: 'ERR_IMAGE_NOT_FOUND' })
})

row('D13', 'names that look like others', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  publish(registry, directory, which('one'))
  const one = engine(t, directory)
  for (const name of [
    '\u0430pp',
    'App',
    '/app',
    'a/../app',
    'app/',
    'app%2f',
    'a p',
    'app\u200b',
    '\uff41pp',
    'app:l\u0430test',
  ]) {
    const pull = one.pull(`${registry.host}/${name}`)
    t.like(await t.throwsAsync(pull), { code: 'ERR_INVALID_OPTION' }, name)
  }
  t.deepEqual(registry.seen, [])
  t.deepEqual(held(directory), empty)
})

row('D13', 'an image for another platform than its index says', (t) =>
  refusedPull(t, 'ERR_UNSUPPORTED', (scene) => {
    const document = { architecture: 's390x' }
    const { manifest: foreign } = publish(
      scene.registry,
      join(scene.directory, 'other'),
      { ...options, document },
      'x',
    )
    indexed(scene, foreign)
  }),
)

row('D13', 'an image for another platform, without an index', (t) =>
  refusedPull(t, 'ERR_UNSUPPORTED', ({ registry, directory }) => {
    publish(registry, join(directory, 'other'), { ...options, document: { architecture: 's390x' } })
  }),
)
