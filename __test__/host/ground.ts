/** Whose a test is, and where it plays: /run on a host of root's, the user's own runtime directory on a rootless one. */

/** Whether tests run as root. */
export const isRoot: boolean = process.geteuid?.() === 0
/** Whether containers have more than one user: those of root, and of a user with a range of ids. */
export const hasUsers: boolean = process.env.CAISSON_TEST_HOST !== 'single'
/** Whether containers have cgroups of their own: those of root, and of a user with a delegated one. */
export const hasGroups: boolean = process.env.CAISSON_TEST_HOST !== 'single'
/** Whether the host has controllers. */
export const hasControllers: boolean = ['uml', 'qemu'].includes(process.env.CAISSON_TEST_HOST ?? '')
/** A tmpfs. */
export const runtime: string = isRoot ? '/run' : (process.env.XDG_RUNTIME_DIR ?? '/nowhere')
