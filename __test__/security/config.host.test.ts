/** An image's config is read as words, never as orders (security.md D11). */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import * as layouts from '../image/layouts.ts'
import { publish, registryOf } from '../image/published.ts'
import { empty, engine, held, scratch } from '../image/store.ts'
import { own } from './processes.ts'
import { row } from './row.ts'

row('D11', 'labels and annotations select nothing, variables are the payload’s alone', async (t) => {
  const directory = scratch(t)
  const registry = await registryOf(t, directory)
  const bait = join(directory, 'bait')
  const orders = {
    'containerd.io/restart.loguri': `binary:///usr/bin/touch?${bait}`,
    'cdi.k8s.io/x': 'vendor.example/device=all',
    'run.oci.hooks.stdout': bait,
    'run.oci.handler': 'krun',
    'io.caisson.privileged': 'true',
    'dev.caisson.served': 'sha256:x',
  }
  const Env = ['LD_PRELOAD=/nowhere.so', `NODE_OPTIONS=--require=${bait}`, 'CAISSON_OFF=seal', 'PATH=/bin']
  publish(registry, directory, {
    layers: [layouts.busybox()],
    config: {
      Labels: orders,
      Env,
      Cmd: ['env'],
      OnBuild: ['RUN x'],
      Hooks: { prestart: [{ path: '/bin/touch' }] },
    },
    manifest: { annotations: orders },
  })
  const one = engine(t, directory)
  const image = `${registry.host}/app`
  const { stdout } = await one.run(image)
  for (const variable of Env) t.true(stdout.split('\n').includes(variable), stdout)
  const words = stdout.split('\n').filter((line) => /caisson\.|containerd|run\.oci|cdi/.test(line))
  t.deepEqual(words, [])
  const container = await one.start(image, ['sleep', '600'])
  const others = own()
  await container[Symbol.asyncDispose]()
  t.true(others.length > 0)
  for (const { text } of others) t.false(/LD_PRELOAD|NODE_OPTIONS/.test(text), text)
  t.false(existsSync(bait))
})

const refused: [string, Record<string, unknown>][] = [
  ['a variable with a NUL', { Env: ['A=b\0c'] }],
  ['a variable without a name', { Env: ['=b'] }],
  ['a signal beyond the last', { StopSignal: '99' }],
  ['a signal with more behind it', { StopSignal: 'KILL;x' }],
  ['a signal of nothing', { StopSignal: 'SIGNONE' }],
  ['words that are none', { Cmd: [['sh']] }],
  ['labels that are none', { Labels: ['x'] }],
  ['a user that is none', { User: { uid: 0 } }],
]

for (const [title, config] of refused) {
  row('D11', title, async (t) => {
    const directory = scratch(t)
    const registry = await registryOf(t, directory)
    publish(registry, directory, { layers: [layouts.busybox()], config })
    const [field = ''] = Object.keys(config)
    const error = await t.throwsAsync(engine(t, directory).run(`${registry.host}/app`, ['true']))
    t.like(error, { code: 'ERR_INVALID_IMAGE' })
    t.true(error.message.includes(field), error.message)
    t.deepEqual(held(directory), empty)
  })
}
