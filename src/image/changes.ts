/** Changes to an image's config in a Dockerfile's words, as `import --change` and `commit --change` take them. */
import { resolve } from 'node:path/posix'
import { refuse } from '../errors.ts'

/** The `config` of an image's config, as far as it can be changed. */
export interface ChangedConfig {
  Cmd?: string[]
  Entrypoint?: string[]
  Env?: string[]
  User?: string
  WorkingDir?: string
  Labels?: Record<string, string>
  ExposedPorts?: Record<string, object>
  Volumes?: Record<string, object>
  StopSignal?: string
  OnBuild?: string[]
}

function wrong(line: string, message: string): never {
  throw refuse('change', `'${line.slice(0, 200)}': ${message}`)
}

/** Words of a line: blanks part them, quotes and a backslash keep. */
function split(text: string, line: string): string[] {
  const words: string[] = []
  let word: string | undefined
  let quote = ''
  for (let at = 0; at < text.length; at += 1) {
    const letter = text[at] ?? ''
    if (letter === '\\' && quote !== "'" && at + 1 < text.length) {
      at += 1
      word = (word ?? '') + (text[at] ?? '')
    } else if (quote !== '') {
      if (letter === quote) quote = ''
      else word += letter
    } else if (letter === '"' || letter === "'") {
      quote = letter
      word ??= ''
    } else if (/\s/.test(letter)) {
      if (word !== undefined) words.push(word)
      word = undefined
    } else word = (word ?? '') + letter
  }
  if (quote !== '') wrong(line, 'a quote has no end')
  return word === undefined ? words : [...words, word]
}

/** A JSON array of strings; undefined for anything else. */
function list(text: string): string[] | undefined {
  if (!text.startsWith('[')) return undefined
  try {
    const value: unknown = JSON.parse(text)
    return Array.isArray(value) && value.every((word) => typeof word === 'string') ? value : undefined
  } catch {
    return undefined
  }
}

/** `KEY=VALUE ...`, or the old `KEY VALUE` with all that follows. */
function pairs(text: string, line: string): [string, string][] {
  const [first = '', ...others] = split(text, line)
  if (!first.includes('=')) {
    if (others.length === 0) wrong(line, 'is not KEY=VALUE')
    return [[first, text.slice(first.length).trim()]]
  }
  return [first, ...others].map((word) => {
    const at = word.indexOf('=')
    if (at < 1) wrong(line, `'${word}' is not KEY=VALUE`)
    return [word.slice(0, at), word.slice(at + 1)]
  })
}

/** One port, or several, of a protocol. */
function ports(text: string, line: string): Record<string, object> {
  const found: Record<string, object> = {}
  for (const word of split(text, line)) {
    const [, low, high, protocol = 'tcp'] =
      /^(\d{1,5})(?:-(\d{1,5}))?(?:\/(tcp|udp|sctp))?$/i.exec(word) ?? wrong(line, `'${word}' is no port`)
    const [from, to] = [Number(low), Number(high ?? low)]
    if (from < 1 || from > to || to > 65_535) wrong(line, `'${word}' is no port`)
    for (let port = from; port <= to; port += 1) found[`${port}/${protocol.toLowerCase()}`] = {}
  }
  return found
}

/** A command: words, or a line for the shell. */
function command(text: string): string[] {
  return list(text) ?? ['/bin/sh', '-c', text]
}

const makers: Readonly<Record<string, (config: ChangedConfig, text: string, line: string) => void>> = {
  CMD: (config, text) => void (config.Cmd = command(text)),
  ENTRYPOINT: (config, text) => void (config.Entrypoint = command(text)),
  ENV: (config, text, line) => {
    for (const [key, value] of pairs(text, line)) {
      const others = (config.Env ?? []).filter((entry) => !entry.startsWith(`${key}=`))
      config.Env = [...others, `${key}=${value}`]
    }
  },
  USER: (config, text) => void (config.User = text),
  WORKDIR: (config, text) => void (config.WorkingDir = resolve('/', config.WorkingDir ?? '', text)),
  LABEL: (config, text, line) =>
    void (config.Labels = { ...config.Labels, ...Object.fromEntries(pairs(text, line)) }),
  EXPOSE: (config, text, line) =>
    void (config.ExposedPorts = { ...config.ExposedPorts, ...ports(text, line) }),
  VOLUME: (config, text, line) => {
    const paths = list(text) ?? split(text, line)
    config.Volumes = { ...config.Volumes, ...Object.fromEntries(paths.map((path) => [path, {}])) }
  },
  STOPSIGNAL: (config, text) => void (config.StopSignal = text),
  ONBUILD: (config, text, line) => {
    const [word = ''] = text.split(/\s/, 1)
    if (/^(onbuild|from|maintainer)$/i.test(word)) wrong(line, `${word.toUpperCase()} is no trigger`)
    config.OnBuild = [...(config.OnBuild ?? []), text]
  },
}

/**
 * The config that changes make of another, in their order.
 * @throws CaissonError ERR_INVALID_OPTION for what is no change.
 */
export function changed(lines: readonly string[], before: ChangedConfig = {}): ChangedConfig {
  const config = { ...before }
  let ownCommand = false
  for (const line of lines) {
    const [, word = '', text = ''] = /^\s*(\S+)(?:\s+([^]*))?$/.exec(line) ?? []
    const maker = Object.hasOwn(makers, word.toUpperCase()) ? makers[word.toUpperCase()] : undefined
    if (maker === undefined) wrong(line, `is none of ${Object.keys(makers).join(', ')}`)
    if (text.trim() === '') wrong(line, `${word.toUpperCase()} requires an argument`)
    maker(config, text.trim(), line)
    // As in a Dockerfile: the command of before does not belong to another entrypoint.
    ownCommand ||= word.toUpperCase() === 'CMD'
    if (word.toUpperCase() === 'ENTRYPOINT' && !ownCommand) delete config.Cmd
  }
  return config
}
