/** Containers of other programs of the same user. */
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import test from 'ava'
import type { ExecutionContext } from 'ava'
import { Engine } from '../../src/index.ts'
import { rootTest } from '../host/only.ts'
import { rootfs, scale, scene } from './scene.ts'

const api = new URL('../../src/index.ts', import.meta.url).href

/** A program that holds containers with these names, until its stdin ends. */
async function program(t: ExecutionContext, root: string, names: readonly string[]): Promise<ChildProcess> {
  const text = `
    import { Engine } from '${api}'
    const engine = new Engine({ root: ${JSON.stringify(root)} })
    const held = await Promise.all(${JSON.stringify(names)}.map((name) =>
      engine.start({ rootfs: ${JSON.stringify(rootfs)} },
        ['sh', '-c', 'trap "exit 9" TERM; echo 1 >/tmp/mine; httpd -p 80 -h /tmp; while :; do sleep .02; done'],
        { name, labels: { of: name }, env: { NAME: name } })))
    console.log('up')
    for (const one of held) one.wait().then(({ exitCode, cause }) => console.log(one.name, exitCode, cause), () => {})
    process.stdin.resume().once('end', async () => { await engine.close(); process.exit() })
  `
  const child = spawn(process.execPath, ['--input-type=module-typescript', '-e', text], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  t.teardown(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return
    child.stdin.end()
    await once(child, 'exit')
  })
  await once(child.stdout, 'data')
  return child
}

test('they are listed, found, entered, dialled, counted, and ended', async (t) => {
  const { root } = await scene(t)
  const engine = new Engine({ root })
  t.deepEqual(await engine.containers.list(), [])
  const [one] = await Promise.all([program(t, root, ['a1', 'a2']), program(t, root, ['b1'])])
  const known = await engine.containers.list()
  const names = known.map(({ name }) => name ?? '')
  t.deepEqual(
    names.toSorted((a, b) => a.localeCompare(b)),
    ['a1', 'a2', 'b1'],
  )
  const info = known.find(({ name }) => name === 'a1')
  t.like(info, { labels: { of: 'a1' }, image: rootfs, workdir: '/' })
  t.true(info?.env.includes('NAME=a1'))
  t.true(Math.abs(Date.now() - Number(info?.created)) < 60_000)
  t.is(readFileSync(`/proc/${info?.pid}/comm`, 'utf8'), 'sh\n')
  t.truthy(info?.isolation.namespaces.pid)

  await using found = await engine.containers.get('a1')
  t.is<string | undefined, string | undefined>(found.id, info?.id)
  const { stdout, exitCode } = await found.exec(['sh', '-c', 'cat /tmp/mine; echo $NAME $HOSTNAME; exit 5'])
  t.deepEqual([stdout, exitCode], [`1\na1 ${found.id.slice(0, 12)}\n`, 5])
  t.true((await found.stats()).cpu.user !== undefined || found.info.isolation.cgroup === '')
  const socket = await found.dial(80)
  socket.end('GET /mine HTTP/1.0\r\n\r\n')
  let answer = ''
  for await (const chunk of socket) answer += String(chunk)
  t.regex(answer, /\n1\n$/)

  // By the beginning of its id, from yet another engine.
  await using same = await new Engine({ root }).containers.get(found.id.slice(0, 20))
  t.is(same.name, 'a1')
  const output = one.stdout as NodeJS.ReadableStream
  const told = once(output, 'data')
  await same.stop()
  t.is(String((await told)[0]), 'a1 9 exit\n')
  await found.wait()
  await t.throwsAsync(found.exec(['true']), { code: 'ERR_NOT_RUNNING' })
  await t.throwsAsync(found.stats(), { code: 'ERR_NOT_RUNNING' })

  await using other = await engine.containers.get('a2')
  const gone = once(output, 'data')
  other.kill()
  await other.wait()
  t.is(String((await gone)[0]), 'a2 null killed\n')
  for (const ref of ['a1', 'zz', 'a1-'])
    await t.throwsAsync(engine.containers.get(ref), { code: 'ERR_CONTAINER_NOT_FOUND' })
  await t.throwsAsync(engine.containers.get(''), { code: 'ERR_INVALID_OPTION' })
})

test('a name that two have is nobody’s', async (t) => {
  const { engine, root } = await scene(t)
  await program(t, root, ['same'])
  await using held = await engine.start({ rootfs }, ['sleep', '600'], { name: 'same' })
  await t.throwsAsync(engine.containers.get('same'), { message: /^same is more than one container: / })
  await using own = await engine.containers.get(held.id)
  t.is((await own.exec(['echo', 'own'])).stdout, 'own\n')
})

