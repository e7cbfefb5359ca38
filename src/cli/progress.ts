/** Pulls and pushes as a person sees them: a line a layer, redrawn on a terminal; elsewhere a line a change. */
import type { LoadProgress, PullProgress, PushProgress } from '../index.ts'
import { bytes } from './table.ts'

/** How often a terminal is redrawn, ms. */
const pace = 100

/** What is written to. */
export interface Sink {
  isTTY?: boolean
  columns?: number
  write(text: string): unknown
}

interface Line {
  state: string
  done: number
  size: number
}

const words: Record<string, string> = {
  present: 'Already exists',
  downloading: 'Downloading',
  unpacking: 'Extracting',
  mounted: 'Mounted',
  uploading: 'Pushing',
}

/** What is shown, and what it says of a layer that is where it was to go. */
const own = {
  pull: { complete: 'Pull complete' },
  push: { complete: 'Pushed', present: 'Layer already exists' },
  load: { complete: 'Loaded' },
}

/** Whether a state is the last. */
function isOver(state: string): boolean {
  return state === 'present' || state === 'complete' || state === 'mounted'
}

function bar(done: number, size: number): string {
  const filled = size === 0 ? 20 : Math.floor((done / size) * 20)
  return `[${'='.repeat(filled)}${filled < 20 ? '>' : ''}${' '.repeat(Math.max(0, 19 - filled))}]`
}

function short(digest: string): string {
  return digest.slice('sha256:'.length, 'sha256:'.length + 12)
}

/** Shows layers; `end` leaves the last state standing. */
export class ProgressView {
  readonly #out: Sink
  readonly #words: Record<string, string>
  readonly #lines = new Map<string, Line>()
  readonly #began = performance.now()
  #drawn = 0
  #last = -Infinity

  constructor(out: Sink, shown: keyof typeof own) {
    this.#out = out
    this.#words = { ...words, ...own[shown] }
  }

  show(progress: LoadProgress | PullProgress | PushProgress): void {
    if (progress.kind !== 'layer') return
    const { state, digest, size } = progress
    const key = 'layer' in progress ? `${progress.layer} ${digest}` : digest
    const before = this.#lines.get(key)
    this.#lines.set(key, { state, done: 'sent' in progress ? progress.sent : progress.received, size })
    if (this.#out.isTTY === true) this.#draw(false)
    else if (before?.state !== state && (isOver(state) || before === undefined))
      this.#out.write(`${short(digest)}: ${this.#words[state] ?? state}\n`)
  }

  end(): void {
    if (this.#out.isTTY === true) this.#draw(true)
  }

  #draw(all: boolean): void {
    const now = performance.now()
    if (!all && now - this.#last < pace) return
    this.#last = now
    const most = Math.max(20, (this.#out.columns ?? 80) - 1)
    const seconds = Math.max(0.001, (now - this.#began) / 1000)
    const text = [...this.#lines].map(([key, { state, done, size }]) => {
      const digest = key.slice(key.indexOf('sha256:'))
      const figures = isOver(state)
        ? bytes(size)
        : `${bar(done, size)} ${bytes(done)}/${bytes(size)}  ${bytes(done / seconds)}/s`
      return `${short(digest)}: ${(this.#words[state] ?? state).padEnd(14)} ${figures}`.slice(0, most)
    })
    const up = this.#drawn === 0 ? '' : `\u001B[${this.#drawn}A`
    this.#out.write(`${up}${text.map((line) => `\u001B[2K${line}\n`).join('')}`)
    this.#drawn = text.length
  }
}
