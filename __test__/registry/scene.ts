/** What tests of the registry client share: an empty home, short limits, bytes and their digests. */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import type { ExecutionContext } from 'ava'
import { Registry } from '../../src/registry/registry.ts'
import type { RegistryOptions } from '../../src/registry/registry.ts'

/** A directory that is gone after the test. */
export function scratch(t: ExecutionContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'caisson-registry-'))
  t.teardown(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

/** An environment in which nothing of this machine's is found, whoever runs the tests. */
export function environment(home: string, more: Record<string, string> = {}): Record<string, string> {
  return {
    HOME: home,
    PATH: process.env.PATH ?? '',
    XDG_CONFIG_HOME: join(home, 'xdg'),
    CAISSON_REGISTRIES: configure(home, 'empty.json', { registries: {} }),
    REGISTRY_AUTH_FILE: join(home, 'no-auth.json'),
    ...more,
  }
}

/** Writes a file of configuration below `home`; answers its path. */
export function configure(home: string, name: string, content: unknown): string {
  const path = join(home, name)
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, typeof content === 'string' ? content : JSON.stringify(content))
  return path
}

/** Seconds where the default is a quarter of a minute, so that tests end. */
export const short = { firstWait: 1, mostWait: 20, connect: 4000, idle: 4000, document: 8000, token: 4000 }

/** A registry's client that is closed after the test. */
export function client(t: ExecutionContext, host: string, options: RegistryOptions = {}): Registry {
  const env = options.env ?? environment(scratch(t))
  const registry = new Registry(host, { ...options, env, limits: { ...short, ...options.limits } })
  t.teardown(() => registry.close())
  return registry
}

export function digestOf(bytes: Uint8Array | string): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`
}

/** A blob and its descriptor. */
export function blobOf(content: Uint8Array | string): { bytes: Buffer; digest: string; size: number } {
  const bytes = Buffer.from(content)
  return { bytes, digest: digestOf(bytes), size: bytes.length }
}

export interface Failure extends Error {
  code: string
  subject?: string
}

/** All that somebody could print of an error, with what is underneath. */
export function told(error: unknown): string {
  const lines: string[] = []
  for (let at: unknown = error; at instanceof Error; at = at.cause) {
    lines.push(at.message, at.stack ?? '', JSON.stringify(at))
  }
  return lines.join('\n')
}

/** PEM texts, and where they lie. */
export interface Certificate {
  cert: string
  key: string
  certPath: string
  keyPath: string
}

/** A certificate by openssl: of an authority, or signed by one for 127.0.0.1, 127.0.0.2 and localhost. */
export function certificate(
  directory: string,
  name: string,
  authority?: Certificate,
  rsa = false,
): Certificate {
  const [certPath, keyPath] = [join(directory, `${name}.crt`), join(directory, `${name}.key`)]
  const kind = rsa ? ['rsa:2048'] : ['ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1']
  const signed =
    authority === undefined
      ? [
          '-x509',
          '-addext',
          'basicConstraints=critical,CA:TRUE',
          '-addext',
          'keyUsage=keyCertSign,digitalSignature',
        ]
      : ['-CA', authority.certPath, '-CAkey', authority.keyPath, '-addext', 'basicConstraints=CA:FALSE']
  const names = ['-addext', 'subjectAltName=IP:127.0.0.1,IP:127.0.0.2,DNS:localhost,DNS:registry.test']
  const files = ['-keyout', keyPath, '-out', certPath, '-nodes', '-days', '2', '-subj', `/CN=${name}`]
  execFileSync('openssl', ['req', '-newkey', ...kind, ...signed, ...names, ...files], { stdio: 'ignore' })
  return { cert: readFileSync(certPath, 'utf8'), key: readFileSync(keyPath, 'utf8'), certPath, keyPath }
}
