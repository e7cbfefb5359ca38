//! Blobs on their way into the content store, which is an OCI image layout: `images/blobs/sha256/HEX`. A blob has that
//! place only once its digest was found right and its bytes are on the disk; until then it grows in `ingest/HEX`.
//!
//! Who fills that file holds an flock on it, so a second process that wants the same blob waits and finds it there. What
//! a cut line or a crash leaves stays: the next one begins behind it. Whether those bytes are the right ones only the
//! digest tells, at the end; a file that was found wrong is removed.

use crate::archive::Digest;
use crate::error::{At, Code, Error, Result, Stage};
use crate::journal::private_directory;
use crate::off::off;
use caisson_sys::file::{open, openat2, resolve};
use caisson_sys::{Cwd, Errno, Fd};
use nix::fcntl::{AtFlags, Flock, FlockArg, renameat};
use nix::sys::stat::{fstat, fstatat};
use nix::unistd::{UnlinkatFlags, fsync, ftruncate, unlinkat};
use sha2::{Digest as _, Sha256};
use std::ffi::CString;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// Blobs that are complete, below the data root.
const BLOBS: &str = "images/blobs/sha256";
/// Blobs that are growing.
const INGEST: &str = "ingest";
/// How long the beginning of a blob is kept for who might go on with it.
const EXPIRY: Duration = Duration::from_secs(7 * 24 * 3600);

/// Bytes of a read.
const PIECE: usize = 256 * 1024;

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

/// A blob that grows. Two may work on it: who reads it, and who lets it grow to its end because its reader waits.
#[derive(Debug)]
pub(crate) struct Growing {
    growth: Mutex<Growth>,
    name: CString,
    digest: Digest,
    /// How many bytes are there from before.
    pub offset: u64,
    size: u64,
}

#[derive(Debug)]
struct Growth {
    /// The right to let it grow; none once it is at its place.
    lock: Option<Flock<OwnedFd>>,
    kept: File,
    /// Where the rest comes from.
    source: Option<File>,
    /// How many bytes are there now.
    have: u64,
    /// Whether the source ended too early: what is there is worth keeping.
    cut: bool,
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
            let kept = File::from(file.try_clone().at(Stage::UNPACK, INGEST)?);
            let growth = Growth { lock: Some(file), kept, source: None, have: offset, cut: false };
            return Ok(Blob::Growing(Growing {
                growth: Mutex::new(growth),
                name,
                digest: *digest,
                offset,
                size,
            }));
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

    /// Puts a blob that is whole, verified and synced at its place, if it is not there yet.
    pub fn complete_with(&self, blob: &Growing) -> Result<()> {
        self.place(blob, &mut blob.growth())
    }

    fn place(&self, blob: &Growing, growth: &mut Growth) -> Result<()> {
        if growth.lock.is_none() {
            return Ok(());
        }
        let name = blob.name.as_c_str();
        renameat(&self.growing, name, &self.blobs, name).at(Stage::UNPACK, BLOBS)?;
        // Who waits for it looks now, and finds it there.
        growth.lock = None;
        fsync(&self.blobs).at(Stage::UNPACK, BLOBS)
    }

    /// Lets a blob grow to its end and puts it at its place, before its reader has come to its end. Who waits for
    /// anything else while he has a blob calls this first: what he waits for may wait for the blob.
    ///
    /// # Errors
    /// [`Code::Digest`] for one that is wrong; those of reading and writing.
    pub fn finish(&self, blob: &Growing) -> Result<()> {
        let mut growth = blob.growth();
        if growth.lock.is_none() {
            return Ok(());
        }
        let mut room = vec![0; PIECE];
        while growth.grow(&mut room, blob.size).at(Stage::UNPACK, "the blob")? > 0 {
            if growth.have > blob.size {
                let size = format!("{} bytes", blob.size);
                let message = "the blob is longer than its descriptor says";
                return Err(Error::new(Code::Digest, Stage::UNPACK, size, message));
            }
        }
        let found = digest_of(&growth.kept).at(Stage::UNPACK, INGEST)?;
        if found != blob.digest && !off("verify") {
            let message = format!("the blob's digest is {found}");
            return Err(Error::new(Code::Digest, Stage::UNPACK, blob.digest.to_string(), message));
        }
        fsync(&growth.kept).at(Stage::UNPACK, INGEST)?;
        self.place(blob, &mut growth)
    }

