//! Looking below the layer that is being unpacked: what the layers under it show at a path, as overlayfs would.

use super::On;
use super::path::Path;
use crate::Result;
use crate::error::Failure;
use caisson_sys::file::{open, openat2, resolve};
use caisson_sys::{Errno, Fd, xattr};
use nix::fcntl::AtFlags;
use nix::sys::stat::{FileStat, SFlag, fstatat};
use std::ffi::CStr;

/// One step of a walk: a directory, no link, below where we are.
pub(super) fn step(directory: &Fd, name: &CStr) -> Result<Fd, Errno> {
    if crate::off::off("nofollow") {
        return openat2(directory, name, open::RDONLY | open::DIRECTORY, 0, 0);
    }
    let resolve = resolve::BENEATH | resolve::NO_SYMLINKS | resolve::NO_XDEV;
    openat2(directory, name, open::RDONLY | open::DIRECTORY | open::NOFOLLOW, resolve, 0)
}

/// What is at a name of a directory, a link itself included; nothing if there is nothing.
pub(super) fn look(directory: &Fd, name: &CStr) -> Result<Option<FileStat>, nix::Error> {
    match fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(nix::Error::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// The kind of what is there: `S_IFMT` of its mode.
pub(super) fn kind_of(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

/// Whether it is overlayfs' mark that the lower layers' entry is gone.
pub(super) fn is_whiteout(stat: &FileStat) -> bool {
    kind_of(stat) == SFlag::S_IFCHR && stat.st_rdev == 0
}

/// The attribute that hides what the lower layers have in a directory.
pub(super) fn opaque_attribute(userxattr: bool) -> &'static CStr {
    if userxattr { c"user.overlay.opaque" } else { c"trusted.overlay.opaque" }
}

/// Something found in a layer.
pub(super) struct Found {
    /// 0 is the first layer that was given.
    pub layer: usize,
    /// The directory it is in.
    pub parent: Fd,
    pub stat: FileStat,
}

/// Finds `path` in `layers`, the topmost first, as a mount of them would show it; nothing where nothing is, where a
/// whiteout or an opaque directory hides it, and where the way is no directory. The root itself is not found.
pub(super) fn find<'a>(
    layers: impl Iterator<Item = &'a Fd>,
    path: &Path,
    userxattr: bool,
    entry: &[u8],
) -> Result<Option<Found>> {
    'layers: for (layer, root) in layers.enumerate() {
        let Some((parents, last)) = path.split() else { return Ok(None) };
        let mut opaque = false;
        let mut at = openat2(root, c".", open::RDONLY | open::DIRECTORY, 0, 0).on(entry)?;
        for name in parents {
            at = match step(&at, name) {
                Ok(next) => next,
                Err(Errno::ENOENT) if opaque => return Ok(None),
                Err(Errno::ENOENT) => continue 'layers,
                Err(Errno::ENOTDIR | Errno::ELOOP) => return Ok(None),
                Err(errno) => return Err(errno).on(entry),
            };
            opaque |= is_opaque(&at, userxattr).on(entry)?;
        }
        match look(&at, last).on(entry)? {
            Some(stat) if is_whiteout(&stat) => return Ok(None),
            Some(stat) => return Ok(Some(Found { layer, parent: at, stat })),
            None if opaque => return Ok(None),
            None => {}
        }
    }
    Ok(None)
}

fn is_opaque(directory: &Fd, userxattr: bool) -> Result<bool, impl Failure + std::fmt::Display> {
    match xattr::get(directory, opaque_attribute(userxattr), &mut [0; 8]) {
        Ok(value) => Ok(value == b"y"),
        Err(Errno::ENODATA | Errno::EOPNOTSUPP) => Ok(false),
        Err(Errno::ERANGE) => Ok(false),
        Err(errno) => Err(errno),
    }
}
