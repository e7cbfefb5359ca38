//! Blobs on their way into the content store, which is an OCI image layout: `images/blobs/sha256/HEX`. A blob has that
//! place only once its digest was found right and its bytes are on the disk; until then it grows in `ingest/HEX`.
//!
//! Who fills that file holds an flock on it, so a second process that wants the same blob waits and finds it there. What
//! a cut line or a crash leaves stays: the next one begins behind it. Whether those bytes are the right ones only the
//! digest tells, at the end; a file that was found wrong is removed.

use crate::archive::Digest;
use crate::error::{At, Error, Result, Stage};
use crate::journal::private_directory;
use caisson_sys::file::{open, openat2, resolve};
use caisson_sys::{Cwd, Errno, Fd};
use nix::fcntl::{AtFlags, Flock, FlockArg, renameat};
use nix::sys::stat::{fstat, fstatat};
use nix::unistd::{UnlinkatFlags, fsync, ftruncate, unlinkat};
use std::ffi::CString;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Blobs that are complete, below the data root.
const BLOBS: &str = "images/blobs/sha256";
/// Blobs that are growing.
const INGEST: &str = "ingest";
/// How long the beginning of a blob is kept for who might go on with it.
const EXPIRY: Duration = Duration::from_secs(7 * 24 * 3600);

/// Where blobs are and grow, below one data root.
#[derive(Debug)]
pub(crate) struct Ingest {
    blobs: Fd,
    growing: Fd,
}

/// A blob that somebody wants.
#[derive(Debug)]
pub(crate) enum Blob {
    /// It is there.
    Complete(OwnedFd),
    /// It grows, by this process alone.
    Growing(Growing),
}

/// A blob that grows.
#[derive(Debug)]
pub(crate) struct Growing {
    file: Flock<OwnedFd>,
    name: CString,
    /// How many bytes are there from before.
    pub offset: u64,
    size: u64,
}

fn name(digest: &Digest) -> Result<CString> {
    let text = digest.to_string();
    let hex = text.rsplit(':').next().unwrap_or_default();
    CString::new(hex).map_err(|_| Error::invalid("digest", "holds a NUL byte"))
}

fn directory(path: &Path) -> Result<Fd> {
    let c_path = crate::journal::c_path(path)?;
    openat2(Cwd, &c_path, open::RDONLY | open::DIRECTORY | open::NOFOLLOW, 0, 0)
        .at(Stage::UNPACK, path.to_string_lossy())
}

impl Ingest {
    /// Opens what is below `data_root`; directories are made.
    pub fn open(data_root: &Path) -> Result<Self> {
        for part in ["images", "images/blobs", BLOBS, INGEST] {
            private_directory(&data_root.join(part))?;
        }
        Ok(Self { blobs: directory(&data_root.join(BLOBS))?, growing: directory(&data_root.join(INGEST))? })
    }

    /// The blob, or the right to let it grow. It may wait for another process that has it.
    pub fn take(&self, digest: &Digest, size: u64) -> Result<Blob> {
        let name = name(digest)?;
        loop {
            if let Some(file) = self.complete(&name)? {
                return Ok(Blob::Complete(file));
            }
            let flags = open::RDWR | open::CREAT | open::NOFOLLOW;
            let file = openat2(&self.growing, &name, flags, resolve::BENEATH | resolve::NO_SYMLINKS, 0o600)
                .at(Stage::UNPACK, INGEST)?;
            let Some(file) = crate::layers::flock(file, FlockArg::LockExclusive)? else { continue };
            let known = fstat(&*file).at(Stage::UNPACK, INGEST)?;
            let there = fstatat(&self.growing, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW);
            if !there.is_ok_and(|there| (there.st_dev, there.st_ino) == (known.st_dev, known.st_ino)) {
                // Completed, or found wrong, while we waited.
                continue;
            }
            let mut offset = u64::try_from(known.st_size).unwrap_or(0);
            if offset > size {
                ftruncate(&*file, 0).at(Stage::UNPACK, INGEST)?;
                offset = 0;
            }
            return Ok(Blob::Growing(Growing { file, name, offset, size }));
        }
    }

