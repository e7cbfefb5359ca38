/** What the doctor says on each host, and inside a container that may not have containers. */
import { readdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import type { Finding } from '../../src/index.ts'
import { hasGroups, hasUsers, isRoot } from '../host/ground.ts'
import { scene } from './scene.ts'

const main = fileURLToPath(new URL('../../bin/caisson.cjs', import.meta.url))

test('what is had, what is not, and what would mend it', async (t) => {
  const { engine } = await scene(t)
  const findings = await engine.doctor()
  const of = (name: string): Finding | undefined => findings.find((finding) => finding.name === name)
  t.is(of('run')?.state, 'ok', JSON.stringify(findings))
  t.is(of('kernel')?.state, 'ok')
  t.is(of('seccomp')?.state, 'ok')
  t.is(of('ids')?.state, hasUsers ? 'ok' : 'less')
  t.is(of('user namespaces') === undefined, isRoot)
  t.is(of('cgroup')?.state, hasGroups ? 'ok' : 'less')
  t.deepEqual(
    findings.filter(({ state, mend }) => (state === 'ok') !== (mend === undefined)),
    [],
  )
  if (!hasUsers)
    t.regex(of('ids')?.mend ?? '', /^sudo usermod --add-subuids \S+ --add-subgids \S+ caisson-single$/)
  t.false(readdirSync(tmpdir()).some((name) => name.startsWith('caisson-doctor-')))
})

// A user of the container's own, who has no part in what the machine's root may do.
if (isRoot) {
  test('where no container runs it says why, and ends with 1', async (t) => {
    const { engine } = await scene(t)
    const { exitCode, stdout, stderr } = await engine.run(
      { rootfs: '/' },
      [process.execPath, '--', main, 'doctor', '--format', 'json'],
      { user: '65534:65534', env: { HOME: '/tmp' } },
    )
    t.is(exitCode, 1, stderr)
    const { runs, findings } = JSON.parse(stdout) as { runs: boolean; findings: Finding[] }
    t.false(runs)
    t.regex(
      findings.find(({ name }) => name === 'run')?.detail ?? '',
      /^ERR_NO_USER_NAMESPACE: .*forbidden here/,
    )
  })
}
