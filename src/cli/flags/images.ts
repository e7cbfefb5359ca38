/** The flags of commands that are about images. */
import { common, template } from './containers.ts'
import type { Common } from './containers.ts'
import { isTrue, WordError } from './words.ts'
import type { Flag } from './words.ts'

function toggle<Draft>(
  long: string,
  help: string,
  set: (draft: Draft, on: boolean) => void,
  short?: string,
): Flag<Draft> {
  const apply = (draft: Draft, value: string): void => set(draft, isTrue(value))
  return { long, ...(short !== undefined && { short }), help, apply }
}

export interface TransferDraft extends Common {
  quiet: boolean
  platform?: string
  allPlatforms?: boolean
  storeLimit?: string
}

function platform<Draft extends { platform?: string }>(help: string): Flag<Draft> {
  return {
    long: 'platform',
    value: 'string',
    help: `${help}, OS/ARCH[/VARIANT]`,
    apply: (draft, value) => void (draft.platform = value),
  }
}

function allPlatforms<Draft extends { allPlatforms?: boolean }>(help: string): Flag<Draft> {
  return toggle('all-platforms', help, (draft, on) => void (draft.allPlatforms = on))
}

const transferFlags: readonly Flag<TransferDraft>[] = [
  ...common<TransferDraft>(),
  toggle('quiet', 'Suppress verbose output', (draft, on) => void (draft.quiet = on), 'q'),
]

export const pullFlags: readonly Flag<TransferDraft>[] = [
  allPlatforms<TransferDraft>('Keep the image for every platform, to push or save it as a whole'),
  platform<TransferDraft>('Pull the image for this platform'),
  ...transferFlags,
  {
    long: 'store-limit',
    value: 'bytes',
    help: 'Then remove unused images, least recently used first, until the store is within this',
    apply: (draft, value) => void (draft.storeLimit = value),
  },
]

export const pushFlags: readonly Flag<TransferDraft>[] = [
  platform<TransferDraft>('Push the image for this platform alone, without the index'),
  ...transferFlags,
]

export interface LoadDraft extends TransferDraft {
  input?: string
}

export const loadFlags: readonly Flag<LoadDraft>[] = [
  allPlatforms<LoadDraft>('Keep the images for every platform'),
  {
    long: 'input',
    short: 'i',
    value: 'file',
    help: 'Read from a tar archive file, instead of STDIN',
    apply: (draft, value) => void (draft.input = value),
  },
  platform<LoadDraft>('Load the image for this platform'),
  ...common<LoadDraft>(),
  toggle('quiet', 'Suppress the load output', (draft, on) => void (draft.quiet = on), 'q'),
]

export interface SaveDraft extends Common {
  output?: string
  platform?: string
  format: 'docker' | 'oci' | 'oci-dir'
}

const archives: Readonly<Record<string, SaveDraft['format']>> = {
  'docker-archive': 'docker',
  'oci-archive': 'oci',
  'oci-dir': 'oci-dir',
}

export const saveFlags: readonly Flag<SaveDraft>[] = [
  {
    long: 'format',
    value: 'string',
    help: 'docker-archive, which is both (default), oci-archive, or oci-dir: a layout at the output directory',
    apply: (draft, value) => {
      const format = Object.hasOwn(archives, value) ? archives[value] : undefined
      if (format === undefined)
        throw new WordError(`unknown format '${value}': docker-archive, oci-archive or oci-dir`)
      draft.format = format
    },
  },
  ...common<SaveDraft>(),
  {
    long: 'output',
    short: 'o',
    value: 'file',
    help: 'Write to a file, instead of STDOUT',
    apply: (draft, value) => void (draft.output = value),
  },
  platform<SaveDraft>('Save the image for this platform alone'),
]

export interface ImportDraft extends Common {
  changes: string[]
  message?: string
  platform?: string
}

export const importFlags: readonly Flag<ImportDraft>[] = [
  {
    long: 'change',
    short: 'c',
    value: 'list',
    help: 'Apply a Dockerfile instruction to the image',
    apply: (draft, value) => void draft.changes.push(value),
  },
  ...common<ImportDraft>(),
  {
    long: 'message',
    short: 'm',
    value: 'string',
    help: 'Set a commit message for the imported image',
    apply: (draft, value) => void (draft.message = value),
  },
  platform<ImportDraft>('Set the platform'),
]

