//! Removing a tree that somebody else filled: layers, and the upper layers of containers.

use super::lower::step;
use super::{On, refuse};
use crate::Result;
use caisson_sys::{Errno, Fd};
use nix::dir::{Dir, Type};
use nix::fcntl::{AtFlags, renameat};
use nix::sys::stat::{FchmodatFlags, Mode, fchmod, fchmodat, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;

/// Directories that are open at once. A container can make a tree deeper than any number of descriptors, so what lies
/// deeper is moved up first. Never `..`: what is being removed may be moved by a program that still runs.
const OPEN: usize = 32;

/// Names that are read from a directory at once: one with millions of entries is emptied in parts.
const BATCH: usize = 4096;

/// Removes `name` below `parent` and, if it is a directory, all that is in it. Follows no link, crosses no mount,
/// builds no path, and holds a bounded number of descriptors however deep the tree is. Directories without permission
/// bits are no obstacle to their owner. What is gone already is no error.
///
/// # Errors
/// [`crate::Code::Archive`] with the errno of what could not be removed, EBUSY or EXDEV for a mount, EPERM for a file
/// that was marked immutable.
pub fn remove_tree(parent: &Fd, name: &CStr) -> Result<()> {
    let subject = name.to_bytes();
    if matches!(subject, b"" | b"." | b"..") || subject.contains(&b'/') {
        return Err(refuse(subject, "not the name of a tree to remove"));
    }
    match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(nix::Error::ENOENT) => return Ok(()),
        // POSIX lets a file system answer EPERM for a directory.
        Err(nix::Error::EISDIR | nix::Error::EPERM) => {}
        Err(errno) => return Err(errno).on(subject),
    }
    let Some(top) = enter(parent, name).on(subject)? else { return Ok(()) };
    let mut moved = 0u64;
    // Deep parts come back to the top as new entries, so the top is emptied until it can be removed.
    loop {
        empty(&top, &mut moved).on(subject)?;
        match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(nix::Error::ENOENT) => return Ok(()),
            Err(nix::Error::ENOTEMPTY | nix::Error::EEXIST) if moved > 0 => moved = 0,
            Err(errno) => return Err(errno).on(subject),
        }
    }
}

/// A directory that is being emptied, and the name it has in the one before.
struct Level {
    name: CString,
    entries: Batch,
    /// Whether there are more than these.
    partial: bool,
    directory: Fd,
}

/// Names, and whether each is known to be a directory.
type Batch = std::vec::IntoIter<(CString, bool)>;

impl Level {
    fn new(name: CString, directory: Fd) -> Result<Self, Errno> {
        let (entries, partial) = list(&directory)?;
        Ok(Self { name, entries, partial, directory })
    }
}

/// Empties `top`, but moves what lies deeper than [`OPEN`] to `top` itself and counts it in `moved`.
fn empty(top: &Fd, moved: &mut u64) -> Result<(), Errno> {
    let mut serial = 0u64;
    let mut levels = vec![Level::new(CString::default(), top.duplicate(0)?)?];
    loop {
        let full = levels.len() == OPEN;
        let Some(level) = levels.last_mut() else { return Ok(()) };
        let next = level.entries.next();
        let Some((name, is_directory)) = next else {
            if level.partial {
                (level.entries, level.partial) = list(&level.directory)?;
                continue;
            }
            let Some(done) = levels.pop() else { return Ok(()) };
            if let Some(above) = levels.last() {
                match unlinkat(&above.directory, done.name.as_c_str(), UnlinkatFlags::RemoveDir) {
                    Ok(()) | Err(nix::Error::ENOENT) => {}
                    Err(errno) => return Err(sys(errno)),
                }
            }
            continue;
        };
        let removed = if is_directory {
            Err(nix::Error::EISDIR)
        } else {
            unlinkat(&level.directory, name.as_c_str(), UnlinkatFlags::NoRemoveDir)
        };
        match removed {
            Ok(()) | Err(nix::Error::ENOENT) => continue,
            Err(nix::Error::EISDIR) => {}
            Err(errno) => return Err(sys(errno)),
        }
        if full {
            serial = lift(&level.directory, &name, top, serial)?;
            *moved += 1;
            continue;
        }
        let Some(directory) = enter(&level.directory, &name)? else { continue };
        levels.push(Level::new(name, directory)?);
    }
}

/// Moves a directory to `top` under a name that is free there, found from `serial` on; answers the next to try.
fn lift(from: &Fd, name: &CStr, top: &Fd, mut serial: u64) -> Result<u64, Errno> {
    // Moving a directory changes its `..`, for which it must be writable.
    loop {
        let free = CString::new(format!(".caisson-remove-{serial}")).map_err(|_| Errno::EINVAL)?;
        serial += 1;
        match fstatat(top, free.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(_) => continue,
            Err(nix::Error::ENOENT) => {}
            Err(errno) => return Err(sys(errno)),
        }
        return match renameat(from, name, top, free.as_c_str()) {
            Ok(()) | Err(nix::Error::ENOENT) => Ok(serial),
            Err(nix::Error::EACCES) => {
                open_up(from, name)?;
                renameat(from, name, top, free.as_c_str()).map_err(sys).map(|()| serial)
            }
            Err(errno) => Err(sys(errno)),
        };
    }
}

/// Opens a directory to empty it; nothing if it is gone.
fn enter(parent: &Fd, name: &CStr) -> Result<Option<Fd>, Errno> {
    let opened = match step(parent, name) {
        Err(Errno::EACCES) => {
            open_up(parent, name)?;
            step(parent, name)
        }
        answer => answer,
    };
    match opened {
        Ok(directory) => {
            let mode = Mode::from_bits_truncate(fstat(&directory).map_err(sys)?.st_mode);
            if !mode.contains(Mode::S_IRWXU) {
                // Only an owner without capabilities needs it; who may not do it finds out when removing.
                let _ = fchmod(&directory, Mode::S_IRWXU);
            }
            Ok(Some(directory))
        }
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Gives the owner back the right to read and to write a directory.
fn open_up(parent: &Fd, name: &CStr) -> Result<(), Errno> {
    fchmodat(parent, name, Mode::S_IRWXU, FchmodatFlags::NoFollowSymlink).map_err(sys)
}

/// The first entries of a directory, and whether there are more.
fn list(directory: &Fd) -> Result<(Batch, bool), Errno> {
    let copy: OwnedFd = step(directory, c".")?.into();
    let mut entries = Vec::new();
    for entry in Dir::from_fd(copy).map_err(sys)?.iter() {
        let entry = entry.map_err(sys)?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if entries.len() == BATCH {
            return Ok((entries.into_iter(), true));
        }
        entries.push((name.to_owned(), entry.file_type() == Some(Type::Directory)));
    }
    Ok((entries.into_iter(), false))
}

fn sys(errno: nix::Error) -> Errno {
    Errno::from_raw(errno as i32)
}
