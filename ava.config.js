/** Tests without privileges, in parallel. Tests that need a host of their own are `*.host.test.ts` (ava.host.config.js). */
export default {
  extensions: ['ts'],
  files: ['__test__/**/*.test.ts', '!__test__/**/*.{host,private,uml}.test.ts'],
  // Descriptors, signals, the working directory and the addon belong to a process.
  workerThreads: false,
  timeout: '2m',
}
