/** Plans by the text of their spec: a second run of the same spec compiles nothing. */
import { native, toError } from '../native.ts'
import type { Native } from '../native.ts'
import { unlimited } from './resources.ts'
import type { Spec } from './spec.ts'

type Plan = InstanceType<Native['Plan']>

/** Programs alternate between a few specs; a plan is some 10 KiB in a sealed memory file, freed with its object. */
const most = 32
const plans = new Map<string, Plan>()

/** Compiles a spec, or answers the plan of an equal one. */
export function planOf(spec: Spec, supervise: boolean, seccomp: unknown): Plan {
  const defaultSeccomp = seccomp === undefined || seccomp === 'default'
  const text = JSON.stringify(spec).replaceAll(`"${unlimited}"`, '18446744073709551615')
  const key = `${supervise ? 'init' : ''}/${defaultSeccomp ? 'default' : ''}/${text}`
  const found = plans.get(key)
  if (found !== undefined) return found
  const plan = new (native().addon.Plan)(text, { supervise, defaultSeccomp })
  if (plan.failure !== null) throw toError(plan.failure)
  if (plans.size >= most) {
    const [oldest] = plans.keys()
    if (oldest !== undefined) plans.delete(oldest)
  }
  plans.set(key, plan)
  return plan
}
