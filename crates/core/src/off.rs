//! Switching a mitigation off, for tests that must be seen to fail without it. A test of a protection that passes
//! when the protection is gone proves nothing.
//!
//! Only with the cargo feature `off`: then `CAISSON_OFF=nofollow,xattr` names the mitigations that are off, for the
//! whole process. Without the feature the answer is a constant and the compiler drops the branch.
//!
//! | word | what it drops |
//! | --- | --- |
//! | `nofollow` | the rule that a walk below a layer's root, to write it or to read it, follows no link (D1, D2) |
//! | `whiteout` | the rule that a whiteout leaves alone what its own layer wrote (D4) |
//! | `xattr` | the list of attributes that a layer may set (D5) |
//! | `limits` | the bounds of size, ratio and count (D7) |
//! | `verify` | the comparison of digests (D8) |
//! | `private` | the rule that nobody else may enter the roots (D6) |
//! | `seal` | the sealed copy of the executable: the installed file runs (A1) |
//! | `environment` | the empty environment of the shim (D10) |
//! | `close_range` | the closing of inherited descriptors (A2) |
//! | `no_symlinks` | the rule that proc and sysfs land on plain directories (A3) |
//! | `in_root` | the container's own mount namespace and root while its places are found: they are found in the host's tree, following links (A4, A5, A11) |
//! | `masks` | the mask that was never the container's: its own /dev/null lies over masked files (A6) |
//! | `own_dev` | the rule that a console needs a /dev of Caisson's own, and no link there (A7) |
//! | `own_procfs` | the procfs that settings are written through (A8) |
//! | `keep_proc` | the rule that nothing covers the container's /proc (A8) |
//! | `own_stdio` | the rule that only pipes of Caisson's own are given to the user (A10) |
//! | `numeric` | the rule that digits are a number (A12) |
//! | `inh` | the empty inheritable set (A13) |
//! | `dumpable` | the rule that shim and joiner are not to be seen into (B1) |
//! | `early` | the rule that a joiner gives up its rights before the container can see it (B2) |
//! | `setgroups` | the denial of setgroups(2) in a map of one id (B7) |
//! | `traced` | the bound of the wait for an end that a tracer in the container keeps (B2) |
//! | `cgroup_ro` | the read-only mount of the container's cgroup (B3) |
//! | `sysctl_list` | the list of settings (A14) |
//! | `rro` | read-only for what is mounted below the source (A15) |
//! | `devices` | the device program (B5) |
//! | `keyring` | the session keyring of the container's own (B6) |
//! | `setsid` | the sessions of shim and payload (B8) |
//! | `passwd` | the rule that passwd and group are regular files (D12) |
//! | `root_check` | the check of who may write the roots of state, and that a journal names what is its container's (R1) |
//! | `install_check` | the check of who may write the executable (E8) |

/// Whether the mitigation `name` was switched off.
#[cfg(feature = "off")]
#[must_use]
pub fn off(name: &str) -> bool {
    static OFF: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let list = OFF.get_or_init(|| std::env::var("CAISSON_OFF").unwrap_or_default());
    list.split(',').any(|word| word == name)
}

/// Whether the mitigation `name` was switched off: never, in this build.
#[cfg(not(feature = "off"))]
#[inline(always)]
#[must_use]
pub const fn off(_name: &str) -> bool {
    false
}

/// What an exec of this executable by itself hands on: the list, in a build that has one.
pub(crate) fn variable() -> Option<std::ffi::CString> {
    #[cfg(feature = "off")]
    return std::ffi::CString::new(format!("CAISSON_OFF={}", std::env::var("CAISSON_OFF").ok()?)).ok();
    #[cfg(not(feature = "off"))]
    None
}
