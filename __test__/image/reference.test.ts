import test from 'ava'
import { parseReference } from '../../src/image/reference.ts'

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

test('what is no layout is no image yet', (t) => {
  for (const reference of ['debian:12', '', 'OCI:/a', 'docker://x', '/images/a']) {
    t.like(
      t.throws(() => parseReference(reference)),
      { code: 'ERR_IMAGE_NOT_FOUND', subject: reference },
    )
  }
})
