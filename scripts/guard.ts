/**
 * Checks the checkers: plants one fault for each rule in a copy of the checkout and wants every checker red, by the
 * name of the rule. A checker that sees nothing passes, so each must have been seen failing.
 */
import { spawnSync } from 'node:child_process'
import {
  appendFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

interface Plant {
  file: string
  text: string
  /** What the checker must say. */
  said: RegExp
}
interface Checker {
  command: readonly string[]
  plants: readonly Plant[]
}

const own = fileURLToPath(new URL('..', import.meta.url))
const bin = (name: string): string => join(own, 'node_modules/.bin', name)
const script = (name: string): string => join(own, 'scripts', name)

const checkers: readonly Checker[] = [
  {
    command: [process.execPath, script('arrows.ts'), '.'],
    plants: [
      {
        file: 'src/state/planted.ts',
        text: "import type { Planted } from '../container/planted.ts'\nexport type Again = Planted\n",
        said: /not-in-allowed: src\/state\/planted\.ts -> src\/container\/planted\.ts/,
      },
      {
        file: 'src/container/planted.ts',
        text: "import '../../index.js'\nimport { spawn } from 'node:child_process'\nexport type Planted = typeof spawn\n",
        said: /addon-only-from-native: src\/container\/planted\.ts/,
      },
      {
        file: 'src/image/planted.ts',
        text: "export * from '../network/planted.ts'\nexport * from './circle.ts'\n",
        said: /not-in-allowed: src\/image\/planted\.ts -> src\/network\/planted\.ts/,
      },
      {
        file: 'src/image/circle.ts',
        text: "export * from './planted.ts'\n",
        said: /no-circular: src\/image\//,
      },
      {
        file: 'src/network/planted.ts',
        text: "import { execFile } from 'child_process'\nexport const planted: unknown = execFile\n",
        said: /no-child-process: src\/network\/planted\.ts/,
      },
      {
        file: 'src/registry/planted.ts',
        text: "import { spawn } from 'node:child_process'\nexport const planted: unknown = spawn\n",
        said: /no-child-process: src\/registry\/planted\.ts/,
      },
      {
        file: 'src/registry/upward.ts',
        text: "export { choose } from '../image/manifest.ts'\n",
        said: /not-in-allowed: src\/registry\/upward\.ts -> src\/image\/manifest\.ts/,
      },
      {
        file: 'src/cli/planted.ts',
        text: "export { planted } from '../state/other.ts'\n",
        said: /not-in-allowed: src\/cli\/planted\.ts -> src\/state\/other\.ts/,
      },
      { file: 'src/state/other.ts', text: 'export const planted = 1\n', said: /src\/state\/other\.ts/ },
      {
        file: 'src/image/orphan.ts',
        text: 'export const planted = 1\n',
        said: /no-orphans: src\/image\/orphan\.ts/,
      },
      {
        file: 'src/planted.ts',
        text: "export * from './errors.ts'\n",
        said: /not-in-allowed: src\/planted\.ts/,
      },
    ],
  },
  {
    command: [process.execPath, script('crates.ts'), '.'],
    plants: [
      {
        file: 'crates/sys/Cargo.toml',
        text: '\n[dependencies.caisson-core]\nworkspace = true\n',
        said: /caisson-sys -> caisson-core/,
      },
      {
        file: 'crates/core/src/planted.rs',
        text: '// unsafe in a comment is none\npub fn planted() { unsafe { } }\n',
        said: /core\/src\/planted\.rs:2: unsafe stands only/,
      },
    ],
  },
  {
    command: [bin('oxlint'), '--type-aware', '--deny-warnings', 'src'],
    plants: [
      {
        file: 'src/state/floating.ts',
        text: 'async function planted(): Promise<void> {}\nexport function start(): void {\n  planted()\n}\n',
        said: /no-floating-promises/,
      },
      {
        file: 'src/state/upward.ts',
        text: "export { CaissonError } from '../index.ts'\n",
        said: /no-restricted-imports/,
      },
    ],
  },
  {
    command: [bin('tsc'), '-p', '.'],
    plants: [
      {
        file: 'src/state/wrong.ts',
        text: "export const planted: number = 'a word'\nenum Erased {}\n",
        said: /src\/state\/wrong\.ts\(1,14\): error TS2322/,
      },
    ],
  },
  {
    command: [bin('prettier'), '--check', 'src'],
    plants: [
      { file: 'src/state/ugly.ts', text: 'export const planted = {a:1};\n', said: /src\/state\/ugly\.ts/ },
    ],
  },
]

const copy = mkdtempSync(join(tmpdir(), 'caisson-guard-'))
let faults = 0
try {
  const listed = spawnSync('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard'], {
    cwd: own,
    encoding: 'utf8',
  })
  for (const file of listed.stdout.split('\0').filter((name) => name !== '' && existsSync(join(own, name)))) {
    cpSync(join(own, file), join(copy, file), { force: true })
  }
  symlinkSync(join(own, 'node_modules'), join(copy, 'node_modules'))
  writeFileSync(join(copy, 'index.js'), 'export {}\n')

  for (const { plants } of checkers) {
    for (const { file, text } of plants) {
      mkdirSync(dirname(join(copy, file)), { recursive: true })
      appendFileSync(join(copy, file), text)
    }
  }
  for (const { command, plants } of checkers) {
    const [program = '', ...words] = command
    const run = spawnSync(program, words, { cwd: copy, encoding: 'utf8' })
    const output = run.stdout + run.stderr
    if (run.status === 0) {
      faults += 1
      console.error(`guard: ${command.join(' ')} passed with planted faults`)
    }
    for (const { file, said } of plants.filter((plant) => !plant.said.test(output))) {
      faults += 1
      console.error(`guard: ${command.join(' ')} did not say ${said} of ${file}:\n${output}`)
    }
  }
} finally {
  rmSync(copy, { recursive: true, force: true })
}
if (faults > 0) process.exit(1)
console.log(`guard: ${checkers.length} checkers seen red`)
