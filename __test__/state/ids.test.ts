/** Lines of /etc/subuid and /etc/subgid, subuid(5). */
import test from 'ava'
import { subordinate } from '../../src/state/ids.ts'

const user = { name: 'alice', id: 1000 }

test('lines of a user, by name and by number', (t) => {
  t.deepEqual(subordinate('bob:1:2\nalice:100000:65536\n1000:300000:10\n', user), [
    [100000, 65536],
    [300000, 10],
  ])
})

test('what is no range is none', (t) => {
  const lines =
    'alice\nalice:\nalice:x:5\nalice:0:5\nalice:5:0\nalice:1:4294967296\nalice:1.5:2\n\nalicea:1:2\n'
  t.deepEqual(subordinate(lines, user), [])
})

test('a user without a name has no line without one', (t) => {
  t.deepEqual(subordinate(':5:5\n1000:7:7\n', { name: '', id: 1000 }), [[7, 7]])
})
