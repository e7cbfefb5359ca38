/** A host takes everything down with it, however it ends. Hosts nest, so these run in one and look from outside. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import test, { type ExecutionContext } from 'ava'
import { settled, take } from './ledger.ts'

const program = fileURLToPath(new URL('run.ts', import.meta.url))

function host(...words: string[]): ChildProcess {
  return spawn(process.execPath, [program, ...words], { stdio: ['ignore', 'ignore', 'inherit'] })
}

/** Waits until a file is there, ten seconds at most. */
async function appears(t: ExecutionContext, path: string): Promise<void> {
  for (let left = 500; left > 0 && !existsSync(path); left -= 1) await sleep(20)
  t.true(existsSync(path), path)
}

/** Groups whose processes include one of this name. */
function groupsOf(name: string): string[] {
  return readdirSync('/sys/fs/cgroup')
    .filter((group) => group.startsWith('caisson.host.'))
    .filter((group) =>
      readFileSync(`/sys/fs/cgroup/${group}/cgroup.procs`, 'utf8')
        .split('\n')
        .some((pid) => pid !== '' && readFileSync(`/proc/${pid}/comm`, 'utf8') === `${name}\n`),
    )
}

/** Directories that hosts share with a UML machine. */
function exchanges(): string[] {
  return readdirSync(tmpdir()).filter((name) => name.startsWith('caisson-uml-'))
}

test('the exit status is the command’s, and nothing is left', async (t) => {
  const before = take()
  const [status] = (await once(host('private', '--', 'bash', '-c', 'sleep 60 & exit 7'), 'exit')) as [number]
  t.is(status, 7)
  t.is(await settled(before), '')
})

for (const signal of ['SIGKILL', 'SIGTERM', 'SIGINT'] as const) {
  test(`${signal} in the middle`, async (t) => {
    const dir = mkdtempSync(join(tmpdir(), 'cage-'))
    t.teardown(() => {
      rmSync(dir, { recursive: true })
    })
    const before = take()
    // The group that the host's own code makes inside counts too.
    const inside = `mkdir /sys/fs/cgroup/inner; setsid sleep 60 & echo >${dir}/up; exec sleep 60`
    const child = host('private', '--', 'bash', '-c', inside)
    await appears(t, join(dir, 'up'))
    t.is(groupsOf('sleep').length, 1)
    child.kill(signal)
    await once(child, 'exit')
    t.is(await settled(before, [], 10_000), '')
  })
}

test('its time is bounded', async (t) => {
  const before = take()
  const [status] = (await once(host('private', '--timeout', '0.5', '--', 'sleep', '60'), 'exit')) as [number]
  t.is(status, 137)
  t.is(await settled(before), '')
})

test('a UML machine goes with SIGKILL too', async (t) => {
  const before = take()
  const old = new Set(exchanges())
  const child = host('uml', '--', 'sleep', '60')
  for (let left = 500; left > 0 && groupsOf('linux').length === 0; left -= 1) await sleep(20)
  t.is(groupsOf('linux').length, 1)
  child.kill('SIGKILL')
  await once(child, 'exit')
  t.is(await settled(before, [], 10_000), '')
  t.deepEqual(
    exchanges().filter((name) => !old.has(name)),
    [],
  )
})
