/** The hosts themselves: what every test on them takes for granted. */
import { readdirSync, readFileSync } from 'node:fs'
import { networkInterfaces } from 'node:os'
import test from 'ava'
import { isRoot } from './ground.ts'

test('cgroup v2, and nothing else, is at /sys/fs/cgroup, with no group of another run', (t) => {
  const below = readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((line) => line.split(' ')[4]?.startsWith('/sys/fs/cgroup'))
  t.is(below.length, 1)
  t.regex(below[0] ?? '', / \/sys\/fs\/cgroup .* - cgroup2 /)
  const groups = readdirSync('/sys/fs/cgroup', { withFileTypes: true }).filter((entry) => entry.isDirectory())
  // On hosts with users one of them has that one.
  const delegated = isRoot ? [] : ['user']
  t.deepEqual(
    groups.map(({ name }) => name),
    delegated,
  )
})

test('the network is lo alone, and lo is up', (t) => {
  t.deepEqual(Object.keys(networkInterfaces()), ['lo'])
  t.regex(readFileSync('/proc/net/route', 'utf8'), /^Iface.*\n$/)
})

test('processes are the host’s own: the first one is its script', (t) => {
  t.is(readFileSync('/proc/1/cmdline', 'utf8').split('\0')[0]?.endsWith('bash'), true)
})

test('/run is empty but for what the host makes, and can be written', (t) => {
  t.regex(readFileSync('/proc/self/mountinfo', 'utf8'), / \/run rw,.* - tmpfs /)
  t.false(readdirSync('/run').includes('caisson'))
})
