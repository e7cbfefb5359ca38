//! What is in a tree that somebody may change while it is read: each name is opened below the directory that was opened
//! before it, without following links; what was opened is looked at, not what was there a moment ago.

use super::lower::kind_of;
use crate::error::{At, Result, Stage};
use crate::off::off;
use caisson_sys::file::{open, openat2, resolve};
use caisson_sys::mount::{self, Change, attr};
use caisson_sys::{Descriptor, Errno, Fd};
use nix::fcntl::{AtFlags, readlinkat};
use nix::sys::stat::{FileStat, SFlag, fstat, fstatat};
use nix::unistd::{Whence, lseek};
use std::ffi::CStr;
use std::os::unix::ffi::OsStringExt;

/// How often a name may be another thing each time that it is looked at.
const TRIES: usize = 64;
/// A file of fewer bytes is written whole, holes and all.
const SMALL: i64 = 64 << 10;
/// Pieces of a sparse file: with more, the rest of it is one.
const PIECES: usize = 16 << 10;

/// A mount of `directory` of the caller's own, without those below it, on which nothing is written, no device is opened
/// and no file executed: what the owner of the tree puts there in the last moment does nothing.
///
/// # Errors
/// As open_tree(2), mount_setattr(2).
pub fn private_view(directory: impl Descriptor, path: &CStr) -> Result<Fd> {
    let subject = || path.to_string_lossy().into_owned();
    let view = mount::clone_tree(directory, path, false).at(Stage::PACK, subject())?;
    let change =
        Change { set: attr::RDONLY | attr::NODEV | attr::NOSUID | attr::NOEXEC, ..Change::default() };
    mount::set_attributes(&view, &change, false).at(Stage::PACK, subject())?;
    Ok(view)
}

/// What was found at a name.
pub(super) enum Found {
    /// A file or a directory, opened.
    Open(Fd, FileStat),
    /// A link, opened as itself, and where it leads.
    Link(Fd, FileStat, Vec<u8>),
    /// What is not opened.
    Node(FileStat),
    /// Nothing any more.
    Gone,
}

/// Looks at a name and opens what is there, if that is a file or a directory. What is exchanged in between is looked at
/// anew: what a running container replaces is one or the other.
pub(super) fn find(directory: &Fd, name: &CStr) -> Result<Found, Errno> {
    let raw = |errno: nix::Error| Errno::from_raw(errno as i32);
    let resolve = resolve::BENEATH | resolve::NO_SYMLINKS | resolve::NO_XDEV;
    for _ in 0..TRIES {
        let seen = match fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(nix::Error::ENOENT) => return Ok(Found::Gone),
            answer => answer.map_err(raw)?,
        };
        let flags = match kind_of(&seen) {
            SFlag::S_IFDIR => open::RDONLY | open::DIRECTORY,
            SFlag::S_IFREG => open::RDONLY | open::NONBLOCK | open::NOCTTY,
            SFlag::S_IFLNK => open::PATH,
            _ => return Ok(Found::Node(seen)),
        };
        // A link that is opened as itself is no link that is followed.
        let resolve = if flags == open::PATH { resolve & !resolve::NO_SYMLINKS } else { resolve };
        let opened = match below(directory, name, flags, resolve) {
            Ok(opened) => opened,
            Err(errno) => match fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
                // It still is what it was: that is why it cannot be opened.
                Ok(now) if same(&now, &seen) => return Err(errno),
                _ => continue,
            },
        };
        let stat = fstat(&opened).map_err(raw)?;
        match kind_of(&stat) {
            kind if kind != kind_of(&seen) => {}
            SFlag::S_IFLNK => {
                let target = readlinkat(&opened, c"").map_err(raw)?.into_vec();
                return Ok(Found::Link(opened, stat, target));
            }
            _ => return Ok(Found::Open(opened, stat)),
        }
    }
    Err(Errno::EAGAIN)
}

/// Opens a name of a directory, which leads nowhere else.
fn below(directory: &Fd, name: &CStr, flags: u64, resolve: u64) -> Result<Fd, Errno> {
    if off("nofollow") && flags != open::PATH {
        return openat2(directory, name, flags, 0, 0);
    }
    openat2(directory, name, flags | open::NOFOLLOW, resolve, 0)
}

fn same(one: &FileStat, other: &FileStat) -> bool {
    (one.st_dev, one.st_ino, kind_of(one)) == (other.st_dev, other.st_ino, kind_of(other))
}

/// The pieces of a file that are no holes; none for one that is written whole.
pub(super) fn pieces(file: &Fd, stat: &FileStat) -> Option<Vec<(u64, u64)>> {
    let size = stat.st_size;
    if size < SMALL || stat.st_blocks.saturating_mul(512) >= size {
        return None;
    }
    let (mut pieces, mut at) = (Vec::new(), 0);
    while at < size {
        let start = match lseek(file, at, Whence::SeekData) {
            Ok(start) => start.min(size),
            // No more data behind it.
            Err(nix::Error::ENXIO) => break,
            Err(_) => return None,
        };
        let end = match lseek(file, start, Whence::SeekHole) {
            Ok(end) if pieces.len() < PIECES => end.clamp(start, size),
            _ => size,
        };
        if end > start {
            pieces.push((u64::try_from(start).ok()?, u64::try_from(end - start).ok()?));
        }
        at = end.max(at + 1);
    }
    // Where it ends, for GNU tar, which reads a file without data as an empty one.
    let size = u64::try_from(size).ok()?;
    if pieces.last().is_none_or(|(offset, length)| offset + length < size) {
        pieces.push((size, 0));
    }
    Some(pieces)
}
