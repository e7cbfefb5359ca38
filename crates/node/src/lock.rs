//! Locks between programs: flock(2) on files and directories, which the kernel gives up with their holder.

use caisson_sys::file::{open, openat2};
use caisson_sys::{Cwd, Errno};
use napi_derive::napi;
use nix::fcntl::{Flock, FlockArg};
use std::cell::RefCell;
use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};

thread_local! {
    /// Given up at the end of a worker, too.
    static LOCKS: RefCell<Vec<Flock<OwnedFd>>> = const { RefCell::new(Vec::new()) };
}

/// Locks a file or a directory, without waiting: a number for `unlock`, -1 where somebody else has the lock, -2 where there
/// is nothing. With `create` a file is made where there is none.
///
/// # Errors
/// As open(2) and flock(2).
#[napi(catch_unwind)]
pub fn lock(path: String, exclusive: bool, create: bool) -> napi::Result<i32> {
    let fail =
        |errno: i32| napi::Error::from_reason(format!("{path}: {}", nix::errno::Errno::from_raw(errno)));
    let name = CString::new(path.as_str()).map_err(|_| napi::Error::from_reason("path holds a NUL byte"))?;
    let flags = open::NOFOLLOW | if create { open::RDWR | open::CREAT } else { open::RDONLY };
    let file = match openat2(Cwd, &name, flags, 0, if create { 0o600 } else { 0 }) {
        Err(Errno::ENOENT) => return Ok(-2),
        answer => OwnedFd::from(answer.map_err(|errno| fail(errno.raw()))?),
    };
    let how = if exclusive { FlockArg::LockExclusiveNonblock } else { FlockArg::LockSharedNonblock };
    match Flock::lock(file, how) {
        Ok(lock) => {
            let number = lock.as_raw_fd();
            LOCKS.with_borrow_mut(|locks| locks.push(lock));
            Ok(number)
        }
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(-1),
        Err((_, errno)) => Err(fail(errno as i32)),
    }
}

/// Gives up a lock.
#[napi(catch_unwind)]
pub fn unlock(number: i32) {
    LOCKS.with_borrow_mut(|locks| locks.retain(|lock| lock.as_raw_fd() != number));
}
