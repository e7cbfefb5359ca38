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
const [nginx, web, page] = [`${host}/team/nginx:1`, `${host}/team/web:stable`, `${host}/team/page:1`]
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
  `caisson run --name changed ${web} sh -c 'echo hello >/page; sleep 60' & sleep 2`,
  `caisson commit --message 'a page' --change 'CMD cat /page' changed ${page}`,
  'caisson stop -t 0 changed',
  `caisson run --rm ${page}`,
  `caisson push ${page}`,
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
/** Before each command. */
const begin = '\u0001'

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
  // One shell for all, so that what runs in the background stays.
  const shell = `stty cols 100 rows 40; for line; do printf '${begin}$ %s\\n' "$line"; eval "$line"; done; wait`
  const quoted = ['bash', '-c', shell, 'bash', ...commands].map(
    (word) => `'${word.replaceAll("'", String.raw`'\''`)}'`,
  )
  const output = execFileSync('script', ['--quiet', '--return', '--command', quoted.join(' '), '/dev/null'], {
    env,
    cwd: env.HOME,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const shown = output
    .split(begin)
    .slice(1)
    .map((text) => readable(text).replaceAll(env.HOME, '~'))
  process.stdout.write(
    `# A terminal\n\nWritten by \`scripts/transcript.ts\`: an image of nginx on Debian, in a registry on loopback that wants a password.\n\n\`\`\`console\n${shown.join('')}\`\`\`\n`,
  )
} finally {
  for (const last of undo.toReversed()) await last()
}
