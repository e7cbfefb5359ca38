/** A registry that does as it is told, wrong things too, and remembers what it was asked. */
import http from 'node:http'
import https from 'node:https'
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import type { ExecutionContext } from 'ava'
import { digestOf } from './scene.ts'

export interface Seen {
  method: string
  url: string
  headers: IncomingHttpHeaders
  body: Buffer
}

/** Answers a request itself, or leaves it (false) to the well-behaved registry. */
export type Fault = (seen: Seen, response: ServerResponse) => boolean | Promise<boolean>

export interface ServeOptions {
  /** Default 127.0.0.1. */
  address?: string
  tls?: https.ServerOptions
  fault?: Fault
}

export class FakeRegistry {
  readonly seen: Seen[] = []
  /** By digest. */
  readonly blobs: Map<string, Buffer> = new Map()
  /** By `name:tag` and `name@digest`. */
  readonly manifests: Map<string, { bytes: Buffer; type: string }> = new Map()
  /** Bytes by upload. */
  readonly uploads: Map<string, Buffer> = new Map()
  fault: Fault | undefined
  host = ''
  origin = ''
  /** Bytes that went out on connections that are closed now. */
  sent = 0
  /** Whether it honours Range. */
  ranges = true
  readonly sockets: Set<Socket> = new Set()

  blob(content: Uint8Array | string): { digest: string; size: number; bytes: Buffer } {
    const bytes = Buffer.from(content)
    const digest = digestOf(bytes)
    this.blobs.set(digest, bytes)
    return { digest, size: bytes.length, bytes }
  }

  manifest(
    name: string,
    tag: string,
    content: string,
    type = 'application/vnd.oci.image.manifest.v1+json',
  ): string {
    const bytes = Buffer.from(content)
    const digest = digestOf(bytes)
    for (const key of [`${name}:${tag}`, `${name}@${digest}`]) this.manifests.set(key, { bytes, type })
    return digest
  }

  /** Requests whose method and URL look like this. */
  asked(pattern: RegExp): Seen[] {
    return this.seen.filter(({ method, url }) => pattern.test(`${method} ${url}`))
  }

  /** Whether anything that it received holds this text. */
  knows(secret: string): boolean {
    const forms = [secret, Buffer.from(secret).toString('base64'), encodeURIComponent(secret)]
    return this.seen.some((one) => {
      const credentials = Buffer.from(
        (one.headers.authorization ?? '').split(' ')[1] ?? '',
        'base64',
      ).toString()
      const all = [one.url, JSON.stringify(one.headers), one.body.toString('latin1'), credentials].join('\n')
      return forms.some((form) => all.includes(form))
    })
  }

