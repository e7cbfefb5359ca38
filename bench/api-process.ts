/** The handle of a measured process (bench/api.ts): one order at a time. */
import { fork } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { Orders, Setup } from './api.ts'

interface Reply {
  answer?: unknown
  failure?: string
}

export class ApiProcess {
  readonly #child: ChildProcess

  private constructor(child: ChildProcess) {
    this.#child = child
  }

  /** Starts one, as somebody else if asked, and waits until it has loaded the package. */
  static async start(
    setup: Setup,
    as?: { uid: number; gid: number; env: NodeJS.ProcessEnv },
  ): Promise<ApiProcess> {
    const child = fork(fileURLToPath(new URL('api.ts', import.meta.url)), [JSON.stringify(setup)], {
      execArgv: ['--expose-gc', '--max-old-space-size=4096'],
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      ...as,
    })
    const started = new ApiProcess(child)
    await started.#reply()
    return started
  }

  get pid(): number {
    return this.#child.pid ?? 0
  }

  async order<Name extends keyof Orders>(
    name: Name,
    ...[order]: Parameters<Orders[Name]>
  ): Promise<ReturnType<Orders[Name]>> {
    this.#child.send({ name, order })
    return (await this.#reply()) as ReturnType<Orders[Name]>
  }

  /** Ends it, by SIGKILL or as a program that has nothing to do any more. */
  async end(signal?: 'SIGKILL'): Promise<void> {
    const over = once(this.#child, 'exit')
    if (signal === undefined) this.#child.disconnect()
    else this.#child.kill(signal)
    await over
  }

  async #reply(): Promise<unknown> {
    const ended = new AbortController()
    try {
      const reply = await Promise.race([
        once(this.#child, 'message', { signal: ended.signal }).then(([message]) => message as Reply),
        once(this.#child, 'exit', { signal: ended.signal }).then(([code, signal]): Reply => {
          return { failure: `the measured process ended with ${String(code ?? signal)}` }
        }),
      ])
      if (reply.failure !== undefined) throw new Error(reply.failure)
      return reply.answer
    } finally {
      ended.abort()
    }
  }
}
