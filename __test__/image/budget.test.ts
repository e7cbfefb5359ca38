/** Which images go for a store that is to be smaller. */
import test from 'ava'
import { surplus } from '../../src/image/budget.ts'
import type { Weighed } from '../../src/image/budget.ts'

function image(
  name: string,
  used: number,
  parts: Record<string, number>,
  more: Partial<Weighed<string>> = {},
): Weighed<string> {
  return {
    image: name,
    used,
    parts: new Map(Object.entries(parts)),
    isNamed: true,
    isHeld: () => false,
    ...more,
  }
}

test('what was not used for longest goes, and no more than must', (t) => {
  const images = [image('new', 30, { a: 10 }), image('old', 10, { b: 10 }), image('middle', 20, { c: 10 })]
  t.deepEqual(surplus(images, 30, 30), [])
  t.deepEqual(surplus(images, 30, 29), ['old'])
  t.deepEqual(surplus(images, 30, 20), ['old'])
  t.deepEqual(surplus(images, 30, 19), ['old', 'middle'])
  t.deepEqual(surplus(images, 30, 0), ['old', 'middle', 'new'])
})

test('those without a name go first', (t) => {
  const images = [image('old', 10, { a: 10 }), image('dangling', 20, { b: 10 }, { isNamed: false })]
  t.deepEqual(surplus(images, 20, 15), ['dangling'])
  t.deepEqual(surplus(images, 20, 5), ['dangling', 'old'])
})

test('what is shared is freed with the last that has it; what would free nothing stays', (t) => {
  const base = { base: 100 }
  const images = [
    image('base', 1, base),
    image('one', 2, { ...base, one: 10 }),
    image('two', 3, { ...base, two: 10 }),
  ]
  // The base alone frees nothing.
  t.deepEqual(surplus(images, 120, 110), ['one'])
  t.deepEqual(surplus(images, 120, 100), ['one', 'two'])
  t.deepEqual(surplus(images, 120, 99), ['base', 'one', 'two'])
  // A large one that came back in would be too much, a small one that went before it is not.
  const uneven = [image('small', 1, { s: 5 }), image('large', 2, { l: 100 })]
  t.deepEqual(surplus(uneven, 105, 50), ['large'])
})

test('what is held stays, and is asked about only where it would go', (t) => {
  const asked: string[] = []
  const held = (name: string, used: number, is: boolean): Weighed<string> =>
    image(name, used, { [name]: 10 }, { isHeld: () => asked.push(name) > 0 && is })
  const images = [held('a', 1, true), held('b', 2, false), held('c', 3, false)]
  t.deepEqual(surplus(images, 30, 25), ['b'])
  t.deepEqual(asked, ['a', 'b'])
  // What nobody of them has cannot be freed.
  t.deepEqual(surplus([image('a', 1, { a: 1 })], 1000, 10), ['a'])
})
