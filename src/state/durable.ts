/** Durable files: written aside, synced, renamed, and the directory synced. What a crash leaves is the old file or the new. */
import { closeSync, fsyncSync, openSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'

let serial = 0

/** Has the names in a directory written to the disk. */
export function syncDirectory(path: string): void {
  const directory = openSync(path, 'r')
  try {
    fsyncSync(directory)
  } finally {
    closeSync(directory)
  }
}

/** Writes a file of mode 0600 as a whole. `sync` false: the caller syncs the directory after several. */
export function writeDurably(path: string, content: Uint8Array | string, sync = true): void {
  const aside = `${path}.${process.pid}-${Date.now()}-${(serial += 1)}`
  try {
    const file = openSync(aside, 'wx', 0o600)
    try {
      writeFileSync(file, content)
      fsyncSync(file)
    } finally {
      closeSync(file)
    }
    renameSync(aside, path)
  } catch (error) {
    rmSync(aside, { force: true })
    throw error
  }
  if (sync) syncDirectory(dirname(path))
}