test('what another program started in it ends with that program, and nothing else does', async (t) => {
  const { engine, root } = await scene(t)
  await using held = await engine.start({ rootfs }, ['sleep', '600'])
  const text = `
    import { Engine } from '${api}'
    const found = await new Engine({ root: ${JSON.stringify(root)} }).containers.get('${held.id}')
    const command = found.exec(['sh', '-c', 'sleep 601 & sleep 602'])
    await command.started
    console.log('up')
  `
  const child = spawn(process.execPath, ['--input-type=module-typescript', '-e', text], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  await once(child.stdout, 'data')
  const sleeping = async (): Promise<number> =>
    [...(await held.exec(['ps', '-o', 'args'])).stdout.matchAll(/^sleep 60\d$/gm)].length
  for (let look = 0; look < 100 && (await sleeping()) < 3; look += 1) await sleep(10)
  t.is(await sleeping(), 3)
  child.kill('SIGKILL')
  await once(child, 'exit')
  for (let look = 0; look < 200 && (await sleeping()) > 1; look += 1) await sleep(10)
  t.is(await sleeping(), 1)
})

test('a program that is killed is nobody’s peer, and one that is stopped holds nobody', async (t) => {
  const { root } = await scene(t)
  const engine = new Engine({ root })
  const child = await program(t, root, ['mortal'])
  const found = await engine.containers.get('mortal')
  const command = found.exec(['sleep', '600'])
  await command.started
  child.kill('SIGKILL')
  await once(child, 'exit')
  const outcome = await command.then(
    ({ signal }) => signal,
    (error: { code?: string }) => error.code,
  )
  t.true(outcome === 'SIGKILL' || outcome === 'ERR_SHIM_LOST', outcome ?? '')
  await found.wait()
  t.deepEqual(await engine.containers.list(), [])
  found.close()
})

test('figures of a command, and what is asked of a connection that is closed', async (t) => {
  const { engine } = await scene(t)
  await using held = await engine.start({ rootfs }, ['sleep', '600'])
  await using found = await engine.containers.get(held.id)
  const command = found.exec(['sleep', '600'])
  await command.started
  const all = await Promise.all([command.stats(), found.stats(), held.stats(), command.stats()])
  t.is(all.length, 4)
  command.kill('SIGKILL')
  t.is((await command).cause, 'killed')
  const waiting = found.wait()
  found.close()
  await t.throwsAsync(waiting, { code: 'ERR_SHIM_LOST' })
})

test('what is asked last is heard, however busy the owner', async (t) => {
  const { engine, root, run } = await scene(t)
  const busy = { yes: true }
  const lanes = Array.from({ length: 6 }, async () => {
    while (busy.yes) await run(['true'])
  })
  for (let round = 0; round < 20 / scale; round += 1) {
    const held = await engine.start({ rootfs }, ['sleep', '600'], { name: `n${round}` })
    const text = `
      import { Engine } from '${api}'
      const found = await new Engine({ root: ${JSON.stringify(root)} }).containers.get('n${round}')
      found.kill()
      found.close()
      process.exit()`
    await once(
      spawn(process.execPath, ['--input-type=module-typescript', '-e', text], { stdio: 'inherit' }),
      'exit',
    )
    t.is((await held.wait()).cause, 'killed')
  }
  busy.yes = false
  await Promise.all(lanes)
})

test('a shim that is stopped keeps nobody', async (t) => {
  const { root } = await scene(t)
  const child = await program(t, root, ['deaf'])
  const children = readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8').trim().split(' ')
  const shim = Number(children.find((pid) => readFileSync(`/proc/${pid}/comm`, 'utf8') === 'caisson-shim\n'))
  process.kill(shim, 'SIGSTOP')
  const text = `
    import { Engine } from '${api}'
    console.log((await new Engine({ root: ${JSON.stringify(root)} }).containers.list()).length)`
  const other = spawn(process.execPath, ['--input-type=module-typescript', '-e', text], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const [code] = (await once(other, 'exit')) as [number]
  t.is(code, 0)
  process.kill(shim, 'SIGCONT')
})

test('more than there is room for is not told, and no reason to refuse', async (t) => {
  const { engine } = await scene(t)
  const env = { A: '漢'.repeat(22_000), B: '漢'.repeat(22_500) }
  await using held = await engine.start({ rootfs }, ['sleep', '600'], {
    env,
    labels: { a: '漢'.repeat(50_000) },
  })
  const [info] = await engine.containers.list()
  t.is(info?.id, held.id)
  await using found = await engine.containers.get(held.id)
  await t.throwsAsync(found.exec(['true']), { code: 'ERR_UNSUPPORTED' })
  t.is((await held.exec(['sh', '-c', 'echo ${#A}'])).exitCode, 0)
})

rootTest('only this user is let in, and no name is abstract', async (t) => {
  const { engine, root } = await scene(t)
  await using held = await engine.start({ rootfs }, ['sleep', '600'], { network: 'host' })
  const shims = join(root, 'run', 'shims')
  const [name = ''] = readdirSync(shims).filter((one) => one.endsWith('.socket'))
  for (const directory of [shims, join(root, 'run'), root]) t.is(statSync(directory).mode & 0o077, 0)
  const { stdout } = await held.exec(['cat', '/proc/net/unix'])
  t.false(/@.*caisson/.test(stdout))
  // Another user that has been let through the directories.
  const path = join(shims, name)
  const attempt = `
    const socket = require('node:net').connect(${JSON.stringify(path)})
    socket.on('error', (error) => { console.log(error.code); process.exit() }).on('connect', () => console.log('IN'))`
  const other = spawn(process.execPath, ['-e', attempt], {
    uid: 2000,
    gid: 2000,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let said = ''
  other.stdout.on('data', (chunk) => (said += String(chunk)))
  await once(other, 'exit')
  t.is(said, 'EACCES\n')
  // What is no packet socket is not even connected.
  const stream = connect(path)
  const [error] = (await once(stream, 'error')) as [NodeJS.ErrnoException]
  t.is(error.code, 'EPROTOTYPE')
})
