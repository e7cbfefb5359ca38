//! Archives made here, unpacked into directories of their own, with a bait beside that nobody may touch.

mod build;
mod compare;
mod differential;
mod hostile;
mod layer;
mod mutated;
#[cfg(feature = "off")]
mod off;
mod pack;
mod readers;
mod remove;
mod zstd;

use super::{Options, Owner, Report, remove_tree, unpack};
use crate::{Code, Result};
use caisson_sys::file::{open, openat2};
use caisson_sys::{Cwd, Fd, xattr};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Whether the tests run as root: only then can owners, devices and `trusted` attributes be had.
pub(super) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Layers that are there.
#[derive(Debug)]
struct Known(Vec<Fd>);

impl super::Lowers for Known {
    fn roots(&self) -> crate::Result<&[Fd]> {
        Ok(&self.0)
    }
}

/// The options of a caller with these rights.
pub(super) fn options() -> Options<'static> {
    let root = is_root();
    let owner = if root { Owner::Archived } else { Owner::Caller };
    Options { owner, userxattr: !root, devices: root, ..Options::default() }
}

pub(super) fn open_directory(path: &Path) -> Fd {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    openat2(Cwd, &path, open::PATH | open::DIRECTORY, 0, 0).unwrap()
}

/// A directory of a test's own: `bait/` with known content, `store/layer/` to unpack into, removed at the end.
pub(super) struct Scratch {
    pub path: PathBuf,
    before: BTreeMap<PathBuf, String>,
}

impl Scratch {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let serial = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("caisson-archive-{}-{serial}", std::process::id()));
        let bait = path.join("bait");
        fs::create_dir_all(bait.join("d")).unwrap();
        fs::create_dir_all(path.join("store/layer")).unwrap();
        for name in ["f", "victim", "passwd", "d/x"] {
            fs::write(bait.join(name), "bait").unwrap();
            fs::set_permissions(bait.join(name), fs::Permissions::from_mode(0o640)).unwrap();
            if is_root() {
                std::os::unix::fs::chown(bait.join(name), Some(1234), Some(1234)).unwrap();
            }
        }
        symlink("f", bait.join("link")).unwrap();
        let before = snapshot(&bait);
        Self { path, before }
    }

    pub fn layer(&self) -> PathBuf {
        self.path.join("store/layer")
    }

    /// A further empty directory beside the layer.
    pub fn directory(&self, name: &str) -> PathBuf {
        let path = self.path.join("store").join(name);
        fs::create_dir(&path).unwrap();
        path
    }

    pub fn unpack(&self, archive: &[u8]) -> Result<Report> {
        self.unpack_with(archive, &options())
    }

    pub fn unpack_with(&self, archive: &[u8], options: &Options<'_>) -> Result<Report> {
        unpack(archive, &open_directory(&self.layer()), options)
    }

    /// Content, owner, mode, times and listing of the bait are as they were.
    pub fn bait_is_safe(&self) -> bool {
        snapshot(&self.path.join("bait")) == self.before
    }

    /// The names below the layer's root.
    pub fn names(&self) -> Vec<String> {
        let all = snapshot(&self.layer());
        all.into_keys().map(|path| path.display().to_string()).filter(|name| !name.is_empty()).collect()
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.layer().join(name)).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let name = CString::new(self.path.file_name().unwrap().as_bytes()).unwrap();
        remove_tree(&open_directory(self.path.parent().unwrap()), &name).unwrap();
    }
}

/// All that can be seen of a tree, by relative path. The root is the empty path.
pub(super) fn snapshot(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut seen = BTreeMap::new();
    let mut inodes: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(path) = waiting.pop() {
        let whole = root.join(&path);
        let stat = fs::symlink_metadata(&whole).unwrap();
        let mut line = format!("{:o} {}:{}", stat.mode(), stat.uid(), stat.gid());
        if stat.is_dir() {
            let mut below: Vec<_> =
                fs::read_dir(&whole).unwrap().map(|e| path.join(e.unwrap().file_name())).collect();
            below.sort();
            waiting.extend(below.into_iter().rev());
        } else {
            let first = inodes.entry(stat.ino()).or_insert_with(|| path.clone());
            line += &format!(" rdev {} links {} first {}", stat.rdev(), stat.nlink(), first.display());
        }
        line += &format!(" mtime {}.{:09}", stat.mtime(), stat.mtime_nsec());
        if stat.is_symlink() {
            line += &format!(" -> {}", fs::read_link(&whole).unwrap().display());
        }
        if stat.is_file() {
            let bytes = fs::read(&whole).unwrap();
            line += &format!(" {} bytes {}", bytes.len(), sha256(&bytes));
        }
        if stat.is_file() || stat.is_dir() {
            line += &attributes(&whole);
        }
        seen.insert(path, line);
    }
    seen
}

fn attributes(path: &Path) -> String {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let file = openat2(Cwd, &path, open::RDONLY | open::NOFOLLOW, 0, 0).unwrap();
    let mut room = [0; 4096];
    let Ok(names) = xattr::list(&file, &mut room) else { return String::new() };
    let mut lines: Vec<String> = names
        .split_inclusive(|byte| *byte == 0)
        .map(|name| {
            let name = std::ffi::CStr::from_bytes_with_nul(name).unwrap();
            format!(
                " {}={:?}",
                name.to_str().unwrap(),
                xattr::get(&file, name, &mut [0; 4096]).map(|v| v.to_vec())
            )
        })
        .collect();
    lines.sort();
    lines.concat()
}

/// The digest of bytes.
pub(super) fn sha256(bytes: &[u8]) -> super::Digest {
    use sha2::Digest as _;
    super::Digest::from(<[u8; 32]>::from(sha2::Sha256::digest(bytes)))
}

/// Refused, with this code and a message that says so; and the bait untouched.
#[track_caller]
pub(super) fn refused(scratch: &Scratch, archive: &[u8], code: Code, part: &str) {
    let error = scratch.unpack(archive).expect_err(part);
    assert_eq!(error.code, code, "{error}");
    assert!(error.to_string().contains(part), "{error:?} lacks {part:?}");
    assert!(scratch.bait_is_safe());
}
