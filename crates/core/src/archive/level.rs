//! A directory while its entries come.

use super::attributes::{Acls, keep_owner};
use super::tar::Entry;
use super::{On, Owner};
use crate::Result;
use caisson_sys::Fd;
use nix::sys::stat::{Mode, fchmod, fstat, futimens};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown};
use std::ffi::{CStr, CString};

/// A directory on the way to the current entry, and what it gets when the walk leaves it.
pub(super) struct Level {
    pub name: CString,
    pub directory: Fd,
    pub owner: Option<(u32, u32)>,
    pub mode: Option<u32>,
    pub mtime: Option<(i64, u32)>,
    pub acls: Acls,
}

impl Level {
    /// A directory of root's with this mode.
    pub fn new(name: CString, directory: Fd, mode: u32) -> Self {
        Self { name, directory, owner: Some((0, 0)), mode: Some(mode), mtime: None, acls: Acls::default() }
    }

    /// A directory that is there already: its time must survive what is made in it now. With `acls` it may have a
    /// default ACL, which must not be inherited.
    pub fn reenter(name: &CStr, directory: Fd, acls: bool, entry: &[u8]) -> Result<Self> {
        let stat = fstat(&directory).on(entry)?;
        let mut level = Self { owner: None, mode: None, ..Self::new(name.to_owned(), directory, 0) };
        level.mtime = Some((stat.st_mtime, stat.st_mtime_nsec as u32));
        let mode = stat.st_mode & 0o7777;
        if mode & 0o2000 != 0 || mode & 0o700 != 0o700 {
            // New entries of a set-group-id directory would get its group, and a caller without capabilities needs
            // all three bits.
            fchmod(&level.directory, Mode::S_IRWXU).on(entry)?;
            level.mode = Some(mode);
        }
        if acls {
            level.acls.take_default(&level.directory, entry)?;
        }
        Ok(level)
    }

    /// What its own entry says.
    pub fn describe(&mut self, entry: &Entry) {
        self.owner = Some((entry.uid, entry.gid));
        self.mode = Some(entry.mode);
        self.mtime = Some(entry.mtime);
    }

    /// Gives the directory what it gets; answers how many ACLs could not be had.
    pub fn complete(&self, owner: Owner) -> Result<u64> {
        let (directory, name) = (&self.directory, self.name.to_bytes());
        if let Some((uid, gid)) = self.owner.filter(|_| owner == Owner::Archived) {
            fchown(directory, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).on(name)?;
        }
        if let Some(ids) = self.owner.filter(|_| owner == Owner::Caller) {
            keep_owner(directory, ids, name)?;
        }
        if let Some(mode) = self.mode {
            fchmod(directory, Mode::from_bits_truncate(mode)).on(name)?;
        }
        let refused = self.acls.apply(directory, name, owner == Owner::Caller)?;
        if let Some((seconds, nanoseconds)) = self.mtime {
            futimens(directory, &TimeSpec::UTIME_OMIT, &TimeSpec::new(seconds, nanoseconds.into()))
                .on(name)?;
        }
        Ok(refused)
    }
}
