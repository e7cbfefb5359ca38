//! Who may change what a path leads to: the installed executable for root (security.md E8), and the roots of state for
//! everybody, since what stands in a journal is removed.

use crate::error::{At, Code, Error, Result, Stage};
use crate::off::off;
use caisson_sys::{Errno, Fd, xattr};
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

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
    if known.mode() & 0o002 != 0 || known.mode() & 0o020 != 0 && (!own_group || has_acl(place)) {
        return refuse(format!("can be written by others (mode {:o})", known.mode() & 0o7777));
    }
    Ok(())
}

/// Whether an ACL says more than the mode, whose group bits are then the most that it gives (acl(5)).
fn has_acl(place: &Path) -> bool {
    let Ok(file) = fs::File::open(place) else { return false };
    let file = Fd::from(OwnedFd::from(file));
    xattr::get(&file, c"system.posix_acl_access", &mut [0; 4096]).is_ok()
}

/// Refuses a way that somebody else could turn: each directory and each link that the kernel passes on it, as far as it is
/// there.
///
/// # Errors
/// As [`check`]; ELOOP.
pub fn check_way(path: &Path, owners: &[u32]) -> Result<()> {
    let mut ahead: Vec<OsString> = parts(path);
    let mut here = PathBuf::from("/");
    check(&here, &fs::symlink_metadata(&here).at(Stage::SHIM, "/")?, owners)?;
    let mut links = 0;
    while let Some(part) = ahead.pop() {
        if part == ".." {
            here.pop();
            continue;
        }
        let next = here.join(&part);
        let known = match fs::symlink_metadata(&next) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            known => known.at(Stage::SHIM, next.to_string_lossy())?,
        };
        check(&next, &known, owners)?;
        if !known.is_symlink() {
            here = next;
            continue;
        }
        links += 1;
        if links > MOST_LINKS {
            return Err(Errno::ELOOP).at(Stage::SHIM, path.to_string_lossy());
        }
        let target = fs::read_link(&next).at(Stage::SHIM, next.to_string_lossy())?;
        if target.is_absolute() {
            here = PathBuf::from("/");
        }
        ahead.append(&mut parts(&target));
    }
    Ok(())
}

/// The kernel's own bound (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// The names of a path, the first last.
fn parts(path: &Path) -> Vec<OsString> {
    let names = path.components().rev().filter_map(|part| match part {
        Component::Normal(_) | Component::ParentDir => Some(part.as_os_str().to_owned()),
        _ => None,
    });
    names.collect()
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
