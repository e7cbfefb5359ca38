/** What is inside of options that are objects and lists: a key that is misspelt there is no container without what it means. */
import { refuse } from '../errors.ts'

const size = 'string or number'

interface Shape {
  /** Of the entries of a list, or the values of an object. */
  each?: string
  /** Of those that are objects, or of the value itself, each field's kind. */
  fields?: Record<string, string>
}

const shapes: Record<string, Shape> = {
  mounts: {
    each: 'object',
    fields: {
      type: 'string',
      source: 'string',
      target: 'string',
      readOnly: 'boolean',
      recursive: 'boolean',
      propagation: 'string',
      size,
      mode: 'number',
    },
  },
  devices: {
    each: 'string or object',
    fields: { host: 'string', container: 'string', permissions: 'string' },
  },
  io: {
    each: 'object',
    fields: { device: 'string', readBps: size, writeBps: size, readIops: 'number', writeIops: 'number' },
  },
  ulimits: { each: 'number or object', fields: { soft: 'number', hard: 'number' } },
  size: { fields: { columns: 'number', rows: 'number' } },
  tmpfs: { each: 'string' },
  capAdd: { each: 'string' },
  capDrop: { each: 'string' },
  groups: { each: 'string or number' },
  entrypoint: { each: 'string' },
  labels: { each: 'string' },
  sysctls: { each: 'string' },
  cgroup: { each: 'string' },
}

/** The kind of a value in the words of an error: typeof, with arrays and null told apart. */
export function kindOf(value: unknown): string {
  if (Array.isArray(value)) return 'array'
  return value === null ? 'null' : typeof value
}

function checkFields(option: string, value: object, fields: Record<string, string>): void {
  for (const [name, field] of Object.entries(value)) {
    if (!Object.hasOwn(fields, name)) throw refuse(option, `unknown field '${name}'`)
    const wanted = fields[name] ?? ''
    if (field !== undefined && !wanted.split(' or ').includes(kindOf(field)))
      throw refuse(option, `${name}: a value of type ${wanted} is wanted, not ${kindOf(field)}`)
  }
}

/** Checks what is inside of one option. */
export function checkShape(option: string, value: unknown): void {
  const shape = Object.hasOwn(shapes, option) ? shapes[option] : undefined
  if (shape === undefined || typeof value !== 'object' || value === null) return
  const { each, fields } = shape
  const inner: [string, unknown][] = each === undefined ? [['', value]] : Object.entries(value)
  for (const [name, one] of inner) {
    if (each !== undefined && !each.split(' or ').includes(kindOf(one)))
      throw refuse(option, `${name}: a value of type ${each} is wanted, not ${kindOf(one)}`)
    if (fields !== undefined && typeof one === 'object' && one !== null) checkFields(option, one, fields)
  }
}
