/** What users install: two tarballs, no scripts, no Rust, no network. */
import { execFileSync, spawnSync } from 'node:child_process'
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { leavesNothing } from './host/ledger.ts'

const checkout = fileURLToPath(new URL('..', import.meta.url))

test('the tarballs install into an empty directory, and run a container from there', (t) => {
  // What is packed is what was built; packing writes into pack/ of the checkout, which git does not know.
  execFileSync('npm', ['run', 'pack'], { cwd: checkout, stdio: 'pipe' })
  const tarballs = readdirSync(join(checkout, 'pack')).filter((name) => name.endsWith('.tgz'))
  t.is(tarballs.length, 2)

  const dir = mkdtempSync(join(tmpdir(), 'caisson-pack.'))
  leavesNothing(t, '/run/caisson-pack')
  t.teardown(() => {
    rmSync(dir, { recursive: true, force: true })
    rmSync('/run/caisson-pack', { recursive: true, force: true })
  })
  writeFileSync(join(dir, 'package.json'), '{ "private": true, "type": "module" }\n')
  // This host has no network but lo; a cache of its own has nothing in it either.
  const env = {
    HOME: dir,
    PATH: [dirname(process.execPath), '/usr/local/bin', '/usr/bin', '/bin'].join(delimiter),
    npm_config_cache: join(dir, 'cache'),
    npm_config_fetch_retries: '0',
    CAISSON_ROOT: '/run/caisson-pack/root',
  }
  const paths = tarballs.map((name) => join(checkout, 'pack', name))
  const options = { cwd: dir, env, encoding: 'utf8' as const }
  execFileSync('npm', ['install', '--ignore-scripts', '--no-audit', '--no-fund', ...paths], options)
  const installed = readdirSync(join(dir, 'node_modules')).filter((name) => !name.startsWith('.'))
  t.deepEqual(installed, ['@caisson', 'caisson'])

  const rootfs = '/run/caisson-pack/rootfs'
  mkdirSync(join(rootfs, 'bin'), { recursive: true })
  copyFileSync('/bin/busybox', join(rootfs, 'bin/busybox'))
  const program = `
    import { run } from 'caisson'
    const { stdout, exitCode } = await run({ rootfs: '${rootfs}' }, ['/bin/busybox', 'echo', 'from a tarball'])
    process.stdout.write(stdout + exitCode)
  `
  writeFileSync(join(dir, 'program.js'), program)
  t.is(execFileSync(process.execPath, ['program.js'], options), 'from a tarball\n0')
  const bin = join(dir, 'node_modules/.bin/caisson')
  const { version } = JSON.parse(readFileSync(join(checkout, 'package.json'), 'utf8')) as { version: string }
  t.regex(execFileSync(bin, ['version'], options), new RegExp(version.replaceAll('.', '\\.')))
  const words = ['run', '--rm', '--rootfs', rootfs, '/bin/busybox', 'echo', 'from the CLI']
  t.is(execFileSync(bin, words, options), 'from the CLI\n')
  // Not Node's flag, which ends with 9 and Node's words.
  const wrong = spawnSync(bin, ['run', '--env-file', '/nowhere', '--rootfs', rootfs, '/bin/busybox'], options)
  t.is(wrong.status, 125)
  t.regex(wrong.stderr, /^caisson: .*\/nowhere/)
})
