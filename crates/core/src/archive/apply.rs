//! Entries to files below one descriptor: an OCI layer becomes a directory as overlayfs wants its lower ones.
//!
//! No path string goes to the kernel: every directory on the way is opened from the one above, without following
//! links, and stays open while the entries below it come (security.md rows D1, D2, D4, C4). What is at a name already
//! is removed, never opened. A directory gets its owner, mode, default ACL and time when the walk leaves it, so that
//! they neither hinder nor change what is made in it, and no list of directories is kept.

use super::attributes::{Attributes, keep_owner};
use super::level::Level;
use super::lower::{is_whiteout, kind_of, look, opaque_attribute, step};
use super::missing::Missing;
use super::path::{Meaning, Path};
use super::remove::remove_tree;
use super::stream::Stream;
use super::tar::{Entry, Kind, Reader};
use super::{Lowers, On, Options, Owner, Report, refuse};
use crate::Result;
use crate::error::Failure;
use crate::off::off;
use caisson_sys::file::{open, openat2, write_all};
use caisson_sys::{Errno, Fd, xattr};
use nix::fcntl::AtFlags;
use nix::sys::stat::{
    FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstat, futimens, makedev, mkdirat, mknodat,
    utimensat,
};
use nix::sys::time::TimeSpec;
use nix::sys::uio::pwrite;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, ftruncate, symlinkat, unlinkat};
use std::ffi::{CStr, CString};

/// Writes entries below one directory.
pub(super) struct Applier<'a> {
    pub(super) options: &'a Options<'a>,
    /// The root of the layer, and the directories open below it, one in the other.
    pub(super) root: Level,
    pub(super) levels: Vec<Level>,
    /// Bytes that copies from lower layers may still take.
    pub(super) room: u64,
    /// Whether a directory of this layer got a default ACL.
    pub(super) default_acls: bool,
    pub(super) missing: Missing,
    pub(super) report: Report,
}

impl<'a> Applier<'a> {
    /// Takes the layer's root directory, already opened for reading.
    pub fn new(root: Fd, options: &'a Options<'a>, room: u64) -> Result<Self> {
        for acl in [super::attributes::DEFAULT_ACL, super::attributes::ACCESS_ACL] {
            // A store below a directory with a default ACL would hand it on to every file of every layer.
            match xattr::remove(&root, acl) {
                Ok(()) | Err(Errno::ENODATA | Errno::EOPNOTSUPP) => {}
                Err(errno) => return Err(errno).on(b"./"),
            }
        }
        fchmod(&root, Mode::S_IRWXU).on(b"./")?;
        let root = Level::new(CString::default(), root, 0o755);
        let (levels, missing, report) = (Vec::new(), Missing::default(), Report::default());
        Ok(Self { options, root, levels, room, default_acls: false, missing, report })
    }

    /// Makes one entry.
    pub fn apply<S: Stream>(&mut self, entry: &mut Entry, data: &mut Reader<S>) -> Result<()> {
        let path = Path::parse(&entry.name).map_err(|reason| refuse(&entry.name, reason))?;
        if self.missing.is_full() {
            self.dress_missing()?;
        }
        let Some((parents, last)) = path.split() else {
            return self.apply_root(entry);
        };
        let meaning = path.meaning().map_err(|reason| refuse(&entry.name, reason))?;
        if meaning == Meaning::Ignored {
            return Ok(());
        }
        if meaning != Meaning::Plain && entry.kind != Kind::File {
            return Err(refuse(&entry.name, "a whiteout that is no file"));
        }
        if let Some(part) = self.walk(parents, &path, &entry.name)? {
            // What this layer put in a directory's place hides all that was in there: nothing is left for a whiteout.
            // umoci repack writes them so.
            if meaning != Meaning::Plain {
                return Ok(());
            }
            let part = super::show(part.to_bytes());
            return Err(refuse(&entry.name, format!("its path leads through {part}, which is no directory")));
        }
        match meaning {
            Meaning::Plain | Meaning::Ignored => {}
            Meaning::Opaque => return self.opaque(&entry.name),
            Meaning::Whiteout(name) => return self.whiteout(&name, &entry.name),
        }
        let name = last.to_owned();
        match entry.kind {
            Kind::Directory => self.directory(&path, &name, entry),
            Kind::File => self.file(&name, entry, data),
            Kind::Symlink => self.symlink(&name, entry),
            Kind::Link => self.link(&path, &name, entry),
            Kind::Fifo => self.node(&name, entry, SFlag::S_IFIFO),
            Kind::Char if entry.device == (0, 0) && !off("xattr") => {
                Err(refuse(&entry.name, "a character device 0:0, which overlayfs reads as a whiteout"))
            }
            Kind::Char | Kind::Block if !self.options.devices => {
                self.report.skipped_devices += 1;
                Ok(())
            }
            Kind::Char => self.node(&name, entry, SFlag::S_IFCHR),
            Kind::Block => self.node(&name, entry, SFlag::S_IFBLK),
        }
    }

