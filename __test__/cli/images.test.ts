/** The words of commands about images and registries: each flag once, and what becomes of it. */
import test from 'ava'
import * as images from '../../src/cli/flags/images.ts'
import * as registry from '../../src/cli/flags/registry.ts'
import { parseAnywhere, WordError } from '../../src/cli/flags/words.ts'
import type { Flag } from '../../src/cli/flags/words.ts'
import { helpText } from '../../src/cli/help.ts'
import { chosen } from '../../src/cli/transfer.ts'

test('each flag is in its command’s help, and once', (t) => {
  const all = Object.entries({ ...images, ...registry }) as [string, readonly Flag<object>[]][]
  t.true(all.length > 10)
  for (const [command, flags] of all) {
    const names = flags.map(({ long }) => long)
    t.is(new Set(names).size, names.length, command)
    const text = helpText('x', 'y', flags)
    for (const name of names) t.true(text.includes(`--${name}`), `${command} --${name}`)
  }
})

test('platforms: one, all, or this machine’s', (t) => {
  const given = (...words: string[]): object => {
    const draft: images.TransferDraft = { quiet: false, help: false }
    t.deepEqual(parseAnywhere(images.pullFlags, [...words, 'x'], draft), ['x'])
    return chosen(draft)
  }
  t.deepEqual(given(), {})
  t.deepEqual(given('--platform', 'linux/arm64'), { platform: 'linux/arm64' })
  t.deepEqual(given('--all-platforms'), { allPlatforms: true })
  t.deepEqual(given('--all-platforms=false', '--platform=arm64'), { platform: 'arm64' })
  t.throws(() => given('--all-platforms', '--platform', 'arm64'), {
    instanceOf: WordError,
    message: '--platform and --all-platforms are mutually exclusive',
  })
  const load: images.LoadDraft = { quiet: false, help: false }
  parseAnywhere(images.loadFlags, ['--all-platforms', '-i', 'x.tar'], load)
  t.deepEqual(chosen(load), { allPlatforms: true })
  const save: images.SaveDraft = { format: 'docker', help: false }
  t.deepEqual(parseAnywhere(images.saveFlags, ['a', '--platform', 'arm', 'b'], save), ['a', 'b'])
  t.is(save.platform, 'arm')
  const push: images.TransferDraft = { quiet: false, help: false }
  t.throws(() => parseAnywhere(images.pushFlags, ['--all-platforms', 'x'], push), {
    message: 'unknown flag: --all-platforms',
  })
})
