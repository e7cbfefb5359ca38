import test from 'ava'
import { CaissonError } from '../../src/errors.ts'
import { familiar, fullName, parseName, parseReference } from '../../src/image/reference.ts'

const cases: [string, string, string | undefined][] = [
  ['oci:/images/a:latest', '/images/a', 'latest'],
  ['oci:/images/a', '/images/a', undefined],
  ['oci:/images/a/', '/images/a', undefined],
  ['oci:/images/a:b/c:1.0', '/images/a:b/c', '1.0'],
  ['oci:/images/a:b/', '/images/a:b', undefined],
  ['oci:/images/../a:x', '/a', 'x'],
  ['oci:a:b:c', `${process.cwd()}/a:b`, 'c'],
  ['oci:a', `${process.cwd()}/a`, undefined],
  ['oci:./a:v1.2-rc.3_x', `${process.cwd()}/a`, 'v1.2-rc.3_x'],
]

for (const [reference, directory, tag] of cases) {
  test(`${reference} is ${directory} and ${tag}`, (t) => {
    t.deepEqual(parseReference(reference), { directory, tag })
  })
}

for (const reference of [
  'oci:',
  'oci::tag',
  'oci:/a:',
  'oci:/a:b c',
  'oci:/a:-x',
  'oci:/a:lаtest', // a Cyrillic a
  'oci:/a\0:x',
  `oci:/a:${'x'.repeat(129)}`,
]) {
  test(`${JSON.stringify(reference)} is refused`, (t) => {
    t.like(
      t.throws(() => parseReference(reference)),
      { code: 'ERR_INVALID_OPTION', subject: 'image' },
    )
  })
}

const names: [given: string, full: string, familiar: string][] = [
  ['debian', 'docker.io/library/debian:latest', 'debian'],
  ['debian:12', 'docker.io/library/debian:12', 'debian'],
  ['library/debian:12', 'docker.io/library/debian:12', 'debian'],
  ['docker.io/debian', 'docker.io/library/debian:latest', 'debian'],
  ['index.docker.io/a/b:1', 'docker.io/a/b:1', 'a/b'],
  ['a/b', 'docker.io/a/b:latest', 'a/b'],
  ['localhost/a', 'localhost/a:latest', 'localhost/a'],
  ['localhost:5000/a:b', 'localhost:5000/a:b', 'localhost:5000/a'],
  ['Host/a', 'Host/a:latest', 'Host/a'],
  ['[::1]:5000/a/b__c-d.e:T', '[::1]:5000/a/b__c-d.e:T', '[::1]:5000/a/b__c-d.e'],
  [`a:1@sha256:${'0'.repeat(64)}`, `docker.io/library/a@sha256:${'0'.repeat(64)}`, 'a'],
]

for (const [given, full, short] of names) {
  test(`${given} is ${full}`, (t) => {
    const name = parseName(given)
    t.is(fullName(name), full)
    t.is(familiar(name), short)
    // What it is called is its name, too.
    t.is(fullName(parseName(full)), full)
  })
}

for (const reference of [
  '',
  'OCI:/a',
  'docker://x',
  '/images/a',
  'A',
  'a//b',
  'a/',
  '-a',
  'a..b',
  'a_',
  'host.x/A',
  'a:',
  'a:-x',
  `a:${'x'.repeat(129)}`,
  'a b',
  'dеbian',
  'a@sha256:00',
  'a@md5:00',
  'a@',
  'f'.repeat(64),
  `localhost/${'a/'.repeat(130)}a`,
  '-h.example/a',
  'h:123456/a',
]) {
  test(`${JSON.stringify(reference)} names no image`, (t) => {
    const error = t.throws(() => parseName(reference), { instanceOf: CaissonError })
    t.true(['ERR_INVALID_OPTION', 'ERR_DIGEST'].includes(error.code), error.message)
  })
}
