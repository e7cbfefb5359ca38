/** What the machines are for: controllers that are held elsewhere outside. */
import { readFileSync } from 'node:fs'
import test from 'ava'

test('the controllers of every limit are there', (t) => {
  const controllers = readFileSync('/sys/fs/cgroup/cgroup.controllers', 'utf8').trim().split(' ')
  for (const controller of ['cpu', 'io', 'memory', 'pids'])
    t.true(controllers.includes(controller), controller)
})

test('the modules for overlays and networks are loaded', (t) => {
  const filesystems = readFileSync('/proc/filesystems', 'utf8')
  t.regex(filesystems, /\toverlay\n/)
  const modules = readFileSync('/proc/modules', 'utf8')
  for (const name of ['veth', 'bridge', 'nf_tables']) t.regex(modules, new RegExp(`^${name} `, 'm'))
})
