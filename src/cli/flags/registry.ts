/** The flags of commands that ask a registry what it has. */
import { common, template } from './containers.ts'
import type { Common } from './containers.ts'
import { count } from './parse.ts'
import type { Flag } from './words.ts'

export interface TagsDraft extends Common {
  format?: string
  limit?: number
}

export const tagsFlags: readonly Flag<TagsDraft>[] = [
  template<TagsDraft>("'json', or a template like '{{.Tag}}'"),
  ...common<TagsDraft>(),
  {
    long: 'limit',
    value: 'int',
    help: 'List the first tags only; by default all, and at most 10,000',
    apply: (draft, value) => void (draft.limit = count(value)),
  },
]

export interface ReferrersDraft extends Common {
  format?: string
  artifactType?: string
}

export const referrersFlags: readonly Flag<ReferrersDraft>[] = [
  {
    long: 'artifact-type',
    value: 'string',
    help: 'List what is of this type only',
    apply: (draft, value) => void (draft.artifactType = value),
  },
  template<ReferrersDraft>("'json', 'table TEMPLATE' or a template like '{{.Digest}}'"),
  ...common<ReferrersDraft>(),
]

export const manifestFlags: readonly Flag<Common>[] = common<Common>()
