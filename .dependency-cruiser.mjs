/**
 * The arrows of the house, as a whitelist: what is not listed is forbidden.
 * cli -> index -> container -> {image -> registry, network} -> state -> native; each may also use what lies further along.
 * Guarded by scripts/guard.ts: with a compiler it does not know, this checker sees no module and passes.
 */

/** From a place of src/ to the places it may use besides itself and errors.ts. */
const arrows = {
  'cli/': ['index.ts'],
  'index.ts': ['container/', 'image/', 'registry/', 'network/', 'state/'],
  'container/': ['image/', 'registry/', 'network/', 'state/', 'native.ts'],
  'image/': ['registry/', 'state/', 'native.ts'],
  'registry/': ['state/', 'native.ts'],
  'network/': ['state/', 'native.ts'],
  'state/': ['native.ts'],
  'native.ts': [],
}

const place = (name) => `^src/${name.replace('.', '\\.')}${name.endsWith('/') ? '' : '$'}`

export default {
  allowedSeverity: 'error',
  allowed: [
    ...Object.entries(arrows).map(([from, to]) => ({
      from: { path: place(from) },
      to: { path: [...(from.endsWith('/') ? [from] : []), ...to, 'errors.ts'].map(place) },
    })),
    { from: { path: '^src/native\\.ts$' }, to: { path: '^index\\.js$' } },
    // The program's end and its terminal are no matter of containers.
    { from: { path: '^src/cli/(quit|terminal)\\.ts$' }, to: { path: '^src/native\\.ts$' } },
    { from: { path: '^src/cli/' }, to: { path: ['^package\\.json$', '^node_modules/commander/'] } },
    { from: { path: '^bin/' }, to: { path: '^dist/cli\\.cjs$' } },
    { from: {}, to: { dependencyTypes: ['core'] } },
  ],
  forbidden: [
    {
      name: 'no-circular',
      severity: 'error',
      from: {},
      to: { circular: true },
    },
    {
      name: 'no-orphans',
      comment: 'A module that nobody imports is not shipped: remove it or use it.',
      severity: 'error',
      from: { orphan: true },
      to: {},
    },
    {
      name: 'addon-only-from-native',
      comment: 'One seam to the addon: src/native.ts, which says what is wrong with a platform.',
      severity: 'error',
      from: { path: '^src/', pathNot: '^src/native\\.ts$' },
      to: { path: '^index\\.js$' },
    },
    {
      name: 'no-child-process',
      comment:
        'Processes are started by the shim, never by Node: no waitpid, no fork of a large heap in a user’s program. But docker’s credential helpers are programs of the user’s: one file starts them, when a registry wants a login.',
      severity: 'error',
      from: { path: '^src/', pathNot: '^src/registry/helper\\.ts$' },
      to: { path: '^(node:)?child_process$', dependencyTypes: ['core'] },
    },
    {
      name: 'resolvable',
      severity: 'error',
      from: { path: '^src/' },
      to: { couldNotResolve: true },
    },
  ],
  options: {
    parser: 'swc',
    // Imports of types count: an arrow is an arrow.
    tsPreCompilationDeps: true,
    doNotFollow: { path: ['node_modules', '^index\\.js$', '^dist/'] },
    enhancedResolveOptions: { exportsFields: ['exports'], conditionNames: ['import', 'node', 'default'] },
  },
}
