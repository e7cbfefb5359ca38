/** Plans by what is their spec's own: a second run of the same spec compiles nothing. */
import { native, toError } from '../native.ts'
import { idMap } from '../state/ids.ts'
import type { Native } from '../native.ts'
import { refuse } from '../errors.ts'
import type { RunOptions } from './options.ts'
import { abridged } from './constant.ts'
import type { Spec } from './spec.ts'

type Plan = InstanceType<Native['Plan']>

/** Programs alternate between a few specs; a plan is some 10 KiB in a sealed memory file. */
const most = 32
const plans = new Map<string, Plan>()

const words: ReadonlySet<unknown> = new Set(['default', 'unconfined'])

/** A profile as text: docker's form and the runtime spec's are told apart, and read, in Rust. */
function profileText(profile: string | object): string {
  if (typeof profile === 'string') return profile
  try {
    return JSON.stringify(profile)
  } catch (error) {
    throw refuse(
      'seccomp',
      `cannot be written as JSON: ${error instanceof Error ? error.message : String(error)}`,
    )
  }
}

/** Compiles a spec, with `exec` its process alone, or answers the plan of an equal one. */
export function planOf(spec: Spec, options: RunOptions, exec = false): Plan {
  const { seccomp, env = {}, groups = [] } = options
  const extras = {
    supervise: options.init === true,
    defaultSeccomp: seccomp === undefined || seccomp === 'default',
    ...(seccomp !== undefined && !words.has(seccomp) && { profile: profileText(seccomp) }),
    // The host name comes with the launch: a spec that held it would be another one for each container.
    hostVariable: !Object.hasOwn(env, 'HOSTNAME'),
    mapped: idMap().kind !== 'root',
    groups: groups.map(String),
    exec,
  }
  const key = JSON.stringify([abridged(spec), extras])
  const found = plans.get(key)
  if (found !== undefined) return found
  const plan = new (native().addon.Plan)(JSON.stringify(spec), extras)
  if (plan.failure !== null) throw toError(plan.failure)
  if (plans.size >= most) {
    const [oldest] = plans
    if (oldest !== undefined) {
      plans.delete(oldest[0])
      // Not left to the collector: a program with a spec of its own for each run would run out of descriptors first.
      oldest[1].close()
    }
  }
  plans.set(key, plan)
  return plan
}
