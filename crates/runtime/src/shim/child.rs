//! Children of the shim's own that do one thing.

use caisson_core::{At, Result, Stage};
use caisson_sys::process::{self, Fork};
use caisson_sys::{Fd, identity};

const SIGKILL: i32 = 9;

/// Forks a child that does `work` and ends with what it answers. A shim that is killed takes it along: the signal counts
/// on one thread, and the shim has one.
pub(super) fn fork(stage: Stage, work: impl FnOnce() -> i32) -> Result<Fd> {
    let shim = std::process::id();
    match process::fork(0, None).at(stage, "clone3")? {
        Fork::Parent { pidfd, .. } => Ok(pidfd),
        Fork::Child => {
            let tied = identity::set_parent_death_signal(SIGKILL);
            if tied.is_err() || process::parent() != shim {
                caisson_sys::exit(1);
            }
            caisson_sys::exit(work())
        }
    }
}
