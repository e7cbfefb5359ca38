/**
 * The rows of known holes that are tested here, and for each the mitigations whose loss its test must see: words of
 * crates/core/src/off.rs and edits.ts. `npm run test:red` switches them off, one row after another, and wants each test red.
 */
/**
 * A row: what is switched off for its control. None where there is nothing to switch: `why` says so. `host`: where both
 * are run, if not on the private host. `rust`: its tests and their controls are those of the core that this filter finds.
 */
export type Row =
  | { file: string; off?: string; why?: string; host?: 'single' | 'range' }
  | { rust: string; off?: string; why?: string }

export const rows: Record<string, Row> = {
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
  D1: { rust: 'archive::tests::off', off: 'nofollow' },
  D2: { rust: 'archive::tests::off', off: 'nofollow' },
  D3: { rust: 'archive::tests::readers', why: 'its controls are two other readers' },
  D4: { rust: 'archive::tests::off', off: 'whiteout' },
  D5: { rust: 'archive::tests::off', off: 'xattr' },
  D6: { file: 'private', off: 'private' },
  D7: { file: 'limits', off: 'limits,verify' },
  D8: { file: 'digests', off: 'verify,digests' },
  D9: { file: 'documents', off: 'media_type,verify' },
  D10: { file: 'logins', off: 'redirect,realm,redact,environment' },
  D11: { file: 'config', off: 'typed,labels' },
  D12: { file: 'identity', off: 'passwd' },
  D13: { file: 'names', off: 'served,renamed,names,platform' },
  D14: { file: 'archives', off: 'archive_map' },
  E8: { file: 'executable', off: 'install_check' },
  // Caisson's own, found by a review: whoever writes a journal has its owner's rights.
  R1: { file: 'roots', off: 'root_check' },
}
