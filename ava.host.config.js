/** Tests on a host that __test__/host/run.ts made: one file and one test at a time. */

/** The tests of each host, by what they need. */
const kinds = {
  private: ['host', 'private'],
  single: ['host'],
  range: ['host'],
  uml: ['host', 'limits'],
  qemu: ['host', 'limits'],
}
/** What archives and registries say is no kernel's matter: these, the slow ones, are not run where one is emulated. */
const emulated = ['uml', 'qemu']
const said = [
  ...[
    'archive',
    'archive-refused',
    'budget',
    'bytes',
    'commit',
    'import',
    'lies',
    'mutated',
    'save',
    'verify',
    'together',
  ].map((name) => `image/${name}`),
  ...['archives', 'config', 'digests', 'documents', 'limits', 'logins', 'names'].map(
    (name) => `security/${name}`,
  ),
]
/** Programs whose images take minutes to make: `npm run test:programs`. */
const programs = process.env.CAISSON_TEST_PROGRAMS !== undefined
const here = programs ? ['programs'] : kinds[process.env.CAISSON_TEST_HOST]
if (here === undefined) throw new Error('these tests run on a test host: npm run test:host, npm run test:uml')

export default {
  extensions: ['ts'],
  files: [
    ...here.map((kind) => `__test__/**/*.${kind}.test.ts`),
    ...(emulated.includes(process.env.CAISSON_TEST_HOST)
      ? ['!__test__/programs/**', ...said.map((name) => `!__test__/${name}.host.test.ts`)]
      : []),
  ],
  concurrency: 1,
  serial: true,
  workerThreads: false,
  timeout: '2m',
}
