/**
 * Tests on a host that __test__/host/run.ts made: one file and one test at a time.
 * `*.host.test.ts` run on each host, `*.private.test.ts` and `*.uml.test.ts` only on that one.
 */
const host = process.env.CAISSON_TEST_HOST
if (host === undefined) throw new Error('these tests run on a test host: npm run test:host, npm run test:uml')

export default {
  extensions: ['ts'],
  files: [`__test__/**/*.{host,${host}}.test.ts`],
  concurrency: 1,
  serial: true,
  workerThreads: false,
  timeout: '2m',
}
