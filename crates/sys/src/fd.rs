//! A file descriptor that closes itself, and what can be passed where the kernel wants one.

use crate::call::{Errno, call, nr};

/// An owned file descriptor. Every descriptor that this crate makes is close-on-exec.
#[derive(Debug)]
pub struct Fd(i32);

/// Anything that stands for an open descriptor while it is borrowed.
pub trait Descriptor {
    /// The number that the kernel is given.
    fn raw(&self) -> i32;
}

/// The working directory, as the `dirfd` of the *at calls (`AT_FDCWD`).
#[derive(Clone, Copy, Debug)]
pub struct Cwd;

impl Descriptor for Cwd {
    fn raw(&self) -> i32 {
        -100
    }
}

/// A descriptor that somebody else owns and named by its number: Node's, or one of the three standard ones.
#[derive(Clone, Copy, Debug)]
pub struct Number(pub i32);

impl Descriptor for Number {
    fn raw(&self) -> i32 {
        self.0
    }
}

impl Descriptor for Fd {
    fn raw(&self) -> i32 {
        self.0
    }
}

impl<T: Descriptor + ?Sized> Descriptor for &T {
    fn raw(&self) -> i32 {
        (**self).raw()
    }
}

impl Fd {
    /// Takes over a descriptor that the kernel has just returned.
    pub(crate) const fn from_call(raw: usize) -> Self {
        Self(raw as i32)
    }

    /// A second descriptor of the same open file, close-on-exec, numbered `lowest` or above.
    ///
    /// # Errors
    /// As fcntl(2), `F_DUPFD_CLOEXEC`.
    pub fn duplicate(&self, lowest: i32) -> Result<Self, Errno> {
        duplicate(self, lowest)
    }

    /// Gives the number away without closing it.
    #[must_use]
    pub fn into_raw(self) -> i32 {
        let raw = self.0;
        core::mem::forget(self);
        raw
    }
}

/// A second descriptor of the same open file, close-on-exec, numbered `lowest` or above.
///
/// # Errors
/// As fcntl(2), `F_DUPFD_CLOEXEC`.
pub fn duplicate(fd: impl Descriptor, lowest: i32) -> Result<Fd, Errno> {
    const F_DUPFD_CLOEXEC: usize = 1030;
    // SAFETY: fcntl with F_DUPFD_CLOEXEC takes numbers only.
    unsafe { call(nr::FCNTL, [fd.raw() as usize, F_DUPFD_CLOEXEC, lowest as usize, 0, 0, 0]) }
        .map(Fd::from_call)
}

/// Puts the open file of `fd` on the number `target`, which an exec will keep (dup3(2), no flags).
///
/// # Errors
/// As dup3(2). With `fd` on `target` already, its close-on-exec flag is cleared.
pub fn place(fd: impl Descriptor, target: i32) -> Result<(), Errno> {
    const F_SETFD: usize = 2;
    let raw = fd.raw() as usize;
    if fd.raw() == target {
        // SAFETY: fcntl with F_SETFD takes numbers only.
        return unsafe { call(nr::FCNTL, [raw, F_SETFD, 0, 0, 0, 0]) }.map(drop);
    }
    // SAFETY: dup3 takes numbers only; the file that was on `target` is the caller's to give up.
    unsafe { call(nr::DUP3, [raw, target as usize, 0, 0, 0, 0]) }.map(drop)
}

/// Marks every descriptor from `first` on close-on-exec (`CLOSE_RANGE_CLOEXEC`).
///
/// # Errors
/// As close_range(2).
pub fn close_on_exec_from(first: u32) -> Result<(), Errno> {
    const CLOSE_RANGE_CLOEXEC: usize = 4;
    // SAFETY: close_range takes numbers only, and with this flag it closes nothing.
    unsafe { call(nr::CLOSE_RANGE, [first as usize, u32::MAX as usize, CLOSE_RANGE_CLOEXEC, 0, 0, 0]) }
        .map(drop)
}

/// Closes every descriptor from `first` on. For a process that has just been exec'd and owns none of them.
///
/// # Errors
/// As close_range(2).
pub fn close_from(first: u32) -> Result<(), Errno> {
    // SAFETY: close_range takes numbers only; that no value still owns these descriptors is this function's purpose:
    // it is called once, at the start of main.
    unsafe { call(nr::CLOSE_RANGE, [first as usize, u32::MAX as usize, 0, 0, 0, 0]) }.map(drop)
}

impl Drop for Fd {
    fn drop(&mut self) {
        // SAFETY: we own the descriptor, and nobody uses it after this.
        let _ = unsafe { call(nr::CLOSE, [self.0 as usize, 0, 0, 0, 0, 0]) };
    }
}

#[cfg(feature = "std")]
mod with_std {
    use super::{Descriptor, Fd};
    use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

    impl Descriptor for OwnedFd {
        fn raw(&self) -> i32 {
            self.as_raw_fd()
        }
    }

    impl Descriptor for BorrowedFd<'_> {
        fn raw(&self) -> i32 {
            self.as_raw_fd()
        }
    }

    impl AsFd for Fd {
        fn as_fd(&self) -> BorrowedFd<'_> {
            // SAFETY: the descriptor is open for as long as `self` lives.
            unsafe { BorrowedFd::borrow_raw(self.0) }
        }
    }

    impl From<Fd> for OwnedFd {
        fn from(fd: Fd) -> Self {
            // SAFETY: `into_raw` gives up ownership of an open descriptor.
            unsafe { Self::from_raw_fd(fd.into_raw()) }
        }
    }

    impl From<OwnedFd> for Fd {
        fn from(fd: OwnedFd) -> Self {
            Self(fd.into_raw_fd())
        }
    }
}
