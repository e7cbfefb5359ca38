//! The disk works while files are made, and not only behind them.

use crate::error::{At, Error, Result, Stage};
use caisson_sys::Fd;
use nix::unistd::syncfs;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread::{Builder, scope};
use std::time::Duration;

/// Between two calls. What is made in less is written by the last one, its maker's.
const PERIOD: Duration = Duration::from_millis(100);

/// Does some work, while what it writes goes to the disk of `place`. Its maker still calls `syncfs` behind it.
///
/// # Errors
/// The work's; that of a write to the disk, which the kernel tells each open file but once (syncfs(2), errseq).
pub(crate) fn during<T>(place: &Fd, work: impl FnOnce() -> Result<T>) -> Result<T> {
    scope(|scope| {
        let (working, ended) = channel::<()>();
        let sync = move || {
            while ended.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                syncfs(place).at(Stage::UNPACK, "syncfs")?;
            }
            Ok::<(), Error>(())
        };
        let syncing =
            Builder::new().name("sync".to_owned()).spawn_scoped(scope, sync).at(Stage::UNPACK, "thread")?;
        let made = work()?;
        drop(working);
        match syncing.join() {
            Ok(synced) => synced.map(|()| made),
            Err(_) => {
                Err(Error::new(crate::Code::Internal, Stage::UNPACK, "syncfs", "its thread ended early"))
            }
        }
    })
}