export interface ImagesDraft extends Common {
  format?: string
  filters: [string, string][]
  digests: boolean
  quiet: boolean
  whole: boolean
}

const filters = ['dangling', 'label', 'reference', 'before', 'since']

export const imagesFlags: readonly Flag<ImagesDraft>[] = [
  { long: 'all', short: 'a', help: 'Show all images: none is hidden', apply: () => {} },
  toggle('digests', 'Show digests', (draft, on) => void (draft.digests = on)),
  {
    long: 'filter',
    short: 'f',
    value: 'filter',
    help: 'Filter output: dangling=BOOL, label=KEY[=VALUE], reference=PATTERN, before=IMAGE, since=IMAGE',
    apply: (draft, value) => {
      const [key = '', word] = value.split(/=(.*)/s, 2)
      if (word === undefined) throw new WordError('bad format of filter (expected name=value)')
      if (!filters.includes(key)) throw new WordError(`invalid filter '${key}'`)
      if (key === 'dangling') isTrue(word)
      draft.filters.push([key, word])
    },
  },
  template<ImagesDraft>("'json', 'table TEMPLATE' or a template like '{{.Repository}}'"),
  ...common<ImagesDraft>(),
  toggle('no-trunc', "Don't truncate output", (draft, on) => void (draft.whole = on)),
  toggle('quiet', 'Only show image IDs', (draft, on) => void (draft.quiet = on), 'q'),
]

export interface HistoryDraft extends Common {
  format?: string
  quiet: boolean
  whole: boolean
}

export const historyFlags: readonly Flag<HistoryDraft>[] = [
  template<HistoryDraft>("'json' or a template like '{{.CreatedBy}}'"),
  ...common<HistoryDraft>(),
  toggle('no-trunc', "Don't truncate output", (draft, on) => void (draft.whole = on)),
  toggle('quiet', 'Only show image IDs', (draft, on) => void (draft.quiet = on), 'q'),
]

export interface RemoveDraft extends Common {
  force: boolean
}

export const rmiFlags: readonly Flag<RemoveDraft>[] = [
  ...common<RemoveDraft>(),
  toggle('force', 'Force removal of the image', (draft, on) => void (draft.force = on), 'f'),
  { long: 'no-prune', help: 'Accepted: an image has no untagged parents here', apply: () => {} },
]

export interface PruneDraft extends Common {
  all: boolean
  blobs: boolean
  force: boolean
  keepStorage?: string
}

export const pruneFlags: readonly Flag<PruneDraft>[] = [
  toggle(
    'all',
    'Remove all images that no container uses, not just dangling ones',
    (draft, on) => void (draft.all = on),
    'a',
  ),
  toggle(
    'blobs',
    'Also remove compressed blobs of unpacked layers: a push needs the image pulled again',
    (draft, on) => void (draft.blobs = on),
  ),
  ...common<PruneDraft>(),
  toggle('force', 'Do not prompt for confirmation', (draft, on) => void (draft.force = on), 'f'),
  {
    long: 'keep-storage',
    value: 'bytes',
    help: 'Amount of disk space to keep: no more is removed than that takes, least recently used first',
    apply: (draft, value) => void (draft.keepStorage = value),
  },
]

export interface FactsDraft extends Common {
  format?: string
}

export const factsFlags: readonly Flag<FactsDraft>[] = [
  { ...template<FactsDraft>("'json' or a template"), short: 'f' },
  ...common<FactsDraft>(),
]

export const verifyFlags: readonly Flag<FactsDraft>[] = [
  template<FactsDraft>("'json' or a template, for each image"),
  ...common<FactsDraft>(),
]

export interface LoginDraft extends Common {
  username?: string
  password?: string
  fromStdin: boolean
}

export const loginFlags: readonly Flag<LoginDraft>[] = [
  ...common<LoginDraft>(),
  {
    long: 'password',
    short: 'p',
    value: 'string',
    help: 'Password; other users of this machine can read it: use --password-stdin',
    apply: (draft, value) => void (draft.password = value),
  },
  toggle('password-stdin', 'Take the password from stdin', (draft, on) => void (draft.fromStdin = on)),
  {
    long: 'username',
    short: 'u',
    value: 'string',
    help: 'Username',
    apply: (draft, value) => void (draft.username = value),
  },
]

export const logoutFlags: readonly Flag<Common>[] = common<Common>()
