//! Two trees, entry by entry: what was unpacked just now, and what should be the same. Both are walked by descriptors,
//! without following links: the second is whatever a disk, or somebody's hand, has made of it.

use super::lower::{is_whiteout, kind_of, look, step};
use super::{On, show};
use crate::{Code, Error, Result, Stage};
use caisson_sys::file::{open, openat2, resolve};
use caisson_sys::{Errno, Fd, xattr};
use nix::dir::Dir;
use nix::fcntl::readlinkat;
use nix::sys::stat::{FileStat, SFlag, fstat};
use std::collections::{BTreeSet, HashMap};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

/// Bytes that are compared at once.
const PIECE: usize = 256 * 1024;
/// The kernel's bound of an attribute's value, and of all names of one file (xattr(7)).
const ATTRIBUTES: usize = 64 * 1024;

/// Holds `found` against `expected`: names, kinds, modes, owners, sizes, device numbers, times of change of what is no
/// directory, extended attributes, which names are one file, targets of links, and bytes.
///
/// # Errors
/// [`Code::Digest`] of [`Stage::VERIFY`] for the first difference, with the path as subject; the errno of what could not
/// be read.
pub fn compare(expected: &Fd, found: &Fd) -> Result<()> {
    let open = |directory: &Fd| step(directory, c".").on(b"./");
    let (expected, found) = (open(expected)?, open(found)?);
    let mut compared = Compared {
        linked: HashMap::new(),
        pieces: [vec![0; PIECE], vec![0; PIECE]],
        names: vec![0; ATTRIBUTES],
        value: vec![0; ATTRIBUTES],
    };
    let (one, other) = (fstat(&expected).on(b"./")?, fstat(&found).on(b"./")?);
    compared.stats(&one, &other, b"./")?;
    compared.attributes(&expected, &found, b"./")?;
    let mut levels = vec![Level::new(Vec::new(), expected, found)?];
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.names.next() else {
            levels.pop();
            continue;
        };
        if let Some(below) = compared.entry(level, &name)? {
            levels.push(below);
        }
    }
    Ok(())
}

/// A directory of both.
struct Level {
    path: Vec<u8>,
    expected: Fd,
    found: Fd,
    /// What is in either.
    names: std::collections::btree_set::IntoIter<CString>,
}

impl Level {
    fn new(path: Vec<u8>, expected: Fd, found: Fd) -> Result<Self> {
        let mut names = BTreeSet::new();
        for directory in [&expected, &found] {
            let copy: OwnedFd = step(directory, c".").on(&path)?.into();
            for entry in Dir::from_fd(copy).on(&path)?.iter() {
                let name = entry.on(&path)?.file_name().to_owned();
                if !matches!(name.to_bytes(), b"." | b"..") {
                    names.insert(name);
                }
            }
        }
        Ok(Self { path, expected, found, names: names.into_iter() })
    }
}

struct Compared {
    /// Files with several names, by their inode: which one of the other tree they are.
    linked: HashMap<u64, u64>,
    /// Room for bytes of a file of either tree, and for names and value of attributes: had once.
    pieces: [Vec<u8>; 2],
    names: Vec<u8>,
    value: Vec<u8>,
}

fn differs(path: &[u8], how: impl Into<String>) -> Error {
    Error::new(Code::Digest, Stage::VERIFY, show(path), how)
}

fn check<T: PartialEq>(
    path: &[u8],
    what: &str,
    (found, expected): (T, T),
    say: impl Fn(T) -> String,
) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(differs(path, format!("{what} is {}, not {}", say(found), say(expected))))
}

fn kind(stat: &FileStat) -> &'static str {
    match kind_of(stat) {
        SFlag::S_IFREG => "file",
        SFlag::S_IFDIR => "directory",
        SFlag::S_IFLNK => "symbolic link",
        SFlag::S_IFIFO => "FIFO",
        SFlag::S_IFSOCK => "socket",
        _ if is_whiteout(stat) => "whiteout",
        SFlag::S_IFCHR => "character device",
        _ => "block device",
    }
}

