/** Layers of images by the shim: it unpacks them in a process of its own. */
import { toError } from '../native.ts'
import type { LayerRequest } from '../image/layers.ts'
import { ask } from './ask.ts'
import { failureOf } from './shim.ts'
import type { ShimConnection } from './shim.ts'

/** Has a layer put into the store; settles once it is there, or once nothing of it is left. */
export function unpackLayer(
  connection: ShimConnection,
  layer: LayerRequest,
  signal: AbortSignal,
  wanted?: (offset: number) => void,
): Promise<void> {
  const token = connection.token()
  return new Promise((resolve, reject) => {
    const listening = connection.get(token, (event) => {
      if (!(event instanceof Error) && event.kind === 'wanted') {
        wanted?.(event.offset ?? 0)
        return
      }
      listening.forget()
      signal.removeEventListener('abort', cancel)
      if (event instanceof Error) reject(event)
      else if (event.kind === 'unpacked') resolve()
      else reject(failureOf(event))
    })
    const cancel = (): void => {
      listening.shim.cancel(token)
    }
    const failure = listening.shim.unpack({ token, ...layer, lowers: [...layer.lowers] })
    if (failure !== null) {
      listening.forget()
      reject(toError(failure))
      return
    }
    signal.addEventListener('abort', cancel, { once: true })
    if (signal.aborted) cancel()
  })
}

/**
 * Has the shim's reader read an archive of images into a directory, or with `layer` one layer; settles once nobody writes
 * there any more.
 */
export function readArchive(
  connection: ShimConnection,
  source: number,
  directory: number,
  signal: AbortSignal,
  layer: boolean,
): Promise<void> {
  const token = connection.token()
  return ask(connection, token, (shim) => shim.spool(token, source, directory, layer), signal)
}

/** Has what was thrown away of the store removed; settles once that is done. */
export function sweep(connection: ShimConnection): Promise<void> {
  const token = connection.token()
  return ask(connection, token, (shim) => shim.sweep(token))
}
