/**
 * What a person sees of images on a terminal, from login to prune, against Debian's docker-registry with a password:
 *   node __test__/programs/make.ts nginx && node __test__/host/run.ts private -- node scripts/transcript.ts >docs/transcript.md
 * The commands are run by a shell on a pseudo-terminal (script(1)); of what is drawn again and again a few frames are kept.
 */
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { ExecutionContext } from 'ava'
import { imageOf } from '../__test__/programs/make.ts'
import { debian, user } from '../__test__/registry/debian.ts'

const host = 'localhost:5000'
const [nginx, web] = [`${host}/team/nginx:1`, `${host}/team/web:stable`]
const commands = [
  `echo ${user.password} | caisson login --username ${user.username} --password-stdin ${host}`,
  `caisson pull ${nginx}`,
  `caisson pull ${nginx}`,
  `caisson run --rm ${nginx} nginx -v`,
  `caisson tag ${nginx} ${web}`,
  `caisson push ${web}`,
  'caisson images',
  `caisson history --format '{{.Size}} {{.CreatedBy}}' ${web}`,
  `caisson save --output web.tar ${web}`,
  `caisson rmi ${nginx} ${web}`,
  'caisson images',
  'caisson load --input web.tar',
  `caisson run --rm --pull never ${web} cat /etc/debian_version`,
  'caisson system df',
  'caisson image prune --force --blobs',
  'caisson image prune --force --all',
  'caisson system df',
  `caisson logout ${host}`,
]

/** Cursor up: what follows is drawn over what was there (`cli/progress.ts`). */
const escape = '\u001B['
const again = new RegExp(`${escape.replace('[', String.raw`\[`)}\\d+A`)
const frames = 4

/** A few of the frames of what was drawn again, the first and the last among them. */
function readable(output: string): string {
  const drawn = output.replaceAll('\r', '').replaceAll(`${escape}2K`, '').split(again)
  // The last is whole: what is written after it stands behind it.
  const all = drawn.filter((frame, at) => !(drawn[at + 1] ?? '').startsWith(frame))
  const step = Math.ceil(all.length / (frames - 1))
  return all.filter((_, at) => at === all.length - 1 || at % step === 0).join('')
}

const directory = mkdtempSync('/run/transcript-')
const undo: (() => unknown)[] = [() => rmSync(directory, { recursive: true })]
try {
  await debian({ teardown: (last) => void undo.push(last) } as ExecutionContext, {
    auth: 'htpasswd',
    port: 5000,
  })
  const creds = ['--dest-creds', `${user.username}:${user.password}`]
  execFileSync('skopeo', [
    'copy',
    '-q',
    '--dest-tls-verify=false',
    ...creds,
    imageOf('nginx'),
    `docker://${nginx}`,
  ])
  mkdirSync(join(directory, 'bin'))
  mkdirSync(join(directory, 'home'))
  symlinkSync(fileURLToPath(new URL('../bin/caisson.cjs', import.meta.url)), join(directory, 'bin/caisson'))
  const env = {
    HOME: join(directory, 'home'),
    PATH: `${join(directory, 'bin')}:${process.env.PATH}`,
    CAISSON_ROOT: join(directory, 'data'),
    TERM: 'xterm',
    LANG: 'C.UTF-8',
  }
  const shown = commands.map((command) => {
    const words = ['--quiet', '--return', '--command', `stty cols 100 rows 40; ${command}`, '/dev/null']
    const output = execFileSync('script', words, {
      env,
      cwd: env.HOME,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    return `$ ${command}\n${readable(output).replaceAll(env.HOME, '~')}`
  })
  process.stdout.write(
    `# A terminal\n\nWritten by \`scripts/transcript.ts\`: an image of nginx on Debian, in a registry on loopback that wants a password.\n\n\`\`\`console\n${shown.join('')}\`\`\`\n`,
  )
} finally {
  for (const last of undo.toReversed()) await last()
}
