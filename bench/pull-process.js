/** One program that pulls and starts: what its loop and its memory pay. JavaScript, so that no compiler is in the figures. */
import { readdirSync, readFileSync } from 'node:fs'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { Engine } from '../dist/index.js'

const [, , dir, debian, forty, one] = process.argv
const engine = new Engine({ root: dir, runRoot: `${dir}/run` })

/** This process and all below it, MB. */
function resident() {
  const parents = new Map()
  const sizes = new Map()
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue
    try {
      const status = readFileSync(`/proc/${name}/status`, 'utf8')
      parents.set(Number(name), Number(/^PPid:\s+(\d+)/m.exec(status)?.[1]))
      sizes.set(Number(name), Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1] ?? 0))
    } catch {
      // It ended.
    }
  }
  const isBelow = (pid) => {
    for (let at = pid; at !== undefined && at > 0; at = parents.get(at)) if (at === process.pid) return true
    return false
  }
  return [...sizes].filter(([pid]) => isBelow(pid)).reduce((sum, [, size]) => sum + size, 0) / 1024
}

const starts = { forty: [], one: [] }
for (const reference of [one, forty]) await engine.images.pull(reference)
for (let at = 0; at < 60; at += 1) {
  for (const [name, reference] of [
    ['one', one],
    ['forty', forty],
  ]) {
    const began = performance.now()
    await engine.run(reference, ['/bin/true'])
    if (at >= 10) starts[name].push(performance.now() - began)
  }
}

const idle = resident()
// Measured apart: looking at memory holds the loop.
const delays = monitorEventLoopDelay({ resolution: 1 })
delays.enable()
await engine.images.pull(debian)
delays.disable()
await engine.images.remove(debian)
let most = 0
const look = setInterval(() => {
  most = Math.max(most, resident())
}, 20)
await engine.images.pull(debian)
clearInterval(look)
await engine.close()
process.stdout.write(JSON.stringify({ memory: most - idle, delay: delays.percentile(99) / 1e6, ...starts }))
