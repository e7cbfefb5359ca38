/**
 * Two bundles, built apart: the library, and the CLI with a chunk a command. The CLI's is CommonJS, and small: a name
 * imported from `node:fs` makes Node read all its exports, and with them load its streams and promises (3 ms), and each
 * module of a graph of promises is dearer than a `require`. Unbundled, a graph of forty modules
 * makes each start 1.7 times dearer than one file. dist/ stays flat, since src/native.ts and every chunk name the
 * addon's loader as `../index.js`.
 */
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { RolldownOptions } from 'rolldown'

const common = {
  platform: 'node',
  // The generated loader of the addon stays a file of its own. What else is used goes in: the package has no dependencies,
  // so that it installs from two tarballs, without a registry.
  external: [/^(\.\.\/)+index\.js$/],
  // What Node 22 runs: `using` is lowered.
  transform: { target: 'node22' },
} satisfies RolldownOptions

/** The files that one needs as soon as it is loaded, itself among them: types and what is imported later are not. */
function needed(file: string, known: Set<string> = new Set()): ReadonlySet<string> {
  if (known.has(file)) return known
  known.add(file)
  for (const [, type, from = ''] of readFileSync(file, 'utf8').matchAll(
    /^(?:import|export) (type )?[^'"]*? from '(\.[^']*\.ts)'/gm,
  )) {
    if (type === undefined) needed(fileURLToPath(new URL(from, `file://${file}`)), known)
  }
  return known
}

// All of it is one chunk, whatever commands share parts of it: six files more made a `run` two milliseconds dearer.
const api = needed(fileURLToPath(new URL('src/cli/engine.ts', import.meta.url)))
const own = needed(fileURLToPath(new URL('src/native.ts', import.meta.url)))

const bundles: RolldownOptions[] = [
  {
    ...common,
    input: { index: 'src/index.ts' },
    output: { dir: 'dist', format: 'esm', cleanDir: true, chunkFileNames: '[name].js' },
  },
  {
    ...common,
    input: { cli: 'src/cli/main.ts' },
    output: {
      dir: 'dist',
      format: 'cjs',
      entryFileNames: '[name].cjs',
      chunkFileNames: 'cli-[name].cjs',
      minify: true,
      codeSplitting: { groups: [{ name: 'api', test: (id) => api.has(id) && !own.has(id) }] },
    },
  },
]

export default bundles
