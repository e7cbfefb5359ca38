/**
 * Makes the tarballs that users install: `npm run pack`, into pack/. Two packages: `caisson`, which is JavaScript alone, and
 * one of this platform with the addon and the executable. Nothing of either runs at install, and neither needs Rust.
 */
import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import manifest from '../package.json' with { type: 'json' }

const checkout = fileURLToPath(new URL('..', import.meta.url))
const triple = `linux-${process.arch}-gnu`
const native = `${manifest.napi.packageName}-${triple}`
const addon = `${manifest.napi.binaryName}.${triple}.node`
const runtime = 'caisson-runtime'

interface Packed {
  filename: string
  size: number
  unpackedSize: number
  files: { path: string; size: number; mode: number }[]
}

/** Packs a directory and prints what is in it. */
function pack(dir: string, into: string): void {
  const answer = execFileSync('npm', ['pack', '--json', '--pack-destination', into], {
    cwd: dir,
    encoding: 'utf8',
  })
  const parsed = JSON.parse(answer) as Packed[] | Record<string, Packed>
  for (const { filename, size, unpackedSize, files } of Object.values(parsed)) {
    console.log(`${join('pack', filename)}: ${size} bytes, ${unpackedSize} unpacked`)
    for (const file of files)
      console.log(`  ${(file.mode & 0o777).toString(8)} ${String(file.size).padStart(9)} ${file.path}`)
  }
}

const out = join(checkout, 'pack')
const stage = join(out, 'stage')
rmSync(out, { recursive: true, force: true })
for (const name of ['caisson', 'native']) mkdirSync(join(stage, name), { recursive: true })
for (const built of [addon, runtime, 'dist/index.js', 'dist/cli.cjs', 'dist/index.d.ts']) {
  if (!existsSync(join(checkout, built))) throw new Error(`${built} is not built: npm run build`)
}

const { version, license, engines, type, description } = manifest
const common = { version, license, engines }
const platform = {
  name: native,
  ...common,
  description: `caisson's addon and executable for ${triple}`,
  os: ['linux'],
  cpu: [process.arch],
  libc: ['glibc'],
  // npm makes what is a `bin` executable, whatever an upload did to its mode.
  bin: { [runtime]: runtime },
  files: [addon, runtime],
  preferUnplugged: true,
}
for (const [file, mode] of [
  [addon, 0o644],
  [runtime, 0o755],
  ['LICENSE', 0o644],
] as const) {
  copyFileSync(join(checkout, file), join(stage, 'native', file))
  chmodSync(join(stage, 'native', file), mode)
}
writeFileSync(join(stage, 'native/package.json'), `${JSON.stringify(platform, undefined, 2)}\n`)

const { bin, exports, files } = manifest
const root = {
  name: manifest.name,
  ...common,
  description,
  type,
  bin,
  exports,
  files,
  optionalDependencies: { [native]: version },
}
for (const file of [...files, 'README.md', 'LICENSE']) {
  const from = join(checkout, file)
  if (statSync(from).isDirectory()) cpSync(from, join(stage, 'caisson', file), { recursive: true })
  else copyFileSync(from, join(stage, 'caisson', file))
}
writeFileSync(join(stage, 'caisson/package.json'), `${JSON.stringify(root, undefined, 2)}\n`)

pack(join(stage, 'native'), out)
pack(join(stage, 'caisson'), out)
rmSync(stage, { recursive: true })
