/** Tests that not every user can make. */
import test from 'ava'
import { hasUsers, isRoot } from './ground.ts'

const none = (() => {}) as unknown as typeof test

/** One that itself does what root alone can: mounts, links of the network, nodes, files of others. */
export const rootTest: typeof test = isRoot ? test : none
/** One whose container has other users than 0. */
export const usersTest: typeof test = hasUsers ? test : none
