/**
 * The rows of known holes that are tested here, and for each the mitigations whose loss its test must see: words of
 * crates/core/src/off.rs. `npm run test:red` switches them off, one row after another, and wants each test red.
 */
/**
 * A row: what is switched off for its control. None where there is nothing to switch: `why` says so. `host`: where both
 * are run, if not on the private host.
 */
export const rows: Record<string, { file: string; off?: string; why?: string; host?: 'single' | 'range' }> = {
  A1: { file: 'executable', off: 'seal' },
  A2: { file: 'descriptors', off: 'close_range' },
  A3: { file: 'places', off: 'no_symlinks' },
  A4: { file: 'places', off: 'in_root' },
  A5: { file: 'places', off: 'in_root' },
  A6: { file: 'dev', off: 'masks' },
  A7: { file: 'dev', off: 'own_dev' },
  A8: { file: 'settings', off: 'own_procfs,keep_proc' },
  A9: { file: 'dev', why: 'without a mount at /dev alone, which this API cannot express' },
  A10: { file: 'dev', off: 'own_stdio' },
  A11: { file: 'places', off: 'in_root' },
  A12: { file: 'identity', off: 'numeric' },
  A13: { file: 'identity', off: 'inh' },
  A14: { file: 'settings', off: 'sysctl_list' },
  A15: { file: 'settings', off: 'rro' },
  B1: { file: 'exec', off: 'dumpable' },
  B2: { file: 'exec', off: 'early,traced' },
  B3: { file: 'exec', off: 'cgroup_ro' },
  B4: { file: 'exec', why: 'the group of a command has a name of the shim’s, which nobody gives' },
  B5: { file: 'dev', off: 'devices' },
  B6: { file: 'descriptors', off: 'keyring' },
  B7: { file: 'identity', off: 'setgroups', host: 'single' },
  B8: { file: 'terminal', off: 'setsid' },
  D12: { file: 'identity', off: 'passwd' },
  E8: { file: 'executable', off: 'install_check' },
  // Caisson's own, found by a review: whoever writes a journal has its owner's rights.
  R1: { file: 'roots', off: 'root_check' },
}
