/** A proxy for tests: knows names that nobody else does, and remembers what went through it. */
import http from 'node:http'
import { connect } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'
import type { ExecutionContext } from 'ava'

export interface Proxy {
  url: string
  /** `CONNECT host:port` and `GET http://...`. */
  seen: string[]
}

/** Starts a proxy that sends what is for these names to these addresses, and everything else where it says; `''` to `refuse`: nothing. */
export async function proxy(t: ExecutionContext, names: Record<string, string> = {}): Promise<Proxy> {
  const seen: string[] = []
  const sockets = new Set<Socket>()
  const place = (name: string, port: string): { host: string; port: number } => {
    const [host = name, mapped = port] = (names[name] ?? '').split(':').filter(Boolean)
    return { host, port: Number(mapped) }
  }
  const server = http.createServer((request, response) => {
    seen.push(`${request.method} ${request.url}`)
    const url = new URL(request.url ?? '')
    const { method = 'GET', headers } = request
    const onward = http.request({
      ...place(url.hostname, url.port),
      method,
      headers,
      path: `${url.pathname}${url.search}`,
    })
    onward.on('response', (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers)
      answer.pipe(response)
    })
    onward.on('error', () => response.destroy())
    request.pipe(onward)
  })
  server.on('connect', (request, socket: Socket) => {
    seen.push(`CONNECT ${request.url}`)
    if (names[''] === 'refuse') {
      socket.end('HTTP/1.1 407 Proxy Authentication Required\r\n\r\n')
      return
    }
    const [name = '', port = ''] = (request.url ?? '').split(':')
    const onward = connect(place(name, port))
    sockets.add(onward)
    onward.on('connect', () => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n')
      socket.pipe(onward).pipe(socket)
    })
    onward.on('error', () => socket.destroy())
    socket.on('error', () => onward.destroy())
    socket.on('close', () => onward.destroy())
  })
  server.on('connection', (socket) => {
    sockets.add(socket)
    socket.on('error', () => undefined)
  })
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve)
  })
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, seen }
}
