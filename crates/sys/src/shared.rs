//! A page that a process and its forks share. mmap(2).

use crate::call::{Errno, call, nr};
use core::sync::atomic::AtomicU64;

/// How many words a page has.
pub const WORDS: usize = 512;

/// A page of zeros that this process and those that it forks from now on share; never taken away.
///
/// # Errors
/// As mmap(2): ENOMEM.
pub fn page() -> Result<&'static [AtomicU64; WORDS], Errno> {
    const PROT_READ_WRITE: usize = 1 | 2;
    const MAP_SHARED_ANONYMOUS: usize = 0x01 | 0x20;
    let length = size_of::<[AtomicU64; WORDS]>();
    // SAFETY: without an address and a descriptor this only makes a new mapping.
    let start = unsafe { call(nr::MMAP, [0, length, PROT_READ_WRITE, MAP_SHARED_ANONYMOUS, usize::MAX, 0]) }?;
    let page = core::ptr::with_exposed_provenance::<[AtomicU64; WORDS]>(start);
    // SAFETY: the mapping is as long as the array, aligned to a page, never unmapped; any bits are words, and all access is
    // atomic.
    Ok(unsafe { &*page })
}
