/**
 * The first start of a program, with nothing loaded yet: `node first.js ROOTFS ROOT RUN_ROOT`. Plain JavaScript, so that no
 * stripping of types is measured. Prints milliseconds: import of the package, first run, second run.
 */
const now = () => Number(process.hrtime.bigint()) / 1e6
const [rootfs, root, runRoot] = process.argv.slice(2)
const begun = now()
const { Engine } = await import('../dist/index.js')
const imported = now()
const engine = new Engine({ root, runRoot })
const first = await engine.run({ rootfs }, ['/bin/true'])
const ran = now()
await engine.run({ rootfs }, ['/bin/true'])
const again = now()
if (first.exitCode !== 0) throw new Error(`/bin/true ended with ${first.exitCode}`)
console.log(JSON.stringify({ import: imported - begun, first: ran - imported, second: again - ran }))
