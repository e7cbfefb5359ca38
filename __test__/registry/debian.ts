/** Debian's real registry program, on a free port of loopback, with a token service of our own where one is wanted. */
import { spawn } from 'node:child_process'
import { createSign, randomBytes, X509Certificate } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import https from 'node:https'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { ExecutionContext } from 'ava'
import { certificate, scratch } from './scene.ts'
import type { Certificate } from './scene.ts'
import { serve } from './server.ts'
import type { FakeRegistry } from './server.ts'

/** `user` and `secret` in bcrypt, cost 5. */
export const user = { username: 'user', password: 'secret' }
const htpasswd = 'user:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n'

export interface DebianOptions {
  /** bcrypt of {@link user}; `token`: a token service that knows that user, and nobody for repositories below `public/`. */
  auth?: 'htpasswd' | 'token'
  tls?: Certificate
  /** Whose clients are let in. */
  clients?: Certificate
  /** Default: a free one. */
  port?: number
}

export interface Debian {
  host: string
  /** The token service. */
  tokens: FakeRegistry | undefined
}

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve)
  })
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => {
    server.close(resolve)
  })
  return port
}

/** Whether anything that speaks HTTP is there. Without a client's certificate TLS alone has to do. */
function answers(port: number, tls: boolean): Promise<boolean> {
  return new Promise((resolve) => {
    const request = tls
      ? https.request({ port, host: '127.0.0.1', path: '/v2/', rejectUnauthorized: false, agent: false })
      : http.request({ port, host: '127.0.0.1', path: '/v2/', agent: false })
    request.on('response', (response) => {
      response.destroy()
      resolve(true)
    })
    request.on('error', (error: NodeJS.ErrnoException) => resolve(error.code?.startsWith('ERR_SSL') ?? false))
    request.end()
  })
}

/** What a user may do: all, once the password is right; else nothing but to pull below `public/`. */
function granted(scope: string, known: boolean): { type: string; name: string; actions: string[] }[] {
  const [type = '', name = '', actions = ''] = scope.split(':')
  const wanted = actions
    .split(',')
    .filter((action) => known || (action === 'pull' && name.startsWith('public/')))
  return wanted.length === 0 ? [] : [{ type, name, actions: wanted }]
}

/** A token service as distribution's documentation has it: JWTs signed by the certificate that the registry knows. */
async function tokenService(t: ExecutionContext, signer: Certificate): Promise<FakeRegistry> {
  const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url')
  const x5c = [new X509Certificate(signer.cert).raw.toString('base64')]
  return serve(t, {
    fault: ({ method, url, headers, body }, response) => {
      const query =
        method === 'POST' ? new URLSearchParams(body.toString()) : new URL(url, 'http://x').searchParams
      const basic = Buffer.from((headers.authorization ?? '').replace('Basic ', ''), 'base64').toString()
      const right = basic === `${user.username}:${user.password}` || query.get('refresh_token') === 'renewing'
      if (!right && (headers.authorization !== undefined || method === 'POST')) {
        response.writeHead(401).end('{"details":"incorrect username or password"}')
        return true
      }
      const scopes = query.getAll('scope').flatMap((scope) => scope.split(' '))
      const now = Math.floor(Date.now() / 1000)
      const claims = {
        iss: 'tests',
        sub: right ? user.username : '',
        aud: 'registry',
        exp: now + 300,
        nbf: now - 10,
        iat: now,
        jti: randomBytes(8).toString('hex'),
        access: scopes.filter((scope) => scope !== '').flatMap((scope) => granted(scope, right)),
      }
      const signed = `${part({ typ: 'JWT', alg: 'RS256', x5c })}.${part(claims)}`
      const signature = createSign('RSA-SHA256').update(signed).sign(signer.key).toString('base64url')
      response.end(JSON.stringify({ token: `${signed}.${signature}`, expires_in: 300 }))
      return true
    },
  })
}

/** Starts `docker-registry` and waits until it answers; it is stopped after the test. */
export async function debian(t: ExecutionContext, options: DebianOptions = {}): Promise<Debian> {
  const directory = scratch(t)
  mkdirSync(join(directory, 'data'))
  const { auth, tls, clients } = options
  let tokens: FakeRegistry | undefined
  let guarded: object = {}
  if (auth === 'htpasswd') {
    writeFileSync(join(directory, 'htpasswd'), htpasswd)
    guarded = { auth: { htpasswd: { realm: 'tests', path: join(directory, 'htpasswd') } } }
  } else if (auth === 'token') {
    const signer = certificate(directory, 'signer', undefined, true)
    tokens = await tokenService(t, signer)
    const realm = `${tokens.origin}/token`
    guarded = {
      auth: { token: { realm, service: 'registry', issuer: 'tests', rootcertbundle: signer.certPath } },
    }
  }
  const secured =
    tls === undefined
      ? {}
      : {
          tls: {
            certificate: tls.certPath,
            key: tls.keyPath,
            ...(clients === undefined ? {} : { clientcas: [clients.certPath] }),
          },
        }
  for (let attempt = 0; ; attempt += 1) {
    const port = options.port ?? (await freePort())
    const config = {
      version: 0.1,
      log: { level: 'error' },
      storage: { filesystem: { rootdirectory: join(directory, 'data') }, delete: { enabled: true } },
      http: { addr: `127.0.0.1:${port}`, secret: 'tests', ...secured },
      ...guarded,
    }
    const file = join(directory, `${port}.yml`)
    // JSON is YAML.
    writeFileSync(file, JSON.stringify(config))
    const child = spawn('docker-registry', ['serve', file], { stdio: 'ignore' })
    child.on('error', () => undefined)
    t.teardown(() => void child.kill('SIGKILL'))
    for (let waited = 0; waited < 500 && child.exitCode === null; waited += 1) {
      if (await answers(port, tls !== undefined)) return { host: `127.0.0.1:${port}`, tokens }
      await sleep(20)
    }
    child.kill('SIGKILL')
    // Somebody else may have taken the port.
    if (attempt === 2) throw new Error('docker-registry does not start: scripts/setup --test installs it')
  }
}
