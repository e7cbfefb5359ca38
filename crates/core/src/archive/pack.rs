//! A tree to entries: what [`super::unpack`] does, backwards. The tree is an attacker's, and may be changed while it is
//! read: how its names are opened is found.rs's.
//!
//! In the form of a layer the marks of overlayfs become those of the image format: a character device 0:0 is
//! `.wh.NAME`, an opaque directory holds `.wh..wh..opq`. A whole tree has none of them.
//!
//! Memory is bounded whatever the tree: names of the directories that are open and of links that are still to come are at
//! most [`NAMES_BYTES`], files with such links at most [`LINKED`], a file is read in pieces.

use super::attributes::{self, OWNER, is_allowed};
use super::found::{Found, find, pieces};
use super::header::BLOCK;
use super::lower::{kind_of, opaque_attribute};
use super::path::MOST_COMPONENTS;
use super::stream::PIECE;
use super::tar::{Entry, Kind};
use super::write::{END, Unsayable, headers, padding};
use super::{Limits, Owner, show, too_large};
use crate::error::{At, Code, Error, Failure, Result, Stage};
use caisson_sys::Fd;
use caisson_sys::file::{open, openat2};
use caisson_sys::process::limit;
use nix::sys::stat::{FileStat, SFlag, fstat, major, minor};
use nix::sys::uio::pread;
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::io::Write;

/// Bytes of names that are held at one time.
const NAMES_BYTES: usize = 64 << 20;
/// Bytes of a path in an archive, and so in one that we write (path.rs).
const LONGEST_PATH: usize = 4096;
/// Files that are held open since names of theirs are still to come; and descriptors that are left to all else, of which
/// most are the directories above a file.
const LINKED: u64 = 1 << 16;
const OTHERS: u64 = MOST_COMPONENTS as u64 + 128;
const RLIMIT_NOFILE: u32 = 7;

/// What of a tree is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The upper directory of an overlay, as a layer.
    Layer,
    /// All that is there, as it is.
    Whole,
}

/// How a tree is written.
#[derive(Clone, Copy, Debug)]
pub struct Packing {
    /// As what.
    pub form: Form,
    /// Whether overlayfs' marks are `user.overlay.*`, as in a user namespace.
    pub userxattr: bool,
    /// [`Owner::Caller`]: the true owner of a file stands beside it, as [`super::unpack`] has left it there.
    pub owner: Owner,
    /// What a reader of the archive will take.
    pub limits: Limits,
}

/// Writes the tree at `root` as a tar archive, from its root (`./`) on, names sorted. Sockets are left out. A file that
/// shrinks while it is read is filled with zeros, of one that grows the beginning is written. A file with several names is
/// held open until all were seen, as far as RLIMIT_NOFILE has room; beyond that its names are files of their own.
///
/// # Errors
/// [`Code::ImageLimit`] for more entries or bytes than `limits`, or names of more than 64 MiB at one time;
/// [`Code::Unsupported`] for a name or an attribute that an archive cannot say; [`Code::Archive`], with the errno, for what
/// cannot be read or written.
pub fn pack(root: &Fd, out: &mut impl Write, packing: &Packing) -> Result<()> {
    let root = openat2(root, c".", open::RDONLY | open::DIRECTORY, 0, 0).on(b"./")?;
    let mut packer = Packer {
        out,
        packing,
        path: Vec::new(),
        links: HashMap::new(),
        linked: limit(RLIMIT_NOFILE).map_or(0, |(soft, _)| soft.saturating_sub(OTHERS).min(LINKED)),
        names: 0,
        entries: 0,
        bytes: 0,
        room: vec![0; PIECE],
        attributes: attributes::Room::default(),
    };
    packer.tree(root)?;
    packer.write(&END)
}

/// A directory whose names are being written.
struct Level {
    directory: Fd,
    /// Names, each with its NUL, the last first.
    names: Vec<CString>,
    /// Bytes of them all.
    bytes: usize,
    /// Where its path ends.
    length: usize,
}

