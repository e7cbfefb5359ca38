//! What crashes left, and what was thrown away.

use super::{Store, UNPACKING, directory, flock, is_at};
use crate::error::{At, Result, Stage};
use crate::{archive, ingest};
use caisson_sys::file::{open, openat2};
use caisson_sys::{Cwd, Fd};
use nix::fcntl::FlockArg;
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;

/// Archives of images that are being read, each a directory that its reader holds a lock on.
const SPOOL: &str = "spool";
/// What is being removed: whole directories, under any names.
const TRASH: &str = "trash";

impl Store {
    /// Whether there is something that [`Store::clean`] should look at.
    #[must_use]
    pub fn is_unclean(&self) -> bool {
        let unfinished = self.unfinished().is_ok_and(|names| !names.is_empty());
        unfinished || [TRASH, SPOOL].iter().any(|part| self.data_root.join(part).exists())
    }

    /// Removes what was being made by processes that are dead, and what was thrown away.
    pub fn clean(&self) {
        self.empty(TRASH, archive::remove_tree);
        self.empty(SPOOL, remove_unlocked);
        ingest::expire(&self.data_root);
        for name in self.unfinished().unwrap_or_default() {
            let _ = remove_unlocked(&self.unpacking, &name);
        }
    }

    /// Removes what is in a directory below the data root, and itself.
    fn empty(&self, part: &str, remove: impl Fn(&Fd, &CStr) -> Result<()>) {
        let path = self.data_root.join(part);
        let Ok(c_path) = crate::journal::c_path(&path) else { return };
        let Ok(full) = openat2(Cwd, &c_path, open::RDONLY | open::DIRECTORY | open::NOFOLLOW, 0, 0) else {
            return;
        };
        for name in names(&full).unwrap_or_default() {
            let _ = remove(&full, &name);
        }
        // One that somebody is filling stays.
        let _ = std::fs::remove_dir(&path);
    }

    fn unfinished(&self) -> Result<Vec<CString>> {
        names(&self.unpacking)
    }
}

/// Removes a directory unless somebody works in it.
fn remove_unlocked(parent: &Fd, name: &CStr) -> Result<()> {
    let held = directory(parent, name).at(Stage::UNPACK, UNPACKING)?;
    let Some(held) = flock(held, FlockArg::LockExclusiveNonblock)? else { return Ok(()) };
    if is_at(&held, parent, name)? { archive::remove_tree(parent, name) } else { Ok(()) }
}

/// What is in a directory.
fn names(of: &Fd) -> Result<Vec<CString>> {
    let copy: OwnedFd = directory(of, c".").at(Stage::UNPACK, UNPACKING)?.into();
    let mut listed = nix::dir::Dir::from_fd(copy).at(Stage::UNPACK, UNPACKING)?;
    let names = listed.iter().flatten().map(|entry| entry.file_name().to_owned());
    Ok(names.filter(|name| !matches!(name.to_bytes(), b"." | b"..")).collect())
}
