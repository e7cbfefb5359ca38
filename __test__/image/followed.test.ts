/** A promise whose progress can be followed. */
import { spawnSync } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import test from 'ava'
import { followed } from '../../src/image/followed.ts'

test('it is awaited, iterated, or both', async (t) => {
  const work = followed<string, number>(async (tell) => {
    await sleep(1)
    for (const step of [1, 2, 3]) tell(step)
    await sleep(1)
    tell(4)
    return 'done'
  })
  const steps: number[] = []
  for await (const step of work) steps.push(step)
  t.deepEqual(steps, [1, 2, 3, 4])
  t.is(await work, 'done')
  for await (const step of work) t.fail(`${step} was told twice`)
})

test('its failure is the loop’s, and the await’s', async (t) => {
  const work = followed<string, number>(async (tell) => {
    await sleep(1)
    tell(1)
    throw new Error('no')
  })
  const steps: number[] = []
  const loop = async (): Promise<void> => {
    for await (const step of work) steps.push(step)
  }
  t.is((await t.throwsAsync(loop())).message, 'no')
  t.deepEqual(steps, [1])
  t.is((await t.throwsAsync(work)).message, 'no')
})

test('who leaves the loop leaves the work', async (t) => {
  const work = followed<string, number>(async (tell) => {
    await sleep(1)
    tell(1)
    await sleep(1)
    tell(2)
    return 'done'
  })
  for await (const step of work) {
    t.is(step, 1)
    break
  }
  t.is(await work, 'done')
})

test('a failure that nobody waits for is an unhandled rejection; one that somebody iterates is not', (t) => {
  const source = new URL('../../src/image/followed.ts', import.meta.url).href
  const end = (how: string): string => {
    const script = `
      const { followed } = await import('${source}')
      const work = followed(async () => { await 0; throw new Error('no') })
      ${how}`
    return spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' }).stderr
  }
  t.regex(end(''), /Error: no/)
  t.is(end('try { for await (const step of work) continue } catch {}'), '')
})
