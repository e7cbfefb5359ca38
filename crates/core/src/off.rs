//! Switching a mitigation off, for tests that must be seen to fail without it. A test of a protection that passes
//! when the protection is gone proves nothing.
//!
//! Only with the cargo feature `off`: then `CAISSON_OFF=nofollow,xattr` names the mitigations that are off, for the
//! whole process. Without the feature the answer is a constant and the compiler drops the branch.
//!
//! | word | what it drops |
//! | --- | --- |
//! | `nofollow` | the rule that a walk below a layer's root follows no link |
//! | `whiteout` | the rule that a whiteout leaves alone what its own layer wrote |
//! | `xattr` | the list of attributes that a layer may set |
//! | `limits` | the bounds of size, ratio and count |
//! | `verify` | the comparison of digests |

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
