/** Node's streams, loaded once the first shim is on its way: that takes 3 ms, in which the shim starts. */
import { createRequire } from 'node:module'
import type * as Net from 'node:net'
import type * as Stream from 'node:stream'
import type * as Tty from 'node:tty'

type Classes = Pick<typeof Net, 'Socket'> &
  Pick<typeof Stream, 'PassThrough' | 'Readable' | 'Writable'> &
  Pick<typeof Tty, 'ReadStream'>

let loaded: Classes | undefined

/** The classes of `node:net`, `node:stream` and `node:tty` that runs are made of. */
export function streams(): Classes {
  if (loaded !== undefined) return loaded
  const require = createRequire(import.meta.url)
  const { Socket } = require('node:net') as typeof Net
  const { PassThrough, Readable, Writable } = require('node:stream') as typeof Stream
  const { ReadStream } = require('node:tty') as typeof Tty
  loaded = { Socket, PassThrough, Readable, Writable, ReadStream }
  return loaded
}
