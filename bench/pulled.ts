/** What the pull bench pulls: real trees as images of one layer and of ten, in a registry of Debian's on loopback. */
import { spawn, spawnSync } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { closeSync, existsSync, mkdirSync, openSync, readSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { root } from './programs.ts'

/** An image, and its layers as plain archives. */
export interface Pulled {
  reference: string
  archives: string[]
}

function must(command: string, words: readonly string[], input?: string): string {
  const made = spawnSync(command, words, { encoding: 'utf8', input, maxBuffer: 1 << 26 })
  if (made.error !== undefined) throw made.error
  if (made.status !== 0) throw new Error(`${command} ${words.join(' ')}: ${made.stderr}`)
  return made.stdout
}

/** A minimal Debian as a plain archive; made once, by Debian's own tool, which needs a network. */
export function debian(): string {
  const path = join(root, '.cache/debian.tar')
  if (!existsSync(path)) {
    mkdirSync(join(root, '.cache'), { recursive: true })
    must('mmdebstrap', ['--variant=minbase', '--quiet', 'bookworm', path])
  }
  return path
}

const layerBytes = 20_000_000

/** `count` archives of about 20 MB of this machine's own files. */
function tens(dir: string, count: number): string[] {
  const listed = must('find', [
    '/usr/lib',
    '/usr/share',
    '/usr/bin',
    ...'-xdev -type f -size -8M -printf %s\\t%p\\n'.split(' '),
  ])
  const archives: string[] = []
  let [names, size]: [string[], number] = [[], 0]
  for (const line of listed.split('\n')) {
    const [bytes, name] = line.split('\t')
    if (name === undefined) continue
    names.push(name.slice(1))
    size += Number(bytes) + 512
    if (size < layerBytes) continue
    const path = join(dir, `layer-${archives.length}.tar`)
    must('tar', ['-cf', path, '-C', '/', '--no-recursion', '--files-from=-'], names.join('\n'))
    archives.push(path)
    ;[names, size] = [[], 0]
    if (archives.length === count) break
  }
  return archives
}

/** Puts an image of these layers into a layout by umoci, and from there into the registry by skopeo. */
function publish(layout: string, name: string, archives: readonly string[], registry: string): Pulled {
  must('umoci', ['new', '--image', `${layout}:${name}`])
  for (const archive of archives) must('umoci', ['raw', 'add-layer', '--image', `${layout}:${name}`, archive])
  const reference = `${registry}/${name}:1`
  must('skopeo', ['copy', '-q', '--dest-tls-verify=false', `oci:${layout}:${name}`, `docker://${reference}`])
  return { reference, archives: [...archives] }
}

/** A registry with the images in it. */
export interface Filled {
  process: ChildProcess
  debian: Pulled
  ten: Pulled
  forty: Pulled
  one: Pulled
}

const port = 5055

/** Starts a registry below `dir` and fills it; the caller ends its process. */
export async function fill(dir: string): Promise<Filled> {
  const registry = `127.0.0.1:${port}`
  const config = join(dir, 'registry.yml')
  writeFileSync(
    config,
    `version: 0.1\nlog: { level: error }\nstorage: { filesystem: { rootdirectory: ${dir}/registry } }\n` +
      `http: { addr: "${registry}" }\n`,
  )
  const served = spawn('docker-registry', ['serve', config], { stdio: 'ignore' })
  for (let look = 0; look < 200; look += 1) {
    const answer = await fetch(`http://${registry}/v2/`).catch(() => undefined)
    if (answer?.ok === true) break
    await sleep(25)
  }
  const layout = join(dir, 'layout')
  must('umoci', ['init', '--layout', layout])
  const small = Array.from({ length: 40 }, (_, at) => {
    const tree = join(dir, `small-${at}`)
    mkdirSync(join(tree, 'bin'), { recursive: true })
    writeFileSync(join(tree, `file-${at}`), 'x'.repeat(1000))
    if (at === 0) {
      must('cp', ['/bin/busybox', join(tree, 'bin/busybox')])
      must('ln', ['-s', 'busybox', join(tree, 'bin/true')])
    }
    const path = join(dir, `small-${at}.tar`)
    must('tar', ['-cf', path, '-C', tree, '.'])
    return path
  })
  return {
    process: served,
    debian: publish(layout, 'debian', [debian()], registry),
    ten: publish(layout, 'ten', tens(dir, 10), registry),
    forty: publish(layout, 'forty', small, registry),
    one: publish(layout, 'one', small.slice(0, 1), registry),
  }
}

/** Reads files once, so that nobody pays for the disk alone. */
export function warm(paths: readonly string[]): void {
  const room = Buffer.allocUnsafe(1 << 20)
  for (const path of paths) {
    const file = openSync(path, 'r')
    while (readSync(file, room) > 0) continue
    closeSync(file)
  }
}
