/** What a program gives the methods of images. */
import test from 'ava'
import { Engine } from '../../src/index.ts'
import { given } from '../../src/image/given.ts'

test('options that are unknown, of the wrong kind, or somebody else’s are refused by name', (t) => {
  const of = (options: object): object =>
    given<{ all?: boolean; keepStorage?: string }>(options, 'all', 'keepStorage')
  t.deepEqual({ ...of({ all: true, keepStorage: undefined }) }, { all: true })
  for (const [options, message] of [
    [{ keepStorag: '1g' }, 'keepStorag: unknown option'],
    [{ force: true }, 'force: unknown option'],
    [{ all: 'yes' }, 'all: a value of type boolean is wanted, not string'],
    [{ keepStorage: [] }, 'keepStorage: a value of type string or number is wanted, not array'],
    [[], 'options: an object is wanted, not array'],
  ] as const) {
    t.like(
      t.throws(() => of(options)),
      { code: 'ERR_INVALID_OPTION', message },
    )
  }
  const inherited = Object.create({ all: true }) as object
  t.deepEqual({ ...of(inherited) }, {})
})

test('each method says so', async (t) => {
  const { images } = new Engine({ root: '/nowhere', runRoot: '/nowhere' })
  const odd = { platfrom: 'linux/arm64' } as object
  for (const call of [
    () => images.pull('a', odd),
    () => images.load('a', odd),
    () => images.import('a', odd),
    () => images.save('a', 'b', odd),
    () => images.push('a', odd),
    () => images.remove('a', odd),
    () => images.prune(odd),
    () => images.verify('a', odd),
  ]) {
    t.like(await t.throwsAsync(async () => void (await call())), { message: 'platfrom: unknown option' })
  }
  const none = undefined as unknown as string
  t.like(await t.throwsAsync(async () => void (await images.pull(none))), { code: 'ERR_INVALID_OPTION' })
})