    fn complete(&self, name: &CString) -> Result<Option<OwnedFd>> {
        let flags = open::RDONLY | open::NOFOLLOW | open::NONBLOCK;
        match openat2(&self.blobs, name, flags, resolve::BENEATH | resolve::NO_SYMLINKS, 0) {
            Ok(file) => Ok(Some(file.into())),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno).at(Stage::UNPACK, BLOBS),
        }
    }

    /// Puts a blob that is whole, verified and synced at its place.
    pub fn complete_with(&self, blob: &Growing) -> Result<()> {
        let name = blob.name.as_c_str();
        renameat(&self.growing, name, &self.blobs, name).at(Stage::UNPACK, BLOBS)?;
        fsync(&self.blobs).at(Stage::UNPACK, BLOBS)
    }

    /// Removes what grew to something wrong, while it is still locked.
    pub fn discard(&self, blob: &Growing) {
        let _ = unlinkat(&self.growing, blob.name.as_c_str(), UnlinkatFlags::NoRemoveDir);
    }

    /// Removes a blob that was found damaged.
    pub fn remove(&self, digest: &Digest) {
        if let Ok(name) = name(digest) {
            let _ = unlinkat(&self.blobs, name.as_c_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
}

impl Growing {
    /// The blob from its beginning: what is there, then what comes from `source`, which is kept.
    pub fn read(&self, source: OwnedFd) -> Result<Reading> {
        let mut kept = File::from(self.file.try_clone().at(Stage::UNPACK, INGEST)?);
        kept.rewind().at(Stage::UNPACK, INGEST)?;
        Ok(Reading { kept, source: source.into(), old: self.offset, size: self.size, at: 0, cut: false })
    }

    /// Has its bytes written to the disk, unless a `syncfs` of `place` does that.
    pub fn sync_apart(&self, place: &Fd) -> Result<()> {
        let device = |stat: nix::Result<nix::sys::stat::FileStat>| stat.map(|stat| stat.st_dev);
        if device(fstat(&*self.file)) == device(fstat(place)) {
            return Ok(());
        }
        fsync(&*self.file).at(Stage::UNPACK, INGEST)
    }
}

/// A blob that is read while it grows.
#[derive(Debug)]
pub(crate) struct Reading {
    kept: File,
    source: File,
    old: u64,
    size: u64,
    at: u64,
    /// Whether the source ended too early: what is there is worth keeping.
    pub cut: bool,
}

impl Read for Reading {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let old = self.at < self.old;
        let count = if old {
            let most = room.len().min(usize::try_from(self.old - self.at).unwrap_or(usize::MAX));
            self.kept.read(&mut room[..most])?
        } else {
            self.source.read(room)?
        };
        if count == 0 && self.at < self.size {
            self.cut = true;
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "its end did not arrive"));
        }
        self.at += count as u64;
        if !old && self.at <= self.size {
            self.kept.write_all(&room[..count])?;
        }
        Ok(count)
    }
}

/// Removes beginnings of blobs that nobody went on with, below `data_root`.
pub(crate) fn expire(data_root: &Path) {
    let Ok(entries) = std::fs::read_dir(data_root.join(INGEST)) else { return };
    for entry in entries.flatten() {
        let old = entry
            .metadata()
            .and_then(|known| known.modified())
            .is_ok_and(|modified| SystemTime::now().duration_since(modified).is_ok_and(|age| age > EXPIRY));
        if !old {
            continue;
        }
        let Ok(file) = File::open(entry.path()) else { continue };
        // One that is locked is somebody's.
        if Flock::lock(OwnedFd::from(file), FlockArg::LockExclusiveNonblock).is_ok() {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
