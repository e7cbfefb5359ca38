/** An image's config: security.md D7, D11. */
import test from 'ava'
import { parseConfig } from '../../src/image/config.ts'
import { hostArchitecture } from '../../src/image/manifest.ts'
import type { Config } from '../../src/image/config.ts'

const diffId = `sha256:${'ab'.repeat(32)}`
const platform = { os: 'linux', architecture: process.arch === 'x64' ? 'amd64' : process.arch }
const rootfs = { type: 'layers', diff_ids: [diffId] }

function parse(config: unknown, document: object = {}): Config {
  return parseConfig(Buffer.from(JSON.stringify({ ...platform, rootfs, config, ...document })), 'config', 1)
}

test('the fields that are read', (t) => {
  const config = {
    Entrypoint: ['/e', 'x'],
    Cmd: ['c'],
    Env: ['A=b', 'C=', 'NAME'],
    User: 'alice:users',
    WorkingDir: '/w',
    StopSignal: 'SIGINT',
  }
  t.deepEqual(parse(config), {
    config: {
      entrypoint: ['/e', 'x'],
      cmd: ['c'],
      env: ['A=b', 'C=', 'NAME'],
      user: 'alice:users',
      workdir: '/w',
      stopSignal: 'SIGINT',
    },
    diffIds: [diffId],
    platform: { os: 'linux', architecture: hostArchitecture(), variant: undefined },
  })
  const nulls = {
    Entrypoint: null,
    Cmd: null,
    Env: null,
    User: '',
    WorkingDir: '',
    StopSignal: '',
    Labels: null,
  }
  t.deepEqual(parse(nulls).config, {})
  t.deepEqual(parse(null).config, {})
  t.deepEqual(parse(undefined).config, {})
})

test('labels, annotations and what else an image says select nothing', (t) => {
  const hostile = {
    Labels: {
      'containerd.io/restart.loguri': 'binary:///bin/touch?/bait',
      'run.oci.hooks.stdout': '/bait',
      'io.caisson.privileged': 'true',
    },
    Volumes: { '/etc': {} },
    ExposedPorts: { '22/tcp': {} },
    Healthcheck: { Test: ['CMD', 'x'] },
    Shell: ['/bin/sh', '-c'],
    OnBuild: ['RUN x'],
    Memory: 1,
    Privileged: true,
    HostConfig: { Privileged: true },
  }
  t.deepEqual(parse(hostile, { annotations: { 'run.oci.hooks': 'x' }, hooks: {}, process: {} }).config, {})
})

test('a workdir is absolute', (t) => {
  t.is(parse({ WorkingDir: 'a/../../b' }).config.workdir, '/b')
})

const signals: [string, string | undefined][] = [
  ['SIGTERM', 'SIGTERM'],
  ['quit', 'quit'],
  ['9', '9'],
  ['SIGRTMIN+3', '37'],
  ['RTMAX-1', '63'],
  ['SIGRTMIN', '34'],
  ['99', undefined],
  ['0', undefined],
  ['-1', undefined],
  ['KILL;x', undefined],
  ['SIGNOPE', undefined],
  ['constructor', undefined],
  ['SIGRTMIN-1', undefined],
  ['SIGRTMAX+1', undefined],
  ['SIGRTMIN+31', undefined],
]
for (const [word, stopSignal] of signals) {
  test(`StopSignal ${word} is ${stopSignal ?? 'refused'}`, (t) => {
    if (stopSignal === undefined) {
      t.like(
        t.throws(() => parse({ StopSignal: word })),
        { code: 'ERR_INVALID_IMAGE' },
      )
    } else t.is(parse({ StopSignal: word }).config.stopSignal, stopSignal)
  })
}

const refused: [string, unknown, string, object?][] = [
  ['a NUL in Env', { Env: ['A=b\0C=d'] }, 'ERR_INVALID_IMAGE'],
  ['Env without a name', { Env: ['=x'] }, 'ERR_INVALID_IMAGE'],
  ['Env as an object', { Env: { A: 'b' } }, 'ERR_INVALID_IMAGE'],
  ['Env of numbers', { Env: [1] }, 'ERR_INVALID_IMAGE'],
  ['5,000 variables', { Env: Array.from({ length: 5000 }, () => 'A=b') }, 'ERR_IMAGE_LIMIT'],
  ['2 MiB of Env', { Env: [`A=${'x'.repeat(2 << 20)}`] }, 'ERR_IMAGE_LIMIT'],
  ['a Cmd that is a string', { Cmd: 'sh -c x' }, 'ERR_INVALID_IMAGE'],
  ['an Entrypoint that is a number', { Entrypoint: 1 }, 'ERR_INVALID_IMAGE'],
  ['a User that is a number', { User: 0 }, 'ERR_INVALID_IMAGE'],
  ['a NUL in User', { User: 'a\0' }, 'ERR_INVALID_IMAGE'],
  ['a long WorkingDir', { WorkingDir: `/${'x'.repeat(5000)}` }, 'ERR_IMAGE_LIMIT'],
  ['Labels that are an array', { Labels: [] }, 'ERR_INVALID_IMAGE'],
  ['a Shell that is a string', { Shell: 'sh' }, 'ERR_INVALID_IMAGE'],
  ['a config that is an array', [], 'ERR_INVALID_IMAGE'],
  ['another processor', {}, 'ERR_UNSUPPORTED', { architecture: 's390x' }],
  ['another system', {}, 'ERR_UNSUPPORTED', { os: 'windows' }],
  ['no system', {}, 'ERR_INVALID_IMAGE', { os: undefined }],
  ['no rootfs', {}, 'ERR_INVALID_IMAGE', { rootfs: undefined }],
  ['rootfs of another type', {}, 'ERR_INVALID_IMAGE', { rootfs: { ...rootfs, type: 'x' } }],
  ['too few diff ids', {}, 'ERR_INVALID_IMAGE', { rootfs: { ...rootfs, diff_ids: [] } }],
  ['too many diff ids', {}, 'ERR_INVALID_IMAGE', { rootfs: { ...rootfs, diff_ids: [diffId, diffId] } }],
  ['a diff id that is a path', {}, 'ERR_DIGEST', { rootfs: { ...rootfs, diff_ids: ['sha256:../../x'] } }],
]
for (const [name, config, code, document] of refused) {
  test(`${name}: ${code}`, (t) => {
    t.like(
      t.throws(() => parse(config, document)),
      { code, stage: 'resolve' },
    )
  })
}

test('its steps are objects', (t) => {
  for (const history of [[null], [[]], ['x'], [{}, 1], {}, 'x'])
    t.throws(() => parse({}, { history }), { code: 'ERR_INVALID_IMAGE', message: /^config: history / })
  t.throws(() => parse({}, { history: Array.from({ length: 8193 }, () => ({})) }), {
    code: 'ERR_IMAGE_LIMIT',
  })
  for (const history of [undefined, null, [], [{ created_by: 'x', empty_layer: true }, {}]])
    t.notThrows(() => parse({}, { history }))
})
