/** `caisson system df`: what the store takes. */
import { engineAt } from './engine.ts'
import { factsFlags } from './flags/images.ts'
import type { FactsDraft } from './flags/images.ts'
import { parseAnywhere, WordError } from './flags/words.ts'
import { helpText } from './help.ts'
import { blocked, bytes, shown } from './table.ts'

const columns = { Type: 'TYPE', TotalCount: 'TOTAL', Size: 'SIZE', Reclaimable: 'RECLAIMABLE' }

/** Prints it, and answers the exit code. */
export async function system(words: readonly string[], root: string | undefined): Promise<number> {
  const [name, ...rest] = words
  const usage = 'caisson system df [OPTIONS]'
  if (name !== 'df' && name !== undefined && name !== '--help')
    throw new WordError(`unknown command: caisson system ${name}`)
  const draft: FactsDraft = { help: name !== 'df' }
  const [more] = parseAnywhere(factsFlags, rest, draft)
  if (draft.help) {
    process.stdout.write(helpText(usage, 'Show disk usage.', factsFlags))
    return 0
  }
  if (more !== undefined) throw new WordError('"caisson system df" accepts no arguments')
  const { images, damaged, layers, blobs, reclaimable } = await engineAt(draft.root ?? root).images.usage()
  const rows = [
    {
      Type: 'Images',
      TotalCount: String(images),
      Size: bytes(layers.bytes),
      Reclaimable: bytes(reclaimable),
    },
    {
      Type: 'Blobs',
      TotalCount: String(blobs.count),
      Size: bytes(blobs.bytes),
      Reclaimable: bytes(damaged > 0 ? 0 : blobs.bytes),
    },
  ]
  process.stdout.write(shown(rows, draft.format, columns))
  process.stderr.write(blocked(damaged))
  return 0
}