/// A file that has several names: the first one, and how many are still to come.
struct Linked {
    name: Vec<u8>,
    /// While it is open its inode's number is no other file's, even if all its names are removed.
    _held: Fd,
    left: nix::libc::nlink_t,
}

struct Packer<'a, W> {
    out: &'a mut W,
    packing: &'a Packing,
    /// Of the entry in hand, from the root on, without a slash at its front.
    path: Vec<u8>,
    links: HashMap<(u64, u64), Linked>,
    /// How many of them there may be.
    linked: u64,
    /// Bytes of names that are held.
    names: usize,
    entries: u64,
    bytes: u64,
    room: Vec<u8>,
    attributes: attributes::Room,
}

impl<W: Write> Packer<'_, W> {
    fn tree(&mut self, root: Fd) -> Result<()> {
        let stat = fstat(&root).on(b"./")?;
        let mut levels = vec![self.enter(root, &stat)?];
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.names.pop() else {
                let done = levels.pop();
                self.names -= done.map_or(0, |level| level.bytes);
                continue;
            };
            self.path.truncate(level.length);
            if level.length > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name.to_bytes());
            if self.path.len() >= LONGEST_PATH {
                return Err(self.refused("its path is longer than 4095 bytes"));
            }
            if let Some((directory, stat)) = self.name(&level.directory, &name)? {
                if levels.len() == MOST_COMPONENTS {
                    return Err(self.refused("its path has more than 256 components"));
                }
                levels.push(self.enter(directory, &stat)?);
            }
        }
        Ok(())
    }

    /// Writes a directory, and reads its names.
    fn enter(&mut self, directory: Fd, stat: &FileStat) -> Result<Level> {
        let mut entry = self.entry(stat, Kind::Directory);
        let is_opaque = self.dress(&directory, &mut entry)?;
        if entry.name.is_empty() {
            entry.name = b"./".to_vec();
        }
        self.put(&entry)?;
        // Of the root overlayfs says nothing: it is merged whatever it says.
        if is_opaque && !self.path.is_empty() {
            self.mark(&[&self.path[..], b"/.wh..wh..opq"].concat())?;
        }
        let mut level = Level { directory, names: Vec::new(), bytes: 0, length: self.path.len() };
        let again = openat2(&level.directory, c".", open::RDONLY | open::DIRECTORY, 0, 0).on(&self.path)?;
        let mut listed = nix::dir::Dir::from_fd(again.into()).on(&self.path)?;
        for listed in listed.iter() {
            let listed = listed.on(&self.path)?;
            let name = listed.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            // A name costs its bytes, and what holds it.
            let bytes = name.count_bytes() + size_of::<CString>() + 16;
            level.bytes += bytes;
            self.hold(bytes)?;
            level.names.push(name.to_owned());
        }
        level.names.sort_unstable_by(|one, other| other.cmp(one));
        Ok(level)
    }

    /// Writes what is at a name. A directory is the caller's to enter.
    fn name(&mut self, directory: &Fd, name: &CStr) -> Result<Option<(Fd, FileStat)>> {
        let found = find(directory, name).on(&self.path)?;
        let layer = self.packing.form == Form::Layer;
        if layer && name.to_bytes().starts_with(b".wh.") && !matches!(found, Found::Gone) {
            return Err(
                self.refused("its name begins with .wh., by which a layer says that something is gone")
            );
        }
        match found {
            Found::Gone => Ok(None),
            Found::Open(file, stat) if kind_of(&stat) == SFlag::S_IFDIR => Ok(Some((file, stat))),
            Found::Open(file, stat) => self.file(&file, &stat).map(|()| None),
            Found::Link(link, stat, target) => {
                let mut entry = self.entry(&stat, Kind::Symlink);
                entry.target = target;
                self.put_or_link(&link, &stat, entry).map(|_| None)
            }
            Found::Node(stat) => self.node(&stat, name).map(|()| None),
        }
    }

    fn node(&mut self, stat: &FileStat, name: &CStr) -> Result<()> {
        let kind = match kind_of(stat) {
            SFlag::S_IFIFO => Kind::Fifo,
            SFlag::S_IFBLK => Kind::Block,
            SFlag::S_IFCHR if stat.st_rdev == 0 && self.packing.form == Form::Layer => {
                let path = self.path[..self.path.len() - name.count_bytes()].to_vec();
                return self.mark(&[&path[..], b".wh.", name.to_bytes()].concat());
            }
            SFlag::S_IFCHR => Kind::Char,
            // A socket is nothing without who made it.
            _ => return Ok(()),
        };
        let mut entry = self.entry(stat, kind);
        if kind != Kind::Fifo {
            let (major, minor) = (major(stat.st_rdev), minor(stat.st_rdev));
            entry.device = (u32::try_from(major).unwrap_or(0), u32::try_from(minor).unwrap_or(0));
        }
        // One of several names is a node of its own: a link to what is no file is refused by readers.
        self.put(&entry)
    }

    fn file(&mut self, file: &Fd, stat: &FileStat) -> Result<()> {
        let mut entry = self.entry(stat, Kind::File);
        entry.size = u64::try_from(stat.st_size).unwrap_or(0);
        self.dress(file, &mut entry)?;
        entry.sparse = pieces(file, stat).map_err(|reason| self.refused(reason))?;
        let (size, sparse) = (entry.size, entry.sparse.clone());
        if self.put_or_link(file, stat, entry)? {
            return Ok(());
        }
        let whole = [(0, size)];
        let mut written = 0;
        for (offset, length) in sparse.as_deref().unwrap_or(&whole) {
            self.data(file, *offset, *length)?;
            written += length;
        }
        self.write(&[0; BLOCK][..padding(written)])
    }

    /// Writes a piece of a file; what is not there any more is zeros.
    fn data(&mut self, file: &Fd, mut offset: u64, mut left: u64) -> Result<()> {
        let mut room = std::mem::take(&mut self.room);
        while left > 0 {
            let most = room.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let at = i64::try_from(offset).unwrap_or(i64::MAX);
            let read = match pread(file, &mut room[..most], at) {
                Err(nix::Error::EINTR) => continue,
                answer => answer.on(&self.path)?,
            };
            let taken = if read == 0 {
                room[..most].fill(0);
                most
            } else {
                read
            };
            self.write(&room[..taken])?;
            offset += taken as u64;
            left -= taken as u64;
        }
        self.room = room;
        Ok(())
    }

    /// An entry that has what a stat tells.
    fn entry(&self, stat: &FileStat, kind: Kind) -> Entry {
        Entry {
            name: self.path.clone(),
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: 0,
            mtime: (stat.st_mtime, stat.st_mtime_nsec as u32),
            target: Vec::new(),
            device: (0, 0),
            xattrs: Vec::new(),
            sparse: None,
        }
    }

    /// Gives an entry its attributes; answers whether overlayfs shows nothing of what is below it.
    fn dress(&mut self, file: &Fd, entry: &mut Entry) -> Result<bool> {
        let Packing { form, userxattr, owner, .. } = *self.packing;
        let opaque = opaque_attribute(userxattr).to_bytes();
        let space = opaque.strip_suffix(b"opaque").unwrap_or(opaque);
        let mut is_opaque = false;
        for (name, value) in self.attributes.read(file).on(&self.path)? {
            if name == OWNER.to_bytes() && owner == Owner::Caller {
                if let Some(ids) = owner_of(&value) {
                    (entry.uid, entry.gid) = ids;
                }
            } else if let Some(mark) = name.strip_prefix(space).filter(|_| form == Form::Layer) {
                match mark {
                    b"opaque" => is_opaque = value == b"y",
                    // Not made: the overlays are mounted without. What they mean no layer can say.
                    b"redirect" | b"metacopy" => {
                        return Err(self.refused("overlayfs left a redirect there, which no layer can say"));
                    }
                    _ => {}
                }
            } else if is_allowed(&name, &value) {
                entry.xattrs.push((name, value));
            }
        }
        entry.xattrs.sort_unstable();
        Ok(is_opaque)
    }

    /// Writes an entry, or that it is one more name of what was written already; whether it was that.
    fn put_or_link(&mut self, file: &Fd, stat: &FileStat, mut entry: Entry) -> Result<bool> {
        let mut is_known = false;
        if stat.st_nlink > 1 {
            let key = (stat.st_dev, stat.st_ino);
            let has_room = (self.links.len() as u64) < self.linked;
            match self.links.get_mut(&key) {
                Some(linked) => {
                    linked.left = linked.left.saturating_sub(1);
                    entry.target.clone_from(&linked.name);
                    if linked.left == 0 {
                        self.names -= cost(&linked.name);
                        self.links.remove(&key);
                    }
                    (entry.kind, entry.size, entry.sparse) = (Kind::Link, 0, None);
                    is_known = true;
                }
                // Without a descriptor nothing says that what has this number later is this file.
                None => {
                    if let Some(held) = has_room.then(|| file.duplicate(3).ok()).flatten() {
                        self.hold(cost(&entry.name))?;
                        let name = entry.name.clone();
                        self.links.insert(key, Linked { name, _held: held, left: stat.st_nlink - 1 });
                    }
                }
            }
        }
        self.put(&entry)?;
        Ok(is_known)
    }

    /// An empty file that means something by its name alone.
    fn mark(&mut self, name: &[u8]) -> Result<()> {
        self.put(&Entry {
            name: name.to_vec(),
            kind: Kind::File,
            mode: 0o600,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: (0, 0),
            target: Vec::new(),
            device: (0, 0),
            xattrs: Vec::new(),
            sparse: None,
        })
    }

    fn put(&mut self, entry: &Entry) -> Result<()> {
        self.entries += 1;
        let Limits { entries, inflated_bytes, .. } = self.packing.limits;
        if self.entries > entries {
            return Err(too_large("entries", format!("more than {entries} entries")));
        }
        if entry.size > inflated_bytes {
            let message = format!("{} has more than {inflated_bytes} bytes", show(&entry.name));
            return Err(too_large("inflated_bytes", message));
        }
        let headers = headers(entry).map_err(|Unsayable(reason)| self.refused(reason))?;
        self.write(&headers)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes += bytes.len() as u64;
        let most = self.packing.limits.inflated_bytes;
        if self.bytes > most {
            return Err(too_large("inflated_bytes", format!("more than {most} bytes")));
        }
        self.out.write_all(bytes).on(b"the archive")
    }

    fn hold(&mut self, bytes: usize) -> Result<()> {
        self.names += bytes;
        if self.names <= NAMES_BYTES {
            return Ok(());
        }
        let message = format!("more than {NAMES_BYTES} bytes of names in its directories and links");
        Err(too_large(show(&self.path), message))
    }

    fn refused(&self, reason: &str) -> Error {
        Error::new(Code::Unsupported, Stage::PACK, show(&self.path), reason)
    }
}

fn cost(name: &[u8]) -> usize {
    name.len() + size_of::<Linked>() + 64
}

/// `UID:GID`, as unpacking writes it (attributes.rs).
fn owner_of(value: &[u8]) -> Option<(u32, u32)> {
    let (uid, gid) = std::str::from_utf8(value).ok()?.split_once(':')?;
    let id = |text: &str| text.parse().ok().filter(|id| *id != u32::MAX);
    Some((id(uid)?, id(gid)?))
}

/// The errno of a call that was made for an entry.
trait On<T> {
    fn on(self, entry: &[u8]) -> Result<T>;
}

impl<T, E: Failure + std::fmt::Display> On<T> for Result<T, E> {
    fn on(self, entry: &[u8]) -> Result<T> {
        self.map_err(|failure| {
            let error = Err::<(), E>(failure).at(Stage::PACK, show(entry)).err();
            error.map_or_else(
                || Error::new(Code::Internal, Stage::PACK, "", ""),
                |error| error.with_code(Code::Archive),
            )
        })
    }
}