impl Compared {
    /// Compares one name; answers what to go on with, for a directory.
    fn entry(&mut self, level: &Level, name: &CStr) -> Result<Option<Level>> {
        let mut path = level.path.clone();
        path.extend_from_slice(name.to_bytes());
        let seen = (look(&level.expected, name).on(&path)?, look(&level.found, name).on(&path)?);
        let (one, other) = match seen {
            (Some(one), Some(other)) => (one, other),
            (Some(_), None) => return Err(differs(&path, "is missing")),
            _ => return Err(differs(&path, "is not in the layer")),
        };
        self.stats(&one, &other, &path)?;
        match kind_of(&one) {
            SFlag::S_IFDIR => {
                let (expected, found) =
                    (step(&level.expected, name).on(&path)?, step(&level.found, name).on(&path)?);
                self.attributes(&expected, &found, &path)?;
                path.push(b'/');
                Level::new(path, expected, found).map(Some)
            }
            SFlag::S_IFREG => {
                let (expected, found) =
                    (file(&level.expected, name).on(&path)?, file(&level.found, name).on(&path)?);
                self.attributes(&expected, &found, &path)?;
                self.content(expected, found, &path)?;
                Ok(None)
            }
            SFlag::S_IFLNK => {
                let target = |at: &Fd| readlinkat(at, name).on(&path);
                let pair = (target(&level.found)?, target(&level.expected)?);
                let say = |target: std::ffi::OsString| show(target.as_encoded_bytes());
                check(&path, "its target", pair, say)?;
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    fn stats(&mut self, one: &FileStat, other: &FileStat, path: &[u8]) -> Result<()> {
        check(path, "it", (kind(other), kind(one)), str::to_owned)?;
        let mode = |stat: &FileStat| stat.st_mode & 0o7777;
        check(path, "its mode", (mode(other), mode(one)), |mode| format!("{mode:04o}"))?;
        let owner = |stat: &FileStat| (stat.st_uid, stat.st_gid);
        check(path, "its owner", (owner(other), owner(one)), |(uid, gid)| format!("{uid}:{gid}"))?;
        if kind_of(one) == SFlag::S_IFDIR {
            return Ok(());
        }
        check(path, "its size", (other.st_size, one.st_size), |size| size.to_string())?;
        check(path, "its number of links", (other.st_nlink, one.st_nlink), |links| links.to_string())?;
        check(path, "its device number", (other.st_rdev, one.st_rdev), |device| device.to_string())?;
        // No entry gives a whiteout a time.
        if !is_whiteout(one) {
            let time = |stat: &FileStat| (stat.st_mtime, stat.st_mtime_nsec);
            let say = |(seconds, nanoseconds)| format!("{seconds}.{nanoseconds:09}");
            check(path, "its time", (time(other), time(one)), say)?;
        }
        if one.st_nlink > 1 && *self.linked.entry(one.st_ino).or_insert(other.st_ino) != other.st_ino {
            return Err(differs(path, "is a link to another file"));
        }
        Ok(())
    }

    fn attributes(&mut self, expected: &Fd, found: &Fd, path: &[u8]) -> Result<()> {
        let (one, other) = (self.attributes_of(expected, path)?, self.attributes_of(found, path)?);
        let odd = one.iter().find(|attribute| !other.contains(attribute));
        match odd.or_else(|| other.iter().find(|attribute| !one.contains(attribute))) {
            None => Ok(()),
            Some((name, _)) => Err(differs(path, format!("its attribute {} differs", show(name)))),
        }
    }

    /// All attributes but the labels that a host gives its files by rules of its own.
    fn attributes_of(&mut self, file: &Fd, path: &[u8]) -> Result<BTreeSet<(Vec<u8>, Vec<u8>)>> {
        let names = match xattr::list(file, &mut self.names) {
            Ok(names) => names,
            Err(Errno::EOPNOTSUPP) => return Ok(BTreeSet::new()),
            Err(errno) => return Err(errno).on(path),
        };
        let mut all = BTreeSet::new();
        for name in
            names.split_inclusive(|byte| *byte == 0).filter_map(|name| CStr::from_bytes_with_nul(name).ok())
        {
            let bytes = name.to_bytes();
            if bytes.starts_with(b"security.") && bytes != b"security.capability" {
                continue;
            }
            if let Ok(value) = xattr::get(file, name, &mut self.value) {
                all.insert((bytes.to_vec(), value.to_vec()));
            }
        }
        Ok(all)
    }

    /// Compares the bytes of files that have the same size.
    fn content(&mut self, expected: Fd, found: Fd, path: &[u8]) -> Result<()> {
        let [mut expected, mut found] = [expected, found].map(|file| File::from(OwnedFd::from(file)));
        let [one, other] = &mut self.pieces;
        loop {
            let count = expected.read(one).on(path)?;
            if count == 0 {
                return Ok(());
            }
            match found.read_exact(&mut other[..count]) {
                Ok(()) if one[..count] == other[..count] => {}
                Ok(()) => return Err(differs(path, "its content differs")),
                // A disk that cannot read it has damaged it.
                Err(error) => return Err(differs(path, format!("its content cannot be read: {error}"))),
            }
        }
    }
}

fn file(parent: &Fd, name: &CStr) -> Result<Fd, Errno> {
    let flags = open::RDONLY | open::NOFOLLOW | open::NONBLOCK;
    openat2(parent, name, flags, resolve::BENEATH | resolve::NO_SYMLINKS | resolve::NO_XDEV, 0)
}
