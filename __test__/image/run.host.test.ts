/** Images from layouts, run: what their layers and their config say is what the command sees. */
import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import test from 'ava'
import { hasUsers } from '../host/ground.ts'
import { rootTest, usersTest } from '../host/only.ts'
import * as layouts from './layouts.ts'
import { engine, held, scratch } from './store.ts'

const passwd = 'root:x:0:0:root:/root:/bin/sh\nalice:x:1234:1235::/home/alice:/bin/sh\n1000:x:0:0:::\n'
const group = 'root:x:0:\nstaff:x:1235:\nextra:x:2000:alice\n'
const users: layouts.Entry[] = [
  { name: 'etc/', kind: '5' },
  { name: 'etc/passwd', content: passwd },
  { name: 'etc/group', content: group },
]

usersTest('an image that umoci made and skopeo copied', async (t) => {
  const directory = scratch(t)
  const tree = join(directory, 'tree')
  mkdirSync(join(tree, 'bin'), { recursive: true })
  mkdirSync(join(tree, 'etc'))
  copyFileSync('/bin/busybox', join(tree, 'bin/busybox'))
  for (const name of ['sh', 'id', 'pwd', 'echo']) symlinkSync('busybox', join(tree, 'bin', name))
  writeFileSync(join(tree, 'etc/passwd'), passwd)
  writeFileSync(join(tree, 'etc/group'), group)
  for (const file of ['passwd', 'group']) chmodSync(join(tree, 'etc', file), 0o644)
  const [one, two] = [join(directory, 'one'), join(directory, 'two')]
  const umoci = (...words: string[]): void => {
    execFileSync('umoci', words, { stdio: 'pipe' })
  }
  umoci('init', '--layout', one)
  umoci('new', '--image', `${one}:busybox`)
  umoci('insert', '--image', `${one}:busybox`, tree, '/')
  const says = ['--config.user', 'alice', '--config.workingdir', '/srv/work', '--config.env', 'A=from image']
  umoci('config', '--image', `${one}:busybox`, ...says, '--config.entrypoint', 'sh', '--config.cmd', '-c')
  umoci('config', '--image', `${one}:busybox`, '--config.cmd', '-c', '--config.cmd', 'id; pwd; echo $A $HOME')
  execFileSync('skopeo', ['copy', '--quiet', `oci:${one}:busybox`, `oci:${two}:copy`], { stdio: 'pipe' })
  for (const reference of [`oci:${one}:busybox`, `oci:${two}:copy`, `oci:${two}`]) {
    const { stdout } = await engine(t, directory).run(reference)
    t.is(
      stdout,
      'uid=1234(alice) gid=1235(staff) groups=1235(staff),2000(extra)\n/srv/work\nfrom image /home/alice\n',
    )
  }
  t.like(held(directory), { layers: 1, facts: 1 })
})

usersTest('entrypoint, command, environment, user and workdir: options replace the image’s', async (t) => {
  const directory = scratch(t)
  const config = {
    Entrypoint: ['echo', 'entry'],
    Cmd: ['cmd'],
    Env: ['A=image', 'B=image', 'LD_PRELOAD=/x', 'NODE_OPTIONS=--bad'],
    User: '1000',
    WorkingDir: '/w',
  }
  layouts.layout(directory, { layers: [layouts.busybox(...users)], config })
  const image = `oci:${directory}`
  const one = engine(t, directory)
  t.is((await one.run(image)).stdout, 'entry cmd\n')
  t.is((await one.run(image, ['given'])).stdout, 'entry given\n')
  t.is((await one.run(image, ['x'], { entrypoint: ['echo', 'other'] })).stdout, 'other x\n')
  const shell = { entrypoint: ['sh', '-c'] }
  const all = 'id -u; pwd; echo $A $B $C $LD_PRELOAD $NODE_OPTIONS'
  t.is((await one.run(image, [all], shell)).stdout, '1000\n/w\nimage image /x --bad\n')
  const options = { ...shell, env: { A: 'mine', B: undefined, C: 'c' }, user: 'alice', workdir: '/v' }
  t.is((await one.run(image, [all], options)).stdout, '1234\n/v\nmine c /x --bad\n')
})

test('the image’s stop signal ends it', async (t) => {
  const directory = scratch(t)
  layouts.layout(directory, { layers: [layouts.busybox()], config: { StopSignal: 'SIGRTMIN+3' } })
  const script = 'trap "echo stopped; exit 7" 37; echo up; while :; do sleep 0.01; done'
  const result = await engine(t, directory).run(`oci:${directory}`, ['sh', '-c', script], {
    timeout: 500,
    stopTimeout: 5000,
  })
  t.like(result, { exitCode: 7, cause: 'timeout', stdout: 'up\nstopped\n' })
})

