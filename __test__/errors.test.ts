import { readFileSync } from 'node:fs'
import test from 'ava'
import { expectTypeOf } from 'expect-type'
import { CaissonError, type ErrorCode } from '../src/errors.ts'
import * as api from '../src/index.ts'

test('the codes of both languages are one list', (t) => {
  const codes = (path: string): string[] => {
    const text = readFileSync(new URL(path, import.meta.url), 'utf8')
    return [
      ...new Set([...text.matchAll(/['"](ERR_[A-Z_]+)['"]/g)].map((match) => match[1] ?? '')),
    ].toSorted()
  }
  const rust = codes('../crates/core/src/error.rs')
  t.true(rust.length > 10)
  t.deepEqual(
    codes('../src/errors.ts').filter((code) => rust.includes(code)),
    rust,
  )
})

test('an error says what it knows and no more', (t) => {
  const error = new CaissonError('ERR_LAUNCH', 'mount /data: EACCES', {
    stage: 'mount',
    errno: 13,
    subject: '/data',
  })
  t.like(error, { code: 'ERR_LAUNCH', stage: 'mount', errno: 13, subject: '/data', name: 'CaissonError' })
  t.is(String(error), 'CaissonError: mount /data: EACCES')
  const bare = new CaissonError('ERR_INTERNAL', 'a bug')
  t.deepEqual(Object.keys(bare), ['code'])
  t.false('cause' in bare)
  const cause = new Error('underneath')
  t.is(new CaissonError('ERR_INTERNAL', 'a bug', { cause }).cause, cause)
})

test('instanceof holds between two copies of the package, and for nothing else', async (t) => {
  const copy = (await import(new URL('../src/errors.ts?copy', import.meta.url).href)) as typeof api
  t.not(copy.CaissonError, CaissonError)
  t.true(new copy.CaissonError('ERR_DIGEST', 'x') instanceof CaissonError)
  t.true(new CaissonError('ERR_DIGEST', 'x') instanceof Error)
  for (const other of [new Error('x'), null, undefined, 'x', {}]) t.false(other instanceof CaissonError)
  class Special extends CaissonError {}
  t.true(new Special('ERR_DIGEST', 'x') instanceof CaissonError)
  t.false(new CaissonError('ERR_DIGEST', 'x') instanceof Special)
})

test('codes are a closed union for users', (t) => {
  expectTypeOf<api.ErrorCode>().toEqualTypeOf<ErrorCode>()
  expectTypeOf<CaissonError['code']>().toEqualTypeOf<ErrorCode>()
  expectTypeOf<string>().not.toExtend<ErrorCode>()
  t.is(api.CaissonError, CaissonError)
})
