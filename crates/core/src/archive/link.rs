//! Hard links, within the layer and to the layers below.

use super::apply::Applier;
use super::attributes::{kept_owner, read};
use super::lower::{find, kind_of};
use super::path::Path;
use super::tar::Entry;
use super::{On, Owner, refuse, too_large};
use crate::Result;
use caisson_sys::Fd;
use caisson_sys::file::{open, openat2, read_into, resolve, write_all};
use nix::fcntl::{AtFlags, readlinkat};
use nix::sys::stat::SFlag;
use nix::unistd::linkat;
use std::ffi::CStr;
use std::os::unix::ffi::OsStringExt;

impl Applier<'_> {
    /// A hard link to a file of this layer, or a copy of a file of a lower one: overlayfs has no links across layers.
    pub(super) fn link(&mut self, path: &Path, name: &CStr, entry: &mut Entry) -> Result<()> {
        let shown = super::show(&entry.target);
        let target = Path::parse(&entry.target)
            .map_err(|reason| refuse(&entry.name, format!("its target {shown}: {reason}")))?;
        if target == *path {
            return Err(refuse(&entry.name, "a hard link to itself"));
        }
        let own = std::iter::once(&self.root.directory);
        let found = match find(own, &target, self.options.userxattr, &entry.name)? {
            // Its own file, which is what most links mean, is found without the lower layers.
            Some(found) => Some(found),
            None => {
                let layers = std::iter::once(&self.root.directory).chain(self.lowers()?);
                find(layers, &target, self.options.userxattr, &entry.name)?
            }
        };
        let Some(found) = found else {
            return Err(refuse(&entry.name, format!("its target {shown} is not there")));
        };
        let Some((_, last)) = target.split() else {
            return Err(refuse(&entry.name, "a hard link to the root"));
        };
        let kind = kind_of(&found.stat);
        if kind != SFlag::S_IFREG && kind != SFlag::S_IFLNK {
            return Err(refuse(&entry.name, format!("its target {shown} is no file")));
        }
        if found.layer == 0 {
            // A link to a symbolic link is made as such: no flag here follows it.
            return self
                .make(name, &entry.name, |here| linkat(&found.parent, last, here, name, AtFlags::empty()));
        }
        entry.mode = found.stat.st_mode & 0o7777;
        (entry.uid, entry.gid) = (found.stat.st_uid, found.stat.st_gid);
        entry.mtime = (found.stat.st_mtime, found.stat.st_mtime_nsec as u32);
        entry.xattrs.clear();
        if kind == SFlag::S_IFLNK {
            entry.target = readlinkat(&found.parent, last).on(&entry.name)?.into_vec();
            return self.symlink(name, entry);
        }
        self.copy_up(&found.parent, last, name, entry)
    }

    fn copy_up(&mut self, from: &Fd, original: &CStr, name: &CStr, entry: &Entry) -> Result<()> {
        let resolve = resolve::BENEATH | resolve::NO_SYMLINKS | resolve::NO_XDEV;
        let flags = open::RDONLY | open::NOFOLLOW | open::NONBLOCK;
        let source = openat2(from, original, flags, resolve, 0).on(&entry.name)?;
        let attributes = read(&source, &entry.name)?;
        let kept = if self.options.owner == Owner::Caller { kept_owner(&source) } else { None };
        let file = self.create(name, entry)?;
        let mut room = vec![0; super::stream::PIECE];
        loop {
            let piece = read_into(&source, &mut room).on(&entry.name)?;
            if piece.is_empty() {
                break;
            }
            // Each link costs the archive one header: without a bound, a small layer could copy without end.
            self.room = self.room.checked_sub(piece.len() as u64).ok_or_else(|| {
                too_large("inflated_bytes", "hard links to lower layers copy too much".to_owned())
            })?;
            write_all(&file, piece).on(&entry.name)?;
        }
        self.dress(&file, entry, kept.unwrap_or((entry.uid, entry.gid)), attributes)
    }
}