    /// Removes what grew to something wrong, or to nothing, while it is still locked.
    pub fn discard(&self, blob: &Growing) {
        if blob.growth().lock.is_some() {
            let _ = unlinkat(&self.growing, blob.name.as_c_str(), UnlinkatFlags::NoRemoveDir);
        }
    }

    /// Removes a blob if it was damaged on the disk.
    pub fn remove_damaged(&self, digest: &Digest) {
        let Ok(name) = name(digest) else { return };
        let Ok(Some(file)) = self.complete(&name) else { return };
        if digest_of(&File::from(file)).is_ok_and(|found| found != *digest) {
            let _ = unlinkat(&self.blobs, name.as_c_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
}

impl Growing {
    /// The blob from its beginning: what is there, then what comes from `source`, which is kept.
    pub fn read(&self, source: OwnedFd) -> Reading<'_> {
        self.growth().source = Some(source.into());
        Reading { blob: self, at: 0 }
    }

    /// Whether its source ended too early.
    pub fn is_cut(&self) -> bool {
        self.growth().cut
    }

    /// Whether nothing of it came.
    pub fn is_empty(&self) -> bool {
        self.growth().have == 0
    }

    /// Has its bytes written to the disk, unless a `syncfs` of `place` does that.
    pub fn sync_apart(&self, place: &Fd) -> Result<()> {
        let device = |stat: nix::Result<nix::sys::stat::FileStat>| stat.map(|stat| stat.st_dev);
        let same = device(fstat(&self.growth().kept)) == device(fstat(place));
        if same { Ok(()) } else { self.sync() }
    }

    /// Has its bytes written to the disk.
    pub fn sync(&self) -> Result<()> {
        fsync(&self.growth().kept).at(Stage::UNPACK, INGEST)
    }

    fn growth(&self) -> MutexGuard<'_, Growth> {
        self.growth.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Growth {
    /// Takes bytes from the source, and keeps those that belong to it; 0 at its end.
    fn grow(&mut self, room: &mut [u8], size: u64) -> io::Result<usize> {
        let count = match &mut self.source {
            Some(source) => source.read(room)?,
            None => 0,
        };
        if count == 0 && self.have < size {
            self.cut = true;
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "its end did not arrive"));
        }
        let kept = count.min(usize::try_from(size.saturating_sub(self.have)).unwrap_or(usize::MAX));
        self.kept.write_all_at(&room[..kept], self.have)?;
        self.have += count as u64;
        Ok(count)
    }
}

/// A blob that is read while it grows.
#[derive(Debug)]
pub(crate) struct Reading<'a> {
    blob: &'a Growing,
    at: u64,
}

impl Read for Reading<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let mut growth = self.blob.growth();
        let count = if self.at < growth.have {
            let most = room.len().min(usize::try_from(growth.have - self.at).unwrap_or(usize::MAX));
            growth.kept.read_at(&mut room[..most], self.at)?
        } else {
            growth.grow(room, self.blob.size)?
        };
        self.at += count as u64;
        Ok(count)
    }
}

fn digest_of(file: &File) -> io::Result<Digest> {
    let (mut hash, mut room, mut at) = (Sha256::new(), vec![0; PIECE], 0);
    loop {
        match file.read_at(&mut room, at)? {
            0 => return Ok(Digest::from(<[u8; 32]>::from(hash.finalize()))),
            count => {
                hash.update(&room[..count]);
                at += count as u64;
            }
        }
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
