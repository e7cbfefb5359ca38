/**
 * The arrows between the crates, and where `unsafe` may stand: `node scripts/crates.ts [ROOT]`.
 * Reads Cargo's own account of the workspace, so a dependency counts however its line is written.
 */
import { spawnSync } from 'node:child_process'
import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** What a crate may use of ours: what lies further along its arrow. A crate that is not listed is one violation. */
const arrows: Record<string, readonly string[]> = {
  'caisson-sys': [],
  'caisson-core': ['caisson-sys'],
  'caisson-runtime': ['caisson-core', 'caisson-sys'],
  'caisson-node': ['caisson-core', 'caisson-sys'],
}
/** Crates that depend on nothing at all, and roots that forbid unsafe code, so that the compiler holds it too. */
const alone = new Set(['caisson-sys'])
const forbidding = ['crates/core/src/lib.rs']

interface Metadata {
  packages: { name: string; dependencies: { name: string; kind: string | null }[] }[]
}

const root = process.argv[2] ?? fileURLToPath(new URL('..', import.meta.url))
const violations: string[] = []

const cargo = spawnSync('cargo', ['metadata', '--no-deps', '--format-version', '1', '--offline'], {
  cwd: root,
  encoding: 'utf8',
  maxBuffer: 1 << 28,
})
if (cargo.status !== 0) {
  console.error(cargo.stderr)
  process.exit(1)
}
const { packages } = JSON.parse(cargo.stdout) as Metadata
for (const { name, dependencies } of packages) {
  const allowed = arrows[name]
  if (allowed === undefined) {
    violations.push(`${name} is a new crate: give it its arrows in scripts/crates.ts`)
    continue
  }
  for (const dependency of dependencies) {
    const ours = dependency.name.startsWith('caisson-')
    if (ours && !allowed.includes(dependency.name)) violations.push(`${name} -> ${dependency.name}`)
    if (!ours && alone.has(name) && dependency.kind !== 'dev')
      violations.push(`${name} -> ${dependency.name}`)
  }
}

/** The code of a Rust file: comments, strings and the name of the lint are blanked, lines stay where they are. */
function code(text: string): string {
  const noise =
    /\/\/[^\n]*|\/\*[\s\S]*?\*\/|r(#+)"[\s\S]*?"\1|"(?:\\[\s\S]|[^"\\])*"|'(?:\\[^\n]{1,10}?|[^'\\\n])'|\bunsafe_\w+/g
  return text.replace(noise, (match) => match.replace(/[^\n]/g, ' '))
}

// `#[unsafe(no_mangle)]` and its kin are attributes, not unsafe code; napi's macros need none in our text.
const word = /(?<!#\[)\bunsafe\b/
let files = 0
for (const file of globSync('crates/*/{src,tests,build.rs}', { cwd: root }).flatMap((entry) =>
  entry.endsWith('.rs') ? [entry] : globSync(`${entry}/**/*.rs`, { cwd: root }),
)) {
  files += 1
  if (file.startsWith('crates/sys/')) continue
  const lines = code(readFileSync(join(root, file), 'utf8')).split('\n')
  for (const [index, line] of lines.entries()) {
    if (word.test(line)) violations.push(`${file}:${index + 1}: unsafe stands only in crates/sys`)
  }
}
for (const file of forbidding) {
  if (!/^#!\[forbid\(unsafe_code\)\]$/m.test(readFileSync(join(root, file), 'utf8'))) {
    violations.push(`${file}: #![forbid(unsafe_code)] is missing`)
  }
}

for (const violation of violations) console.error(`crates: ${violation}`)
if (violations.length > 0 || packages.length === 0 || files === 0) process.exit(1)
console.log(`crates: ${packages.length} crates, ${files} files follow their arrows`)
