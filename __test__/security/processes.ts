/** Caisson's own processes, as others see them. */
import { readdirSync, readFileSync } from 'node:fs'

function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return undefined
  }
}

/** Shims and unpackers: their names, and arguments and environment as far as this user may read them. */
export function own(): { name: string; text: string }[] {
  return readdirSync('/proc').flatMap((pid) => {
    const name = /^\d+$/.test(pid) ? read(`/proc/${pid}/comm`)?.trim() : undefined
    if (name?.startsWith('caisson-') !== true) return []
    const text = ['cmdline', 'environ'].map((file) => read(`/proc/${pid}/${file}`) ?? '').join('\0')
    return [{ name, text }]
  })
}
