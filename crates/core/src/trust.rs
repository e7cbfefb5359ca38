//! Who may change what a path leads to: the installed executable for root (security.md E8), and the roots of state for
//! everybody, since what stands in a journal is removed.

use crate::error::{At, Code, Error, Result, Stage};
use crate::off::off;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Refuses a place that is not owned by root or one of `owners`, or that others may write. A sticky directory may be: what
/// stands in it can be removed by its owner alone.
///
/// # Errors
/// [`Code::UnsafeInstall`], with the place and what is wrong with it.
pub fn check(place: &Path, known: &Metadata, owners: &[u32]) -> Result<()> {
    const STICKY: u32 = 0o1000;
    let refuse = |why: String| {
        let message = format!("{} {why}: whoever can change it could act with our rights", place.display());
        Err(Error::new(Code::UnsafeInstall, Stage::SHIM, place.to_string_lossy(), message))
    };
    let owner = known.uid();
    if owner != 0 && !owners.contains(&owner) {
        return refuse(format!("belongs to user {owner}"));
    }
    if known.is_symlink() || known.is_dir() && known.mode() & STICKY != 0 {
        return Ok(());
    }
    // Root's own group, and the group that many systems give each user for himself, are no other people.
    let own_group = known.gid() == 0 || known.gid() == owner;
    if known.mode() & 0o002 != 0 || known.mode() & 0o020 != 0 && !own_group {
        return refuse(format!("can be written by others (mode {:o})", known.mode() & 0o7777));
    }
    Ok(())
}

/// Refuses a way that somebody else could turn: each directory and link of `path` as far as it is there, and of what it
/// really is.
///
/// # Errors
/// As [`check`].
pub fn check_way(path: &Path, owners: &[u32]) -> Result<()> {
    let there = |place: &&Path| fs::symlink_metadata(place).is_ok();
    let Some(last) = path.ancestors().find(there) else { return Ok(()) };
    let real: PathBuf = fs::canonicalize(last).at(Stage::SHIM, last.to_string_lossy())?;
    for place in last.ancestors().chain(real.ancestors()) {
        check(place, &fs::symlink_metadata(place).at(Stage::SHIM, place.to_string_lossy())?, owners)?;
    }
    Ok(())
}

/// Refuses a root of state that somebody else could put things into, or could exchange. To be called outside of a user
/// namespace, in which others have no number of their own.
///
/// # Errors
/// As [`check`]; [`Code::InvalidSpec`] for a path that a journal cannot hold.
pub fn check_root(name: &str, root: &str) -> Result<()> {
    if root.contains(['\n', '\0']) {
        return Err(Error::invalid(name, "holds a line break"));
    }
    if off("root_check") {
        return Ok(());
    }
    check_way(Path::new(root), &[nix::unistd::geteuid().as_raw()])
}