test('labels, annotations and the rest of a config reach nothing', async (t) => {
  const directory = scratch(t)
  const bait = join(directory, 'bait')
  const Labels = {
    'containerd.io/restart.loguri': `binary:///bin/touch?${bait}`,
    'run.oci.hooks.stdout': bait,
    'io.caisson.privileged': 'true',
  }
  const hooks = { prestart: [{ path: '/bin/touch', args: ['touch', bait] }] }
  const config = { Labels, Volumes: { [directory]: {} }, HostConfig: { Privileged: true } }
  layouts.layout(directory, {
    layers: [layouts.busybox()],
    config,
    document: { hooks, annotations: Labels },
    manifest: { annotations: Labels, hooks },
  })
  const process = engine(t, directory).run(`oci:${directory}`, ['ls', directory])
  t.deepEqual(process.labels, {})
  const result = await process
  t.is(result.exitCode, 1)
  t.false(existsSync(bait))
})

test('layers: whiteouts, opaque directories, links to lower layers, modes and owners', async (t) => {
  const directory = scratch(t)
  const lower = layouts.busybox(
    { name: 'etc/', kind: '5' },
    { name: 'etc/keep', content: 'keep' },
    { name: 'etc/gone', content: 'gone' },
    { name: 'opaque/', kind: '5' },
    { name: 'opaque/hidden', content: 'x' },
    { name: 'dir/', kind: '5', mode: 0o1777, uid: 5, gid: 6 },
    { name: 'dir/file', content: 'low', mode: 0o640, uid: 7, gid: 8 },
    { name: 'whole/', kind: '5' },
    { name: 'whole/x', content: 'x' },
  )
  const upper = layouts.tar([
    { name: 'etc/.wh.gone' },
    { name: 'opaque/.wh..wh..opq' },
    { name: 'opaque/new', content: 'new' },
    { name: '.wh.whole' },
    { name: 'dir/link', kind: '1', link: 'dir/file' },
    { name: 'dir/suid', content: 'x', mode: 0o4755 },
  ])
  layouts.layout(directory, { layers: [lower, upper], compress: true })
  const { stdout } = await engine(t, directory).run(`oci:${directory}`, [
    'sh',
    '-c',
    'ls -1 / /etc /opaque | grep -v "^$"; cat /dir/link; stat -c "%n %a %u %g %Y" /dir /dir/link /dir/suid',
  ])
  const names = stdout.split('\n')
  for (const gone of ['whole', 'gone', 'hidden']) t.false(names.includes(gone), gone)
  for (const there of ['keep', 'new', 'opaque']) t.true(names.includes(there), there)
  t.true(
    stdout.includes(
      // Of a user without other ids everything is its own.
      hasUsers
        ? 'low/dir 1777 5 6 1000000000\n/dir/link 640 7 8 1000000000\n/dir/suid 4755 0 0'
        : 'low/dir 1777 0 0 1000000000\n/dir/link 640 0 0 1000000000\n/dir/suid 4755 0 0',
    ),
    stdout,
  )
  t.like(held(directory), { layers: 2, unpacking: 0 })
})

test('an image of many layers', async (t) => {
  const directory = scratch(t)
  // Kernels before 6.7 take the names of all layers in one value of 255 bytes.
  const more = Array.from({ length: 60 }, (_, at) => layouts.tar([{ name: `f/${at}`, content: 'x' }]))
  layouts.layout(directory, { layers: [layouts.busybox(), ...more] })
  const { stdout } = await engine(t, directory).run(`oci:${directory}`, ['ls', '/f'])
  t.is(stdout.trim().split('\n').length, more.length)
})

test('a layer that hides all others hides them', async (t) => {
  const directory = scratch(t)
  const lower = layouts.tar([{ name: 'hidden', content: 'x' }])
  const opaque = layouts.busybox({ name: '.wh..wh..opq' })
  layouts.layout(directory, { layers: [lower, opaque, layouts.tar([{ name: 'top', content: 'x' }])] })
  // From the layers as they are unpacked, and from the store's record of them.
  for (const one of [engine(t, directory), engine(t, directory)]) {
    const { stdout } = await one.run(`oci:${directory}`, ['ls', '-1', '/'])
    t.false(stdout.includes('hidden'))
    t.true(stdout.includes('top'))
  }
})

test('what an image takes from its own lower layers is not in another image with the same layer', async (t) => {
  const directory = scratch(t)
  // The same archive in both: it links to a file that the layer below has.
  const shared = layouts.tar([{ name: 'bin/copy', kind: '1', link: 'bin/original' }])
  const base = (content: string): Buffer => layouts.busybox({ name: 'bin/original', content })
  const [evil, good] = ['evil', 'good'].map((name) =>
    layouts.image(directory, { layers: [base(name), shared] }),
  )
  layouts.index(directory, { evil: evil?.manifest ?? {}, good: good?.manifest ?? {} })
  const one = engine(t, directory)
  for (const name of ['evil', 'good']) {
    t.is((await one.run(`oci:${directory}:${name}`, ['cat', '/bin/copy'])).stdout, name)
  }
})

