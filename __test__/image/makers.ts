/** Images as others make them: umoci, skopeo, buildah and podman of Debian, each in the way that its users take. */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { cgroupMount } from '../host/cage.ts'
import { change } from './trees.ts'

/** An image in a registry. */
export interface Made {
  /** Who made it: images of one maker have the same tree, however they were sent. */
  maker: string
  /** That, and how it was sent. */
  title: string
  reference: string
  layers: number
}

/** Runs a program to its end; what it wrote. */
export function must(command: string, ...words: string[]): string {
  const made = spawnSync(command, words, { encoding: 'utf8', maxBuffer: 1 << 26 })
  if (made.error !== undefined) throw made.error
  if (made.status !== 0) throw new Error(`${command} ${words.join(' ')}: ${made.stderr}`)
  return made.stdout.trim()
}

/** What every image says of itself. */
const command = ['sleep', '60']
const insecure = '--tls-verify=false'

/** Takes down what buildah and podman leave: mounts below `directory`, a cgroup. */
export function release(directory: string): void {
  const points = readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .flatMap((line) => line.split(' ')[4] ?? [])
    .filter((point) => point.startsWith(`${directory}/`))
  for (const point of points.toReversed()) must('umount', point)
  const group = join(cgroupMount(), 'libpod_parent')
  if (existsSync(group)) must('find', group, '-depth', '-type', 'd', '-exec', 'rmdir', '{}', '+')
}

/** Where buildah and podman keep their things: nothing of this machine's. They take at most 50 letters. */
function storage(directory: string): string[] {
  mkdirSync(directory, { recursive: true })
  const runroot = join(directory, 'run')
  return ['--root', join(directory, 'storage'), '--runroot', runroot, '--storage-driver', 'overlay']
}

/** podman, with its state below `directory`. */
export function podmanOf(directory: string): (...words: string[]) => string {
  const first = [
    ...storage(directory),
    '--cgroup-manager',
    'cgroupfs',
    '--runtime',
    'runc',
    '--events-backend',
    'none',
  ]
  const temporary = ['--tmpdir', join(directory, 'tmp')]
  return (...words) => must('podman', ...first, ...temporary, ...words)
}

/** An OCI layout by umoci: a bundle that is changed and repacked, layer by layer. */
export function umoci(directory: string, layers: number): string {
  const layout = join(directory, 'umoci')
  const [image, bundle] = [`${layout}:made`, join(directory, `umoci-bundle-${layers}`)]
  must('umoci', 'init', '--layout', layout)
  must('umoci', 'new', '--image', image)
  must('umoci', 'unpack', '--image', image, bundle)
  for (let step = 0; step < layers; step += 1) {
    change(join(bundle, 'rootfs'), step)
    must('umoci', 'repack', '--refresh-bundle', '--image', image, bundle)
  }
  must('umoci', 'config', '--image', image, ...command.flatMap((word) => ['--config.cmd', word]))
  return layout
}

/** By buildah: a working container of the image below is mounted, changed and committed, layer by layer. */
function buildah(directory: string, layers: number): (...words: string[]) => string {
  const store = storage(directory)
  const call = (...words: string[]): string => must('buildah', ...store, ...words)
  let from = 'scratch'
  for (let step = 0; step < layers; step += 1) {
    const container = call('from', '--pull=false', from)
    change(call('mount', container), step)
    if (step + 1 === layers) call('config', '--cmd', JSON.stringify(command), container)
    from = call('commit', '--quiet', '--rm', '--disable-compression', container)
  }
  call('tag', from, 'made')
  return call
}

/** By podman, on an empty layer: containers that were never started are mounted, changed and committed. */
function committed(podman: (...words: string[]) => string, directory: string, layers: number): void {
  const empty = join(directory, 'empty.tar')
  must('tar', '-cf', empty, '--files-from', '/dev/null')
  let from = podman('import', '--quiet', empty)
  for (let step = 0; step < layers; step += 1) {
    const container = podman('create', from, ...command)
    change(podman('mount', container), step)
    from = podman('commit', '--quiet', container)
    podman('rm', container)
  }
  podman('tag', from, 'committed')
}