  async handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = []
    try {
      for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk)
    } catch {
      return
    }
    const { method = '', url = '', headers } = request
    const one: Seen = { method, url, headers, body: Buffer.concat(chunks) }
    this.seen.push(one)
    if ((await this.fault?.(one, response)) === true) return
    this.#behave(one, response)
  }

  #behave({ method, url, headers, body }: Seen, response: ServerResponse): void {
    const { pathname, searchParams } = new URL(url, 'http://x')
    const [, name = '', kind = '', reference = ''] =
      /^\/v2\/(.+?)\/(manifests|blobs|tags|referrers)\/(.*)$/.exec(pathname) ?? []
    if (pathname === '/v2/') {
      response.end('{}')
    } else if (kind === 'manifests' && method === 'PUT') {
      this.manifest(name, reference, body.toString(), headers['content-type'])
      response.writeHead(201, { 'docker-content-digest': digestOf(body) }).end()
    } else if (kind === 'manifests') {
      const found = this.manifests.get(`${name}${reference.includes(':') ? '@' : ':'}${reference}`)
      if (found === undefined) refuse(response, 404, 'MANIFEST_UNKNOWN', 'manifest unknown')
      else {
        const { bytes, type } = found
        const digest = digestOf(bytes)
        response.writeHead(200, {
          'content-type': type,
          'docker-content-digest': digest,
          'content-length': bytes.length,
        })
        response.end(method === 'HEAD' ? undefined : bytes)
      }
    } else if (kind === 'blobs' && reference.startsWith('uploads/')) {
      this.#upload(method, `/v2/${name}/blobs/${reference}`, searchParams, headers, body, response)
    } else if (kind === 'blobs') {
      const bytes = this.blobs.get(reference)
      const from = Number(/^bytes=(\d+)-$/.exec(headers.range ?? '')?.[1] ?? 0)
      if (bytes === undefined) refuse(response, 404, 'BLOB_UNKNOWN', 'blob unknown to registry')
      else if (from > 0 && this.ranges) {
        response.writeHead(206, {
          'content-range': `bytes ${from}-${bytes.length - 1}/${bytes.length}`,
          'content-length': bytes.length - from,
        })
        response.end(bytes.subarray(from))
      } else {
        response.writeHead(200, { 'content-length': bytes.length })
        response.end(method === 'HEAD' ? undefined : bytes)
      }
    } else refuse(response, 404, 'NAME_UNKNOWN', 'unknown')
  }

  #upload(
    method: string,
    path: string,
    query: URLSearchParams,
    headers: IncomingHttpHeaders,
    body: Buffer,
    response: ServerResponse,
  ): void {
    if (method === 'POST') {
      const location = `${path}u${this.uploads.size}`
      this.uploads.set(location, Buffer.alloc(0))
      response.writeHead(202, { location: `${location}?_state=a%3D`, 'content-length': 0 }).end()
      return
    }
    const has = this.uploads.get(path)
    const range = (length: number): string => `0-${Math.max(0, length - 1)}`
    if (has === undefined || query.get('_state') !== 'a=') {
      refuse(response, 404, 'BLOB_UPLOAD_UNKNOWN', 'blob upload unknown')
    } else if (method === 'GET') {
      response.writeHead(204, { location: `${path}?_state=a%3D`, range: range(has.length) }).end()
    } else if (method === 'DELETE') {
      this.uploads.delete(path)
      response.writeHead(204).end()
    } else if (method === 'PATCH' && headers['content-range']?.split('-')[0] !== `${has.length}`) {
      response.writeHead(416, { range: range(has.length) }).end()
    } else {
      const bytes = Buffer.concat([has, body])
      this.uploads.set(path, bytes)
      const digest = query.get('digest')
      if (method === 'PATCH') {
        response.writeHead(202, { location: `${path}?_state=a%3D`, range: range(bytes.length) }).end()
      } else if (digest === digestOf(bytes)) {
        this.blobs.set(digest, bytes)
        response.writeHead(201, { location: '/', 'docker-content-digest': digest }).end()
      } else refuse(response, 400, 'DIGEST_INVALID', 'provided digest did not match uploaded content')
    }
  }
}

/** A refusal with a body as distribution-spec has it. */
export function refuse(response: ServerResponse, status: number, code: string, message: string): true {
  response.writeHead(status, { 'content-type': 'application/json' })
  response.end(JSON.stringify({ errors: [{ code, message, detail: {} }] }))
  return true
}

/** Starts a registry on a free port of loopback; it is gone after the test, whatever it was doing. */
export async function serve(t: ExecutionContext, options: ServeOptions = {}): Promise<FakeRegistry> {
  const registry = new FakeRegistry()
  registry.fault = options.fault
  const handler = (request: IncomingMessage, response: ServerResponse): void => {
    void registry.handle(request, response)
  }
  const server =
    options.tls === undefined ? http.createServer(handler) : https.createServer(options.tls, handler)
  server.on('connection', (socket: Socket) => {
    registry.sockets.add(socket)
    socket.on('close', () => {
      registry.sockets.delete(socket)
      registry.sent += socket.bytesWritten
    })
    socket.on('error', () => undefined)
  })
  server.on('tlsClientError', () => undefined)
  const address = options.address ?? '127.0.0.1'
  await new Promise<void>((resolve) => {
    server.listen(0, address, resolve)
  })
  registry.host = `${address}:${(server.address() as AddressInfo).port}`
  registry.origin = `${options.tls === undefined ? 'http' : 'https'}://${registry.host}`
  t.teardown(() => {
    for (const socket of registry.sockets) socket.destroy()
    server.close()
  })
  return registry
}
