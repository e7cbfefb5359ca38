/**
 * Images of real programs, made once by mmdebstrap from Debian's packages into an OCI layout below .cache/programs:
 *   node __test__/programs/make.ts [NAME...]
 * It needs root, a network and some twenty seconds an image, PostgreSQL's a minute. Without names: all of them.
 */
import { execFile } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const here = fileURLToPath(new URL('.', import.meta.url))
const cache = fileURLToPath(new URL('../../.cache/programs', import.meta.url))

interface Recipe {
  packages: string
  /** mmdebstrap's hooks, once all is installed. */
  hooks?: readonly string[]
  /** The image's config, by umoci's words for it. */
  config: Readonly<Record<string, readonly string[]>>
}

const starter = '/usr/local/bin/start-postgres'
const recipes: Readonly<Record<string, Recipe>> = {
  nginx: {
    packages: 'nginx-light',
    // As the image of nginx itself: what it writes goes to the container's own streams.
    hooks: [
      'sed -i "s,/var/log/nginx/error.log;,/var/log/nginx/error.log notice;," "$1/etc/nginx/nginx.conf"',
      'ln -sf /dev/stderr "$1/var/log/nginx/error.log"; ln -sf /dev/stdout "$1/var/log/nginx/access.log"',
    ],
    config: { cmd: ['nginx', '-g', 'daemon off;'], exposedports: ['80/tcp'], stopsignal: ['SIGQUIT'] },
  },
  redis: {
    packages: 'redis-server',
    hooks: ['mkdir "$1/data"; chroot "$1" chown redis:redis /data'],
    config: {
      entrypoint: ['redis-server'],
      cmd: ['--save', '3600 1'],
      user: ['redis'],
      workingdir: ['/data'],
      volume: ['/data'],
      exposedports: ['6379/tcp'],
      stopsignal: ['SIGTERM'],
    },
  },
  postgres: {
    packages: 'postgresql',
    hooks: [`upload ${join(here, 'start-postgres')} ${starter}`, `chmod 755 "$1${starter}"`],
    config: {
      entrypoint: [starter],
      env: ['PGDATA=/data', 'PATH=/usr/lib/postgresql/15/bin:/usr/sbin:/usr/bin:/sbin:/bin'],
      volume: ['/data'],
      exposedports: ['5432/tcp'],
      stopsignal: ['SIGINT'],
    },
  },
  python: {
    packages: 'python3',
    config: {
      entrypoint: ['python3'],
      env: ['PYTHONUNBUFFERED=1'],
      user: ['nobody'],
      stopsignal: ['SIGINT'],
    },
  },
  node: {
    packages: 'nodejs',
    config: {
      entrypoint: ['node'],
      env: ['NODE_ENV=production'],
      workingdir: ['/srv'],
      exposedports: ['3000/tcp'],
    },
  },
}

/** Where an image lies. */
export function imageOf(name: string): string {
  const layout = join(cache, name)
  if (!existsSync(layout)) throw new Error(`${layout} is not there: node __test__/programs/make.ts ${name}`)
  return `oci:${layout}:${name}`
}

const must = promisify(execFile)

async function make(name: string, recipe: Recipe): Promise<void> {
  const { packages, hooks = [], config } = recipe
  const [layout, building] = [join(cache, name), join(cache, `${name}.making`)]
  // What was made by another recipe is made anew.
  const written = JSON.stringify([
    recipe,
    name === 'postgres' && readFileSync(join(here, 'start-postgres'), 'utf8'),
  ])
  const mark = 'recipe.json'
  if (existsSync(join(layout, mark)) && readFileSync(join(layout, mark), 'utf8') === written) return
  rmSync(building, { recursive: true, force: true })
  mkdirSync(building, { recursive: true })
  const [archive, image] = [join(building, 'root.tar'), `${building}/layout:${name}`]
  const last = hooks.map((hook) => `--customize-hook=${hook}`)
  // Its mounts are nobody else's.
  const words = ['--variant=minbase', '--quiet', `--include=${packages}`, ...last, 'bookworm', archive]
  await must('unshare', ['--mount', 'mmdebstrap', ...words])
  await must('umoci', ['init', '--layout', join(building, 'layout')])
  await must('umoci', ['new', '--image', image])
  await must('umoci', ['raw', 'add-layer', '--image', image, archive])
  const said = Object.entries(config).flatMap(([key, values]) =>
    values.map((value) => `--config.${key}=${value}`),
  )
  await must('umoci', ['config', '--image', image, ...said])
  writeFileSync(join(building, 'layout', mark), written)
  // The users of the tests read it, too.
  await must('chmod', ['-R', 'a+rX', join(building, 'layout')])
  rmSync(layout, { recursive: true, force: true })
  renameSync(join(building, 'layout'), layout)
  rmSync(building, { recursive: true })
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const names = process.argv.length > 2 ? process.argv.slice(2) : Object.keys(recipes)
  // Two at a time: most of it is one processor's work.
  const waiting = names.map((name) => [name, recipes[name]] as const)
  const work = async (): Promise<void> => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      const [name, recipe] = next
      if (recipe === undefined) throw new Error(`${name} is none of ${Object.keys(recipes).join(', ')}`)
      await make(name, recipe)
    }
  }
  await Promise.all([work(), work()])
}