/** What `podman build` runs: the same kinds of change in the words of people who write such files. */
const dockerfile = `
FROM scratch
COPY --chown=5:6 tree /
RUN mkdir /dir && echo low >/dir/low && chown 7:8 /dir/low && chmod 4755 /dir/low && ln -s low /dir/symbolic
RUN ln /dir/low /dir/link && rm /dir/symbolic && touch /dir/.hidden
RUN rm -rf /dir && mkdir /dir && echo new >/dir/new && chown 9:9 /dir
RUN rm -rf /becomes-file && echo file >/becomes-file && rm /becomes-directory && mkdir /becomes-directory
RUN mv /owned/renamed /owned/moved; chmod 700 /owned; echo x >/owned/x; mkdir /.wh-is-no-whiteout
COPY --chown=11:12 tree/owned /copied
CMD ["sleep", "60"]
`

function built(podman: (...words: string[]) => string, directory: string): void {
  const context = join(directory, 'context')
  mkdirSync(join(context, 'tree'), { recursive: true })
  change(join(context, 'tree'), 0)
  writeFileSync(join(context, 'Dockerfile'), dockerfile)
  const words = ['--isolation', 'chroot', '--layers', '--tag', 'built']
  podman('build', '--quiet', ...words, context)
}

/** Makes all of them below `directory`, and puts them into a registry. */
export function make(directory: string, registry: string): Made[] {
  const made: Made[] = []
  const sent = (maker: string, how: string, layers: number, send: (reference: string) => void): void => {
    const title = `${maker}, ${how}`
    const reference = `${registry}/made/${title.replaceAll(/[^a-z0-9]+/g, '-')}:1`
    send(reference)
    made.push({ maker, title, reference, layers })
  }
  const skopeo = (...words: string[]): string =>
    must('skopeo', 'copy', '--quiet', '--dest-tls-verify=false', ...words)
  /**
   * The ways to a registry. What is compressed otherwise than there already goes by a layout: their cache of what a registry
   * has would put the other blob in its place.
   */
  const all = (maker: string, layers: number, push: (words: string[], target: string) => void): void => {
    sent(maker, 'gzip', layers, (reference) => push([], `docker://${reference}`))
    sent(maker, 'docker schema 2', layers, (reference) => push(['--format', 'v2s2'], `docker://${reference}`))
    sent(maker, 'zstd', layers, (reference) => {
      const layout = join(directory, `zstd-${made.length}`)
      push(['--compression-format', 'zstd'], `oci:${layout}:made`)
      skopeo('--preserve-digests', `oci:${layout}:made`, `docker://${reference}`)
    })
  }
  for (const layers of [1, 40]) {
    const layout = umoci(join(directory, `umoci-${layers}`), layers)
    all(`umoci and skopeo, ${layers}`, layers, (words, target) => {
      const renamed = words.map((word) => word.replace('--compression', '--dest-compress'))
      skopeo(...renamed, `oci:${layout}:made`, target)
    })
    const call = buildah(join(directory, `buildah-${layers}`), layers)
    all(`buildah, ${layers}`, layers, (words, target) => {
      call('push', '--quiet', insecure, ...words, 'made', target)
    })
  }
  const podman = podmanOf(join(directory, 'podman'))
  const push = (words: string[], name: string, target: string): void => {
    podman('push', '--quiet', insecure, ...words, name, target)
  }
  committed(podman, directory, 4)
  all('podman commit', 5, (words, target) => push(words, 'committed', target))
  built(podman, directory)
  all('podman build', 7, (words, target) => push(words, 'built', target))
  sent('podman build', 'zstd chunked', 7, (reference) => {
    const layout = join(directory, 'chunked')
    push(['--compression-format', 'zstd:chunked'], 'built', `oci:${layout}:made`)
    skopeo('--preserve-digests', `oci:${layout}:made`, `docker://${reference}`)
  })
  return made
}
