//! The only ways to a place below a root that somebody else filled. A place is a descriptor; no path is used twice.

use crate::off::off;
use caisson_sys::file::{open as o, openat2, resolve};
use caisson_sys::{Descriptor, Errno, Fd, fd};
use nix::errno::Errno as Nix;
use nix::sys::stat::{Mode, SFlag, mkdirat, mknodat};
use std::collections::VecDeque;
use std::ffi::{CStr, CString, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// What a place must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory; made 0755 if absent.
    Directory,
    /// Anything but a directory; an empty file 0644 if absent.
    File,
}

/// A place that must exist, links followed but never out of `root`, nor through the links of a /proc.
///
/// # Errors
/// As openat2(2): ENOENT, ELOOP.
pub fn find(root: &Fd, path: &CStr, follow: bool) -> Result<Fd, Errno> {
    let links = if follow { resolve::NO_MAGICLINKS } else { resolve::NO_SYMLINKS };
    if off("in_root") {
        let path = relative(path)?;
        return openat2(root, &path, o::PATH, links, 0);
    }
    openat2(root, path, o::PATH, resolve::IN_ROOT | links, 0)
}

/// A place of this kind, made with its parents if it is absent.
///
/// # Errors
/// ENOTDIR and EISDIR for what is there but is not of the kind; ELOOP for a link where none is followed.
pub fn find_or_make(root: &Fd, path: &CStr, kind: Kind, follow: bool) -> Result<Fd, Errno> {
    match find(root, path, follow) {
        Err(Errno::ENOENT) => make(root, path, kind, follow),
        answer => answer,
    }
}

/// Walks component by component, each opened without following: what is a link is read and walked here, so that
/// absolute links and `..` stay below `root` and a link to what is absent yet leads to where it will be (CVE-2024-45310).
fn make(root: &Fd, path: &CStr, kind: Kind, follow: bool) -> Result<Fd, Errno> {
    if off("in_root") {
        return make_by_path(root, path, kind, follow);
    }
    let mut ahead: VecDeque<OsString> = components(path.to_bytes());
    let mut way: Vec<Fd> = Vec::new();
    let mut links = 0;
    while let Some(name) = ahead.pop_front() {
        if name == ".." {
            way.pop();
            continue;
        }
        let here = way.last().unwrap_or(root);
        let name_c = CString::new(name.as_bytes()).map_err(|_| Errno::EINVAL)?;
        let open = || openat2(here, &name_c, o::PATH | o::NOFOLLOW, resolve::BENEATH, 0);
        let entry = match open() {
            Err(Errno::ENOENT) => {
                let made = if ahead.is_empty() && kind == Kind::File {
                    mknodat(here, name_c.as_c_str(), SFlag::S_IFREG, Mode::from_bits_truncate(0o644), 0)
                } else {
                    mkdirat(here, name_c.as_c_str(), Mode::from_bits_truncate(0o755))
                };
                match made {
                    Ok(()) | Err(Nix::EEXIST) => open()?,
                    Err(errno) => return Err(Errno::from_raw(errno as i32)),
                }
            }
            answer => answer?,
        };
        if is_link(&entry)? {
            links += 1;
            if !follow || links > 40 {
                return Err(Errno::ELOOP);
            }
            let target = nix::fcntl::readlinkat(&entry, "").map_err(|errno| Errno::from_raw(errno as i32))?;
            if target.as_bytes().starts_with(b"/") {
                way.clear();
            }
            for part in components(target.as_bytes()).into_iter().rev() {
                ahead.push_front(part);
            }
            continue;
        }
        way.push(entry);
    }
    match way.pop() {
        Some(place) => Ok(place),
        None => fd::duplicate(root, 3),
    }
}

/// With `in_root` off: the path as it looks from outside, and a walk that follows whatever stands there.
fn relative(path: &CStr) -> Result<CString, Errno> {
    let bytes = path.to_bytes();
    let start = bytes.iter().position(|byte| *byte != b'/').unwrap_or(bytes.len());
    CString::new(bytes.get(start..).filter(|rest| !rest.is_empty()).unwrap_or(b"."))
        .map_err(|_| Errno::EINVAL)
}

/// With `in_root` off: mkdir -p of a path string.
fn make_by_path(root: &Fd, path: &CStr, kind: Kind, follow: bool) -> Result<Fd, Errno> {
    let raw = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(5));
    let whole = std::path::PathBuf::from(format!(
        "/proc/self/fd/{}/{}",
        root.raw(),
        relative(path)?.to_string_lossy()
    ));
    match kind {
        Kind::Directory => std::fs::create_dir_all(&whole).map_err(raw)?,
        Kind::File => {
            std::fs::create_dir_all(whole.parent().ok_or(Errno::EINVAL)?).map_err(raw)?;
            std::fs::OpenOptions::new().append(true).create(true).open(&whole).map_err(raw)?;
        }
    }
    find(root, path, follow)
}

fn components(path: &[u8]) -> VecDeque<OsString> {
    let parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    parts.map(|part| OsString::from_vec(part.to_vec())).collect()
}

fn file_kind(place: &Fd) -> Result<SFlag, Errno> {
    let stat = nix::sys::stat::fstat(place).map_err(|errno| Errno::from_raw(errno as i32))?;
    Ok(SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()))
}

fn is_link(place: &Fd) -> Result<bool, Errno> {
    Ok(file_kind(place)? == SFlag::S_IFLNK)
}

/// Whether a place is a directory.
///
/// # Errors
/// As fstat(2).
pub fn is_directory(place: &Fd) -> Result<bool, Errno> {
    Ok(file_kind(place)? == SFlag::S_IFDIR)
}
