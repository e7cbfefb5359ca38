//! Descriptors that JavaScript knows by their numbers until a stream has them. They belong to the thread of their
//! environment: what a worker that is terminated between two statements leaves is closed when its thread ends.

use caisson_sys::{Descriptor, Fd};
use napi_derive::napi;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::fstat;
use std::cell::RefCell;

/// What a number means: device, inode, access mode. The two ends of a pipe share all but the last.
type Meaning = (u64, u64, i32);

#[derive(Default)]
struct Held(Vec<(Fd, Option<Meaning>)>);

thread_local! {
    static HELD: RefCell<Held> = RefCell::default();
}

impl Drop for Held {
    /// The end of a worker. A stream may have closed a number that was not released any more, and another thread may
    /// have it now: closed is only what still means the same.
    fn drop(&mut self) {
        for (file, meaning) in self.0.drain(..) {
            if meaning.is_none() || meaning != meaning_of(&file) {
                let _ = file.into_raw();
            }
        }
    }
}

fn meaning_of(file: &Fd) -> Option<Meaning> {
    let known = fstat(file).ok()?;
    let flags = fcntl(file, FcntlArg::F_GETFL).ok()?;
    Some((known.st_dev, known.st_ino, flags & OFlag::O_ACCMODE.bits()))
}

fn on_worker() -> bool {
    nix::unistd::gettid() != nix::unistd::getpid()
}

/// Keeps a descriptor for JavaScript; its number.
pub(crate) fn hold(file: Fd) -> i32 {
    let number = file.raw();
    let meaning = if on_worker() { meaning_of(&file) } else { None };
    HELD.with_borrow_mut(|held| held.0.push((file, meaning)));
    number
}

/// Looks at a descriptor that is held.
pub(crate) fn with<T>(number: i32, look: impl FnOnce(&Fd) -> T) -> Option<T> {
    HELD.with_borrow(|held| held.0.iter().find(|(file, _)| file.raw() == number).map(|(file, _)| look(file)))
}

fn take(number: i32) -> Option<Fd> {
    HELD.with_borrow_mut(|held| {
        let index = held.0.iter().position(|(file, _)| file.raw() == number)?;
        Some(held.0.swap_remove(index).0)
    })
}

/// A stream has the descriptor now, and closes it.
#[napi(catch_unwind)]
pub fn release_descriptor(number: i32) {
    let _ = take(number).map(Fd::into_raw);
}

/// Closes a descriptor, unless a stream has it. Not by node:fs, which warns of descriptors that it did not open.
#[napi(catch_unwind)]
pub fn close_descriptor(number: i32) {
    drop(take(number));
}
