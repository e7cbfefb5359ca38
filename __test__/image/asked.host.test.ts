/** What is asked of images and containers, and is no answerable question: refused by the field's name. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import test from 'ava'
import * as layouts from './layouts.ts'
import { engine, scratch } from './store.ts'

test('a signal that is none, and options that are none', async (t) => {
  const directory = scratch(t)
  const one = engine(t, directory)
  mkdirSync(directory, { recursive: true })
  const file = join(directory, 'base.tar')
  writeFileSync(file, layouts.busybox())
  await one.images.import(file, { reference: 'base' })
  const container = await one.start('base', ['sh', '-c', 'while :; do sleep .05; done'])
  const { images } = one
  const acts: Record<string, (options: never) => PromiseLike<unknown>> = {
    pull: (options) => images.pull('base', options),
    load: async (options) => images.load(file, options),
    import: async (options) => images.import(file, options),
    save: async (options) => images.save('base', join(directory, 'out'), options),
    push: async (options) => images.push('base', options),
    verify: async (options) => images.verify('base', options),
    commit: async (options) => container.commit(options),
    export: async (options) => container.export(new PassThrough(), options),
  }
  for (const [name, act] of Object.entries(acts)) {
    const refused = async (options: unknown, subject: string): Promise<void> => {
      const error = await t.throwsAsync(async () => act(options as never), undefined, name)
      t.like(error, { code: 'ERR_INVALID_OPTION', subject }, `${name}: ${error.message}`)
    }
    await refused({ signal: 3 }, 'signal')
    await refused({ signal: null }, 'signal')
    await refused(null, 'options')
    await refused(3, 'options')
  }
  container.kill('SIGKILL')
  await container.wait()
})
