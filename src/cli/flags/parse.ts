/** Docker's texts of environment, mounts, limits: to the API's options. */
import { readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { resolve } from 'node:path'
import type { MountOption, Ulimit } from '../../index.ts'
import { isTrue, WordError } from './words.ts'

/** `K=V`, or `K` for the caller's own value; a name that is unset is left out. */
export function variable(text: string, env: NodeJS.ProcessEnv): [string, string] | undefined {
  const at = text.indexOf('=')
  if (at === 0 || text === '') throw new WordError(`invalid environment variable: ${text}`)
  if (at > 0) return [text.slice(0, at), text.slice(at + 1)]
  const value = env[text]
  return value === undefined ? undefined : [text, value]
}

/** A file of variables, a line each: no quotes, no escapes, `#` at the front of a line is a comment. */
export function envFile(path: string, env: NodeJS.ProcessEnv): [string, string][] {
  const failed = (why: string): WordError => new WordError(`invalid env file (${path}): ${why}`)
  let text: string
  try {
    text = new TextDecoder('utf8', { fatal: true }).decode(readFileSync(path))
  } catch (error) {
    if (error instanceof TypeError && !('syscall' in error)) throw failed('is not UTF-8')
    throw new WordError(
      `open ${path}: ${error instanceof Error && 'code' in error && error.code === 'ENOENT' ? 'no such file or directory' : String(error)}`,
    )
  }
  return text.split('\n').flatMap((raw) => {
    const line = raw.replace(/\r$/, '').trimStart()
    if (line === '' || line.startsWith('#')) return []
    const name = line.split('=', 1)[0] ?? ''
    if (name === '') throw failed(`no variable name on line '${line}'`)
    if (/\s/.test(name)) throw failed(`variable '${name}' contains whitespaces`)
    const found = variable(line, env)
    return found === undefined ? [] : [found]
  })
}

const propagations: ReadonlySet<string> = new Set([
  'private',
  'rprivate',
  'slave',
  'rslave',
  'shared',
  'rshared',
])

function isPropagation(word: string): word is NonNullable<MountOption['propagation']> {
  return propagations.has(word)
}

/** `-v src:dst[:opts]`. Named and anonymous volumes come with volumes. */
export function volume(text: string): MountOption {
  const [source = '', target, options, ...more] = text.split(':')
  if (more.length > 0) throw new WordError('too many colons')
  if (target === undefined || !/^([/~.])/.test(source)) {
    throw new WordError('volumes are not supported yet: give a path of this machine, /src:/dst')
  }
  const path = source.startsWith('~') ? source.replace('~', homedir()) : resolve(source)
  const bind: MountOption = { type: 'bind', source: path, target }
  for (const option of (options ?? '').split(',').filter((word) => word !== '')) {
    if (option === 'ro') bind.readOnly = true
    else if (isPropagation(option)) bind.propagation = option
    else if (!['rw', 'z', 'Z'].includes(option)) throw new WordError(`invalid mode: ${option}`)
  }
  return bind
}

/** `--mount type=bind,source=…,target=…`. */
export function mount(text: string): MountOption {
  let type = 'volume'
  let recursiveReadOnly = false
  const found: Omit<MountOption, 'type'> = { target: '' }
  for (const field of text.split(',')) {
    const at = field.indexOf('=')
    const key = (at < 0 ? field : field.slice(0, at)).toLowerCase()
    const value = at < 0 ? undefined : field.slice(at + 1)
    const needed = (): string => {
      if (value === undefined || value === '')
        throw new WordError(`invalid field '${field}' must be a key=value pair`)
      return value
    }
    if (key === 'type') type = needed()
    else if (key === 'source' || key === 'src') found.source = needed()
    else if (['target', 'dst', 'destination'].includes(key)) found.target = needed()
    else if (key === 'readonly' || key === 'ro') found.readOnly = value === undefined || isTrue(value)
    else if (key === 'bind-propagation') {
      const word = needed()
      if (!isPropagation(word)) throw new WordError(`invalid propagation: ${word}`)
      found.propagation = word
    } else if (key === 'bind-recursive') {
      const word = needed()
      // Docker's writable leaves what is mounted below a read-only mount writable, which is never so here.
      if (word === 'writable') throw new WordError('bind-recursive=writable is not supported')
      if (word !== 'enabled' && word !== 'disabled' && word !== 'readonly')
        throw new WordError(`invalid value for bind-recursive: ${word}`)
      recursiveReadOnly = word === 'readonly'
      found.recursive = word !== 'disabled'
    } else if (key === 'tmpfs-size') found.size = needed()
    else if (key === 'tmpfs-mode') {
      const word = needed()
      if (!/^[0-7]{1,5}$/.test(word)) throw new WordError(`invalid tmpfs-mode: ${word} is no octal number`)
      found.mode = Number.parseInt(word, 8)
    } else throw new WordError(`unknown option '${key}' in '${field}'`)
  }
  if (found.target === '') throw new WordError('target is required')
  // Docker's word for what read-only is here anyway; of a mount that is not, it says nothing.
  if (recursiveReadOnly && found.readOnly !== true)
    throw new WordError("option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction")
  if (type !== 'bind' && type !== 'tmpfs') throw new WordError(`mounts of type ${type} are not supported yet`)
  return { ...found, type }
}

/** `name=soft[:hard]`. */
export function ulimit(text: string): [string, Ulimit] {
  const match = /^([a-z]+)=(-?\d+)(?::(-?\d+))?$/.exec(text)
  if (match === null) throw new WordError('invalid ulimit argument')
  const [, name = '', soft, hard = soft] = match
  return [name, { soft: Number(soft), hard: Number(hard) }]
}

/** `path:rate`. */
export function rate(text: string): { device: string; rate: string } {
  const at = text.lastIndexOf(':')
  if (!text.startsWith('/') || at < 0) throw new WordError(`bad format: ${text}`)
  return { device: text.slice(0, at), rate: text.slice(at + 1) }
}

/** A number, as docker's flags take it. */
export function count(text: string): number {
  const value = Number(text)
  if (text.trim() === '' || !Number.isFinite(value)) throw new WordError('invalid syntax')
  return value
}

/** `/path[:options]`. */
export function tmpfs(text: string): [string, string] {
  const at = text.indexOf(':')
  return at < 0 ? [text, ''] : [text.slice(0, at), text.slice(at + 1)]
}
