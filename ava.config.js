/** Tests without privileges, in parallel. What needs a host of its own is in ava.host.config.js. */
export default {
  extensions: ['ts'],
  files: ['__test__/**/*.test.ts', '!__test__/**/*.{host,private,limits,programs}.test.ts'],
  // Descriptors, signals, the working directory and the addon belong to a process.
  workerThreads: false,
  timeout: '2m',
}