rootTest('device nodes are in the tree, and open nothing', async (t) => {
  const directory = scratch(t)
  const nodes: layouts.Entry[] = [
    { name: 'disk', kind: '4', mode: 0o666, device: [8, 0] },
    { name: 'mem', kind: '3', mode: 0o666, device: [1, 1] },
  ]
  layouts.layout(directory, { layers: [layouts.busybox(...nodes)] })
  const result = await engine(t, directory).run(`oci:${directory}`, [
    'sh',
    '-c',
    'stat -c "%n %F %t,%T" /disk /mem; head -c 1 /disk; head -c 1 /mem; exit 0',
  ])
  t.is(result.stdout, '/disk block special file 8,0\n/mem character special file 1,1\n')
  t.is(result.stderr.match(/Operation not permitted|Permission denied/g)?.length, 2, result.stderr)
})

test('an image without layers has an empty root', async (t) => {
  const directory = scratch(t)
  layouts.layout(directory, { layers: [] })
  const run = engine(t, directory).run(`oci:${directory}`, ['/nothing'])
  t.like(await t.throwsAsync(run), { code: 'ERR_COMMAND_NOT_FOUND' })
  const mounts = [{ type: 'bind' as const, source: '/bin', target: '/bin', readOnly: true }]
  const result = await engine(t, directory).run(`oci:${directory}`, ['/bin/busybox', 'ls', '/'], { mounts })
  t.is(result.stdout, 'bin\ndev\netc\nproc\nsys\n')
})

test('an index with several platforms gives this one', async (t) => {
  const directory = scratch(t)
  const { manifest } = layouts.image(directory, { layers: [layouts.busybox()] })
  const platform = { os: 'linux', architecture: process.arch === 'x64' ? 'amd64' : process.arch }
  const manifests = [
    { ...manifest, digest: `sha256:${'0'.repeat(64)}`, platform: { os: 'linux', architecture: 's390x' } },
    { ...manifest, platform },
    { ...manifest, digest: `sha256:${'1'.repeat(64)}`, platform: { os: 'unknown', architecture: 'unknown' } },
  ]
  const nested = layouts.blob(directory, JSON.stringify({ schemaVersion: 2, manifests }), layouts.types.index)
  layouts.index(directory, { multi: nested })
  t.is((await engine(t, directory).run(`oci:${directory}:multi`, ['echo', 'here'])).stdout, 'here\n')
})

test('a second run reads no blob, in this process and in another', async (t) => {
  const directory = scratch(t)
  const { manifest } = layouts.layout(directory, { layers: [layouts.busybox()] }, 'one')
  const one = engine(t, directory)
  const run = async (tag: string, by = one): Promise<string> =>
    (await by.run(`oci:${directory}:${tag}`, ['echo', 'ran'])).stdout
  t.is(await run('one'), 'ran\n')
  // Blobs are read to make an image ready, and never again: it runs from the store.
  rmSync(join(directory, 'blobs'), { recursive: true })
  t.is(await run('one'), 'ran\n')
  t.is(await run('one', engine(t, directory)), 'ran\n')
  // So it does under another tag, of an index that changed.
  layouts.index(directory, { one: manifest, two: manifest })
  t.is(await run('two'), 'ran\n')
  t.is(await run('one'), 'ran\n')
  // An index that has not changed for a while is not even read: the answer by layout and tag is enough.
  await sleep(200)
  t.is(await run('two'), 'ran\n')
  rmSync(join(directory, 'data/images'), { recursive: true })
  t.is(await run('two', engine(t, directory)), 'ran\n')
  // A tag that is gone is gone.
  layouts.index(directory, { two: manifest })
  t.like(await t.throwsAsync(run('one')), { code: 'ERR_IMAGE_NOT_FOUND' })
  rmSync(join(directory, 'index.json'))
  t.like(await t.throwsAsync(run('two')), { code: 'ERR_IMAGE_NOT_FOUND' })
})

test('an index that is replaced at once, and is as long, is read again', async (t) => {
  const directory = scratch(t)
  const tags = ['a', 'b'].map((content) =>
    layouts.image(directory, { layers: [layouts.busybox({ name: 'which', content })] }),
  )
  const one = engine(t, directory)
  for (const round of [0, 1, 0, 1, 0]) {
    layouts.index(directory, { x: tags[round]?.manifest ?? {} })
    t.is((await one.run(`oci:${directory}:x`, ['cat', '/which'])).stdout, round === 0 ? 'a' : 'b')
  }
})

test('layers that were removed are unpacked again', async (t) => {
  const directory = scratch(t)
  layouts.layout(directory, { layers: [layouts.busybox()] })
  const one = engine(t, directory)
  const run = async (): Promise<string> => (await one.run(`oci:${directory}`, ['echo', 'ran'])).stdout
  t.is(await run(), 'ran\n')
  const layers = join(directory, 'data/layers')
  for (const name of readdirSync(layers)) rmSync(join(layers, name), { recursive: true })
  t.is(await run(), 'ran\n')
})

test('the store is closed to other users', async (t) => {
  const directory = scratch(t)
  layouts.layout(directory, { layers: [layouts.busybox()] })
  await engine(t, directory).run(`oci:${directory}`, ['true'])
  for (const name of ['', 'layers', 'unpacking', 'images', 'layouts']) {
    const { mode, uid } = statSync(join(directory, 'data', name))
    t.deepEqual([mode & 0o7777, uid], [0o700, process.geteuid?.()], name)
  }
})