    /// Completes every directory that is still open.
    pub fn finish(mut self) -> Result<Report> {
        self.dress_missing()?;
        self.leave(0)?;
        self.report.skipped_xattrs += self.root.complete(self.options.owner)?;
        Ok(self.report)
    }

    /// The roots of the layers below; waits for them, if they are not there yet.
    pub(super) fn lowers(&self) -> Result<&'a [Fd]> {
        self.options.lowers.map_or(Ok(&[]), Lowers::roots)
    }

    /// The directory that the walk is in.
    pub(super) fn here(&self) -> &Fd {
        &self.levels.last().unwrap_or(&self.root).directory
    }

    /// Walks to a directory; what is missing on the way is made. Answers what of this layer is in the way, if it is no
    /// directory.
    pub(super) fn walk<'p>(
        &mut self,
        parents: impl ExactSizeIterator<Item = &'p CStr>,
        path: &Path,
        entry: &[u8],
    ) -> Result<Option<&'p CStr>> {
        let length = parents.len();
        let mut shared = 0;
        for (depth, name) in parents.enumerate() {
            if shared == depth && self.levels.get(depth).is_some_and(|level| *level.name == *name) {
                shared += 1;
                continue;
            }
            if depth == shared {
                self.leave(shared)?;
            }
            let level = match step(self.here(), name) {
                Ok(directory) => Level::reenter(name, directory, self.default_acls, entry)?,
                Err(Errno::ENOENT) => self.missing_parent(name, depth, path, entry)?,
                Err(Errno::ENOTDIR | Errno::ELOOP) if self.is_whiteout_here(name, entry)? => {
                    unlinkat(self.here(), name, UnlinkatFlags::NoRemoveDir).on(entry)?;
                    let level = self.missing_parent(name, depth, path, entry)?;
                    self.set_opaque(&level.directory, entry)?;
                    level
                }
                Err(Errno::ENOTDIR | Errno::ELOOP) => return Ok(Some(name)),
                Err(errno) => return Err(errno).on(entry),
            };
            self.levels.push(level);
        }
        if shared == length {
            self.leave(shared)?;
        }
        Ok(None)
    }

    /// Completes the directories deeper than `depth`, the deepest first.
    fn leave(&mut self, depth: usize) -> Result<()> {
        while self.levels.len() > depth {
            if let Some(level) = self.levels.pop() {
                self.report.skipped_xattrs += level.complete(self.options.owner)?;
            }
        }
        Ok(())
    }

    fn apply_root(&mut self, entry: &mut Entry) -> Result<()> {
        if entry.kind != Kind::Directory {
            return Err(refuse(&entry.name, "the root of a layer that is no directory"));
        }
        self.leave(0)?;
        let lenient = self.lenient();
        let mut attributes = Attributes::choose(std::mem::take(&mut entry.xattrs));
        self.root.acls = attributes.apply_plain(&self.root.directory, &entry.name, lenient)?;
        self.report.skipped_xattrs += attributes.refused;
        self.root.describe(entry);
        Ok(())
    }

    fn directory(&mut self, path: &Path, name: &CStr, entry: &mut Entry) -> Result<()> {
        self.missing.described(path);
        let mut hides = false;
        match mkdirat(self.here(), name, Mode::S_IRWXU) {
            Ok(()) => {}
            Err(nix::Error::EEXIST) => match look(self.here(), name).on(&entry.name)? {
                Some(stat) if kind_of(&stat) == SFlag::S_IFDIR => {}
                found => {
                    hides = found.is_some_and(|stat| is_whiteout(&stat));
                    self.clear(name, &entry.name)?;
                    mkdirat(self.here(), name, Mode::S_IRWXU).on(&entry.name)?;
                }
            },
            Err(errno) => return Err(errno).on(&entry.name),
        }
        let directory = step(self.here(), name).on(&entry.name)?;
        // It may be there already, with a mode that the entries to come must not meet.
        let mut level = Level::reenter(name, directory, self.default_acls, &entry.name)?;
        if hides {
            self.set_opaque(&level.directory, &entry.name)?;
        }
        let mut attributes = Attributes::choose(std::mem::take(&mut entry.xattrs));
        level.acls = attributes.apply_plain(&level.directory, &entry.name, self.lenient())?;
        self.default_acls |= level.acls.has_default();
        self.report.skipped_xattrs += attributes.refused;
        level.describe(entry);
        self.levels.push(level);
        Ok(())
    }

    fn file<S: Stream>(&mut self, name: &CStr, entry: &mut Entry, data: &mut Reader<S>) -> Result<()> {
        let file = self.create(name, entry)?;
        match &entry.sparse {
            None => loop {
                let piece = data.data()?;
                let length = piece.len();
                if length == 0 {
                    break;
                }
                write_all(&file, piece).on(&entry.name)?;
                data.consume(length);
            },
            Some(map) => write_sparse(&file, map, entry, data)?,
        }
        let attributes = Attributes::choose(std::mem::take(&mut entry.xattrs));
        self.dress(&file, entry, (entry.uid, entry.gid), attributes)
    }

    /// What a file gets, in the order in which the kernel leaves the earlier ones alone and lets the later ones be set:
    /// a new owner drops capabilities, `user` attributes need the right to write, chmod changes an ACL's mask.
    pub(super) fn dress(
        &mut self,
        file: &Fd,
        entry: &Entry,
        ids: (u32, u32),
        mut attributes: Attributes,
    ) -> Result<()> {
        // Most files are right already, and to look costs less than to set. What the umask, the mount's options or the
        // directory gave a new file is seen, not guessed.
        let stat = fstat(file).on(&entry.name)?;
        if self.options.owner == Owner::Caller {
            keep_owner(file, ids, &entry.name)?;
        } else if (stat.st_uid, stat.st_gid) != ids {
            fchown(file, Some(Uid::from_raw(ids.0)), Some(Gid::from_raw(ids.1))).on(&entry.name)?;
        }
        let acls = attributes.apply_plain(file, &entry.name, self.lenient())?;
        if stat.st_mode & 0o7777 != entry.mode {
            fchmod(file, Mode::from_bits_truncate(entry.mode)).on(&entry.name)?;
        }
        self.report.skipped_xattrs += attributes.refused + acls.apply(file, &entry.name, self.lenient())?;
        let (seconds, nanoseconds) = entry.mtime;
        futimens(file, &TimeSpec::UTIME_OMIT, &TimeSpec::new(seconds, nanoseconds.into())).on(&entry.name)
    }

    pub(super) fn symlink(&mut self, name: &CStr, entry: &Entry) -> Result<()> {
        let target = match CString::new(entry.target.as_slice()) {
            Ok(target) if !target.is_empty() && target.count_bytes() < 4096 => target,
            _ => return Err(refuse(&entry.name, "a target that is empty, too long or holds a NUL")),
        };
        self.make(name, &entry.name, |here| symlinkat(target.as_c_str(), here, name))?;
        self.report.skipped_xattrs += entry.xattrs.len() as u64;
        self.dress_at(name, entry, None)
    }

    fn node(&mut self, name: &CStr, entry: &Entry, kind: SFlag) -> Result<()> {
        let device = makedev(entry.device.0.into(), entry.device.1.into());
        self.make(name, &entry.name, |here| mknodat(here, name, kind, Mode::empty(), device))?;
        self.report.skipped_xattrs += entry.xattrs.len() as u64;
        self.dress_at(name, entry, Some(entry.mode))
    }

    /// As [`Self::dress`], for what cannot be opened without side effects: by name, without following a link.
    fn dress_at(&self, name: &CStr, entry: &Entry, mode: Option<u32>) -> Result<()> {
        let here = self.here();
        if self.options.owner == Owner::Archived {
            let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
            fchownat(here, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW).on(&entry.name)?;
        }
        if let Some(mode) = mode {
            let mode = Mode::from_bits_truncate(mode);
            fchmodat(here, name, mode, FchmodatFlags::NoFollowSymlink).on(&entry.name)?;
        }
        let (seconds, nanoseconds) = entry.mtime;
        let mtime = TimeSpec::new(seconds, nanoseconds.into());
        utimensat(here, name, &TimeSpec::UTIME_OMIT, &mtime, UtimensatFlags::NoFollowSymlink).on(&entry.name)
    }

    /// The lower layers' entry of this name is gone. What this layer wrote there stays, wherever the whiteout stands
    /// in the archive; of a directory it leaves only this layer's part.
    fn whiteout(&mut self, name: &[u8], entry: &[u8]) -> Result<()> {
        let name = CString::new(name).map_err(|_| refuse(entry, "there is a NUL in the name"))?;
        if off("whiteout") {
            self.clear(&name, entry)?;
        }
        match mknodat(self.here(), name.as_c_str(), SFlag::S_IFCHR, Mode::empty(), 0) {
            Ok(()) => Ok(()),
            Err(nix::Error::EEXIST) => match look(self.here(), &name).on(entry)? {
                Some(stat) if kind_of(&stat) == SFlag::S_IFDIR => {
                    let directory = step(self.here(), &name).on(entry)?;
                    self.set_opaque(&directory, entry)
                }
                _ => Ok(()),
            },
            Err(errno) => Err(errno).on(entry),
        }
    }

    /// All that the lower layers have in this directory is gone.
    fn opaque(&mut self, entry: &[u8]) -> Result<()> {
        if self.levels.is_empty() {
            // overlayfs merges the roots of its layers whatever they say, so the caller must leave the lower ones out.
            self.report.opaque_root = true;
            return Ok(());
        }
        self.set_opaque(self.here(), entry)
    }

    fn set_opaque(&self, directory: &Fd, entry: &[u8]) -> Result<()> {
        xattr::set(directory, opaque_attribute(self.options.userxattr), b"y").on(entry)
    }

    fn is_whiteout_here(&self, name: &CStr, entry: &[u8]) -> Result<bool> {
        Ok(look(self.here(), name).on(entry)?.is_some_and(|stat| is_whiteout(&stat)))
    }

    /// A new file, for writing. It may have its permissions at once, since nobody else comes through the layer's root,
    /// which is 0700 until all is done; set-id bits come after its owner. Its owner can write it until then: a caller
    /// without capabilities could set no attributes of it else.
    pub(super) fn create(&mut self, name: &CStr, entry: &Entry) -> Result<Fd> {
        const FLAGS: u64 = open::WRONLY | open::CREAT | open::EXCL | open::NOFOLLOW;
        let mode = entry.mode & 0o777 | 0o200;
        self.make(name, &entry.name, |here| openat2(here, name, FLAGS, 0, mode))
    }

    /// Makes something at a name, in place of what may be there.
    pub(super) fn make<T, E: Failure + std::fmt::Display>(
        &mut self,
        name: &CStr,
        entry: &[u8],
        mut call: impl FnMut(&Fd) -> Result<T, E>,
    ) -> Result<T> {
        match call(self.here()) {
            Err(error) if error.errno() == Some(Errno::EEXIST.raw()) => {
                self.clear(name, entry)?;
                call(self.here()).on(entry)
            }
            answer => answer.on(entry),
        }
    }

    /// Removes what is at a name: never opened, never followed.
    fn clear(&mut self, name: &CStr, entry: &[u8]) -> Result<()> {
        if let Ok(path) = Path::parse(entry) {
            self.missing.removed(&path);
        }
        remove_tree(self.here(), name).map_err(|error| crate::Error { subject: super::show(entry), ..error })
    }

    /// Whether a right that is missing is no error: a caller that may not chown may not set capabilities either.
    pub(super) fn lenient(&self) -> bool {
        self.options.owner == Owner::Caller
    }
}

/// Writes the pieces of a sparse file to their places; the rest stays a hole.
fn write_sparse<S: Stream>(file: &Fd, map: &[(u64, u64)], entry: &Entry, data: &mut Reader<S>) -> Result<()> {
    let off_t = |value: u64| i64::try_from(value).map_err(|_| refuse(&entry.name, "a size out of range"));
    ftruncate(file, off_t(entry.size)?).on(&entry.name)?;
    for (offset, length) in map {
        let (mut offset, mut left) = (*offset, *length);
        while left > 0 {
            let piece = data.data()?;
            let most = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let written = pwrite(file, &piece[..most], off_t(offset)?).on(&entry.name)?;
            data.consume(written);
            offset += written as u64;
            left -= written as u64;
        }
    }
    Ok(())
}
