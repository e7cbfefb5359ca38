/**
 * The leak ledger: what exists that a container could leave behind, before and after. Made for test hosts, where
 * nothing else runs; it reads /proc and directories only and changes nothing.
 */
import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { ExecutionContext } from 'ava'
import { cgroupMount } from './cage.ts'
import { isRoot } from './ground.ts'

/** A line a thing, by kind. A line that exists twice counts twice. */
export type Ledger = Record<(typeof kinds)[number], string[]>

const kinds = ['mount', 'cgroup', 'process', 'descriptor', 'namespace', 'link', 'file'] as const

/** More entries below one root than this are a wrong root. */
const mostFiles = 100_000

/** PF_KTHREAD of include/linux/sched.h. */
const kernelThread = 0x200000

/** Whether some of what exists is not for this user to see: then what is seen counts. */
const partial = !isRoot

/** What vanishes between two reads is not there. */
function attempt<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ESRCH' || code === 'ENODEV') return undefined
    if (partial && code === 'EACCES') return undefined
    throw error
  }
}

function mounts(): string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const [before = '', after = ''] = line.split(' - ')
      const [type, source] = after.split(' ')
      return `${before.split(' ')[4]} (${type} ${source})`
    })
}

function cgroups(): string[] {
  const found: string[] = []
  const walk = (dir: string): void => {
    for (const entry of attempt(() => readdirSync(dir, { withFileTypes: true })) ?? []) {
      if (!entry.isDirectory()) continue
      const path = join(dir, entry.name)
      found.push(path)
      walk(path)
    }
  }
  walk(cgroupMount())
  return found
}

interface Seen {
  pid: string
  parent: string
  kernel: boolean
  line: string
}

/** Without threads of the kernel and their children: programs that it starts by itself, as modprobe. */
function processes(): Seen[] {
  const seen = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid): Seen[] => {
      const stat = attempt(() => readFileSync(`/proc/${pid}/stat`, 'utf8'))
      if (stat === undefined) return []
      // The name may hold spaces and parentheses: the rest begins after the last one. Fields of proc_pid_stat(5).
      const name = stat.slice(stat.indexOf('(') + 1, stat.lastIndexOf(')'))
      const rest = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
      const [state, parent = '', flags, start] = [rest[0], rest[1], Number(rest[6]), rest[19]]
      const line = `${pid} ${name}${state === 'Z' ? ', a zombie' : ''} (started ${start})`
      return [{ pid, parent, kernel: (flags & kernelThread) !== 0, line }]
    })
  const kernel = new Set(seen.filter((one) => one.kernel).map(({ pid }) => pid))
  return seen.filter(({ pid, parent }) => !kernel.has(pid) && !kernel.has(parent))
}

/** Kept by a process for its next run: the executable's sealed copy, and a bounded number of plans. */
const caches = /^\/memfd:caisson-(runtime|plan) /

function descriptors(): string[] {
  return readdirSync('/proc/self/fd').flatMap((fd) => {
    const target = attempt(() => readlinkSync(`/proc/self/fd/${fd}`))
    return target === undefined || caches.test(target) ? [] : [`${fd} -> ${target}`]
  })
}

/** Of every process, and of this one's threads and descriptors: `net:[4026531840]`, once each. */
function namespaces(pids: readonly string[]): string[] {
  const threads = readdirSync('/proc/self/task').map((thread) => `/proc/self/task/${thread}/ns`)
  const found = new Set<string>()
  for (const dir of [...pids.map((pid) => `/proc/${pid}/ns`), ...threads]) {
    for (const name of attempt(() => readdirSync(dir)) ?? []) {
      const target = attempt(() => readlinkSync(join(dir, name)))
      if (target !== undefined) found.add(target)
    }
  }
  return [...found]
}

/** Network interfaces of this network namespace. */
function links(): string[] {
  return [...readFileSync('/proc/self/net/dev', 'utf8').matchAll(/^\s*([^\s:]+):/gm)].map(
    (match) => match[1] ?? '',
  )
}

function files(roots: readonly string[]): string[] {
  const found: string[] = []
  const walk = (dir: string): void => {
    for (const entry of attempt(() => readdirSync(dir, { withFileTypes: true })) ?? []) {
      const path = join(dir, entry.name)
      found.push(entry.isDirectory() ? `${path}/` : path)
      if (found.length > mostFiles) throw new Error(`more than ${mostFiles} files below ${dir}`)
      if (entry.isDirectory()) walk(path)
    }
  }
  for (const root of roots) {
    if (attempt(() => statSync(root)) === undefined) continue
    found.push(`${root}/`)
    walk(root)
  }
  return found
}

/** Takes stock. `roots` are the directories whose files count. */
export function take(roots: readonly string[] = []): Ledger {
  const seen = processes()
  return {
    mount: mounts(),
    cgroup: cgroups(),
    process: seen.map(({ line }) => line),
    descriptor: descriptors(),
    namespace: namespaces(seen.map(({ pid }) => pid)),
    link: links(),
    file: files(roots),
  }
}

/** What is in one and not, or not as often, in the other: `+ cgroup /sys/fs/cgroup/x`, a line each; '' for none. */
export function diff(before: Ledger, after: Ledger): string {
  const lines: string[] = []
  for (const kind of kinds) {
    const counts = new Map<string, number>()
    for (const line of before[kind]) counts.set(line, (counts.get(line) ?? 0) - 1)
    for (const line of after[kind]) counts.set(line, (counts.get(line) ?? 0) + 1)
    for (const [line, count] of counts) {
      for (let left = Math.abs(count); left > 0; left -= 1)
        lines.push(`${count > 0 ? '+' : '-'} ${kind} ${line}`)
    }
  }
  return lines.join('\n')
}

/**
 * The difference that stays: what the kernel frees later (namespaces, by a worker within a second) has `within`
 * milliseconds to go.
 */
export async function settled(before: Ledger, roots: readonly string[] = [], within = 2000): Promise<string> {
  const end = performance.now() + within
  for (;;) {
    const text = diff(before, take(roots))
    if (text === '' || performance.now() >= end) return text
    // One look after another, each needed to see whether it has gone.
    await sleep(20)
  }
}

/** Fails the test if anything is left when it and its other teardowns are done. Call it first in the test. */
export function leavesNothing(t: ExecutionContext, ...roots: string[]): void {
  const before = take(roots)
  t.teardown(async () => {
    const text = await settled(before, roots)
    if (text !== '') throw new Error(`left behind:\n${text}`)
  })
}
