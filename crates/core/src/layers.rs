//! The layers of images on disk, each a directory under its chain id: `layers/CHAIN/root` is what overlayfs gets, and
//! `layers/CHAIN/layer.json` says what it is. A layer has that place only when it is complete and on the disk: it is
//! made in `unpacking/CHAIN`, synced, and renamed.
//!
//! Whoever works in `unpacking/CHAIN` holds an flock on it, so a second process that wants the same layer waits and
//! finds it done, and what a crash left is known by its being unlocked. The kernel gives the lock up with the process.
//!
//! The name is the chain id, not the digest of the layer alone: directories that a layer names only in passing and files
//! that it links to come from the layers below, so the same archive on other layers is another directory, and an image
//! could else plant files in those of others.

use crate::archive::{self, Digest, Lowers, Options, Owner, Report};
use crate::channel::Layer;
use crate::error::{At, Code, Error, Result, Stage};
use crate::idmap::IdMap;
use crate::ingest::{Blob, Growing, Ingest};
use crate::journal::private_directory;
use crate::writeback;
use below::{Below, not_there};
use caisson_sys::file::{open, openat2, resolve, write_all};
use caisson_sys::{Cwd, Errno, Fd};
use nix::fcntl::{AtFlags, Flock, FlockArg, renameat};
use nix::sys::stat::{Mode, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, fsync, syncfs, unlinkat};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

mod below;
mod check;
mod clean;

/// Complete layers, below the data root.
const LAYERS: &str = "layers";
/// Layers that are being made.
const UNPACKING: &str = "unpacking";
/// What a layer is: written last, so a reader of it needs no other mark.
const MARK: &CStr = c"layer.json";
/// The layer's own tree.
const ROOT: &CStr = c"root";
/// How often the place of a layer may be taken away by others before we give up.
const CLAIMS: usize = 1000;

/// The store of layers below one data root.
#[derive(Debug)]
pub struct Store {
    data_root: PathBuf,
    layers: Fd,
    unpacking: Fd,
}

/// Where a layer's blob comes from.
#[derive(Debug)]
pub struct Source {
    /// The blob from its beginning; or, for a layer whose blob is kept, from where it is asked for on.
    pub blob: OwnedFd,
    /// Its end is read once the layers below are in the store; none: they are.
    pub gate: Option<OwnedFd>,
}

/// A layer that a container uses, for as long as this lives.
#[derive(Debug)]
pub struct Held {
    _lock: Flock<OwnedFd>,
}

fn directory(parent: &Fd, name: &CStr) -> Result<Fd, Errno> {
    let flags = open::RDONLY | open::DIRECTORY | open::NOFOLLOW;
    openat2(parent, name, flags, resolve::BENEATH | resolve::NO_SYMLINKS, 0)
}

/// What becomes of a blob that did not come to its end, and why: only a beginning that was cut off is kept.
fn given_up(ingest: &Ingest, growing: &Growing, error: Error) -> Error {
    let cut = growing.is_cut();
    if !cut || growing.is_empty() {
        ingest.discard(growing);
    }
    if cut { error.with_code(Code::Cut) } else { error }
}

/// Removes a blob that an error may be about: its bytes, or what the image says of them, of which only the bytes can be
/// had anew.
fn remove_bad(ingest: &Ingest, digest: &Digest, error: &Error) {
    if error.errno.is_none() && !matches!(error.code, Code::Cut | Code::Internal) {
        ingest.remove_damaged(digest);
    }
}

/// What a layer's blob must be.
fn expected(layer: &Layer) -> Result<Options<'static>> {
    Ok(Options {
        expected_digest: Some(Digest::parse(&layer.digest)?),
        expected_size: Some(layer.size),
        expected_diff_id: Some(Digest::parse(&layer.diff_id)?),
        ..Options::default()
    })
}

/// How a layer is unpacked.
fn options<'a>(layer: &Layer, ids: Option<&IdMap>, below: &'a Below<'_>) -> Result<Options<'a>> {
    Ok(Options {
        // In a user namespace nodes cannot be made, nor the files of more users than it has.
        devices: ids.is_none(),
        userxattr: ids.is_some(),
        owner: if ids.is_some_and(IdMap::is_single) { Owner::Caller } else { Owner::Archived },
        lowers: (!layer.lowers.is_empty()).then_some(below as &dyn Lowers),
        ..expected(layer)?
    })
}

/// A chain id becomes a name of a directory: its text has one form only.
fn name(chain: &str) -> Result<CString> {
    Digest::parse(&format!("sha256:{chain}"))?;
    CString::new(chain).map_err(|_| Error::invalid("chain", "holds a NUL byte"))
}

/// Whether `held` is what stands at `name` now.
fn is_at(held: &OwnedFd, parent: &Fd, name: &CStr) -> Result<bool> {
    let mine = fstat(held).at(Stage::UNPACK, UNPACKING)?;
    match fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(there) => Ok((there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)),
        Err(nix::Error::ENOENT) => Ok(false),
        Err(errno) => Err(errno).at(Stage::UNPACK, UNPACKING),
    }
}

pub(crate) fn flock(held: Fd, how: FlockArg) -> Result<Option<Flock<OwnedFd>>> {
    let mut held = OwnedFd::from(held);
    loop {
        match Flock::lock(held, how) {
            Ok(locked) => return Ok(Some(locked)),
            Err((back, nix::Error::EINTR)) => held = back,
            Err((_, nix::Error::EWOULDBLOCK)) => return Ok(None),
            Err((_, errno)) => return Err(errno).at(Stage::UNPACK, "flock"),
        }
    }
}

impl Store {
    /// Opens the store below `data_root`; its directories are made.
    ///
    /// # Errors
    /// As mkdir(2), open(2); [`Code::Launch`] for directories that are somebody else's.
    pub fn open(data_root: &Path) -> Result<Self> {
        let make = |part: &str| {
            let path = data_root.join(part);
            private_directory(&path)?;
            let c_path = crate::journal::c_path(&path)?;
            openat2(Cwd, &c_path, open::RDONLY | open::DIRECTORY | open::NOFOLLOW, 0, 0)
                .at(Stage::UNPACK, path.to_string_lossy())
        };
        let (layers, unpacking) = (make(LAYERS)?, make(UNPACKING)?);
        Ok(Self { data_root: data_root.to_owned(), layers, unpacking })
    }

    /// Holds a layer, and with it all that it was made on, so that nobody removes it while a container uses it.
    ///
    /// # Errors
    /// [`Code::ImageNotFound`] for one that is not there, or is just being removed.
    pub fn hold(&self, chain: &str) -> Result<Held> {
        let name = name(chain)?;
        let gone =
            || Error::new(Code::ImageNotFound, Stage::SOURCE, chain, "the image was removed meanwhile");
        let layer = match directory(&self.layers, &name) {
            Err(Errno::ENOENT) => return Err(gone()),
            answer => answer.at(Stage::SOURCE, chain)?,
        };
        let lock = flock(layer, FlockArg::LockSharedNonblock)?.ok_or_else(gone)?;
        if is_at(&lock, &self.layers, &name)? { Ok(Held { _lock: lock }) } else { Err(gone()) }
    }

    /// Puts a layer into the store, if it is not there; with `ids` by what that user namespace can have. It may wait for
    /// another process that is doing the same. A blob that is kept and is not there is asked for by `wanted`, from the
    /// byte on that is missing. Without a chain id the blob is all that is put there.
    ///
    /// # Errors
    /// As [`archive::unpack`]; nothing is left of the layer then. [`Code::Cut`] where the blob's end did not arrive; what
    /// came of it is kept.
    pub fn unpack(
        &self,
        source: Source,
        layer: &Layer,
        ids: Option<&IdMap>,
        wanted: impl FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        if layer.chain.is_empty() {
            return self.fetch(source.blob, layer, wanted);
        }
        let chain = name(&layer.chain)?;
        let Some(place) = self.claim(&chain)? else {
            // Made by an image of a layout, or from the same files in another compression: its blob is another matter.
            return if layer.keep {
                self.keep(source.blob, layer, wanted)
            } else {
                archive::verify(File::from(source.blob), &expected(layer)?)
            };
        };
        let made = self.fill(&chain, &place, source, layer, ids, wanted);
        if made.is_err() {
            // While it is still locked: nobody else can have begun in it.
            let _ = archive::remove_tree(&self.unpacking, &chain);
        }
        made
    }

    fn has(&self, chain: &CStr) -> Result<bool> {
        match fstatat(&self.layers, chain, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(nix::Error::ENOENT) => Ok(false),
            Err(errno) => Err(errno).at(Stage::UNPACK, LAYERS),
        }
    }

    /// The locked directory in which a layer can be made; none if the layer is there.
    fn claim(&self, chain: &CStr) -> Result<Option<Flock<OwnedFd>>> {
        for _ in 0..CLAIMS {
            if self.has(chain)? {
                return Ok(None);
            }
            match mkdirat(&self.unpacking, chain, Mode::S_IRWXU) {
                Ok(()) | Err(nix::Error::EEXIST) => {}
                Err(errno) => return Err(errno).at(Stage::UNPACK, UNPACKING),
            }
            let held = match directory(&self.unpacking, chain) {
                Ok(held) => held,
                // Completed or cleaned away in between.
                Err(Errno::ENOENT) => continue,
                Err(errno) => return Err(errno).at(Stage::UNPACK, UNPACKING),
            };
            let Some(held) = flock(held, FlockArg::LockExclusive)? else { continue };
            if !is_at(&held, &self.unpacking, chain)? {
                continue;
            }
            if self.has(chain)? {
                // Made by somebody else after we had asked, and this directory after that.
                let _ = archive::remove_tree(&self.unpacking, chain);
                return Ok(None);
            }
            return Ok(Some(held));
        }
        let chain = chain.to_string_lossy();
        Err(Error::new(Code::Internal, Stage::UNPACK, chain, "its place in the store cannot be held"))
    }

    fn fill(
        &self,
        chain: &CStr,
        place: &Flock<OwnedFd>,
        Source { blob, gate }: Source,
        layer: &Layer,
        ids: Option<&IdMap>,
        mut wanted: impl FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        let place: Fd = place.try_clone().at(Stage::UNPACK, UNPACKING)?.into();
        // What a crash left in it.
        archive::remove_tree(&place, ROOT)?;
        match unlinkat(&place, MARK, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(nix::Error::ENOENT) => {}
            Err(errno) => return Err(errno).at(Stage::UNPACK, UNPACKING),
        }
        mkdirat(&place, ROOT, Mode::S_IRWXU).at(Stage::UNPACK, UNPACKING)?;
        let root = directory(&place, ROOT).at(Stage::UNPACK, UNPACKING)?;
        let mut below = Below {
            store: self,
            chains: &layer.lowers,
            gate: gate.as_ref(),
            growing: None,
            roots: OnceLock::new(),
        };
        if !layer.keep {
            let options = options(layer, ids, &below)?;
            let report = writeback::during(&place, || archive::unpack(File::from(blob), &root, &options))?;
            return self.complete(chain, &place, layer, &report);
        }
        let ingest = Ingest::open(&self.data_root)?;
        let digest = Digest::parse(&layer.digest)?;
        match ingest.take(&digest, layer.size)? {
            Blob::Complete(file) => {
                let options = options(layer, ids, &below)?;
                let unpacked =
                    writeback::during(&place, || archive::unpack(File::from(file), &root, &options));
                let report = unpacked.inspect_err(|error| remove_bad(&ingest, &digest, error))?;
                self.complete(chain, &place, layer, &report)
            }
            Blob::Growing(growing) => {
                wanted(growing.offset)?;
                let reading = growing.read(blob);
                below.growing = Some((&ingest, &growing));
                let options = options(layer, ids, &below)?;
                let unpacked = writeback::during(&place, || archive::unpack(reading, &root, &options));
                let report = unpacked.map_err(|error| given_up(&ingest, &growing, error))?;
                growing.sync_apart(&place)?;
                self.complete(chain, &place, layer, &report)?;
                ingest.complete_with(&growing)
            }
        }
    }

    /// Puts the blob of a layer that is there into the content store, if it is not; and sees that it is one of that layer.
    fn keep(&self, source: OwnedFd, layer: &Layer, mut wanted: impl FnMut(u64) -> Result<()>) -> Result<()> {
        let ingest = Ingest::open(&self.data_root)?;
        let digest = Digest::parse(&layer.digest)?;
        let growing = match ingest.take(&digest, layer.size)? {
            Blob::Complete(file) => {
                return archive::verify(File::from(file), &expected(layer)?)
                    .inspect_err(|error| remove_bad(&ingest, &digest, error));
            }
            Blob::Growing(growing) => growing,
        };
        wanted(growing.offset)?;
        archive::verify(growing.read(source), &expected(layer)?)
            .map_err(|error| given_up(&ingest, &growing, error))?;
        growing.sync()?;
        ingest.complete_with(&growing)
    }

    /// Puts a blob into the content store as it comes, if it is not there: nobody here looks into it.
    fn fetch(&self, source: OwnedFd, blob: &Layer, mut wanted: impl FnMut(u64) -> Result<()>) -> Result<()> {
        let ingest = Ingest::open(&self.data_root)?;
        let Blob::Growing(growing) = ingest.take(&Digest::parse(&blob.digest)?, blob.size)? else {
            return Ok(());
        };
        wanted(growing.offset)?;
        let _ = growing.read(source);
        ingest.finish(&growing).map_err(|error| given_up(&ingest, &growing, error))
    }

    /// Gives a layer its place.
    fn complete(&self, chain: &CStr, place: &Fd, layer: &Layer, report: &Report) -> Result<()> {
        write_mark(place, layer, report)?;
        // One call for all its files, which are mostly written by now: an fsync for each would take many times as long.
        syncfs(place).at(Stage::UNPACK, "syncfs")?;
        renameat(&self.unpacking, chain, &self.layers, chain).at(Stage::UNPACK, LAYERS)?;
        fsync(&self.layers).at(Stage::UNPACK, LAYERS)
    }

    /// The directory of a layer that is in the store.
    fn layer(&self, chain: &str) -> Result<Fd> {
        match directory(&self.layers, &name(chain)?) {
            Err(Errno::ENOENT) => Err(not_there(chain)),
            answer => answer.at(Stage::UNPACK, chain),
        }
    }
}

/// Whether a layer hides all that are below it: what its mark says, which [`write_mark`] wrote.
fn is_opaque(layer: &Fd) -> io::Result<bool> {
    let file = openat2(layer, MARK, open::RDONLY | open::NOFOLLOW, resolve::BENEATH, 0)
        .map_err(|errno| io::Error::from_raw_os_error(errno.raw()))?;
    let mut text = String::new();
    File::from(OwnedFd::from(file)).read_to_string(&mut text)?;
    Ok(text.contains("\"opaque\":true"))
}

/// The mark is JSON of numbers, flags and digests, whose text needs no escapes.
fn write_mark(place: &Fd, layer: &Layer, report: &Report) -> Result<()> {
    let text = format!(
        "{{\"diffId\":\"{}\",\"opaque\":{},\"entries\":{},\"bytes\":{},\"skippedXattrs\":{},\"skippedDevices\":{}}}\n",
        layer.diff_id,
        report.opaque_root,
        report.entries,
        report.bytes,
        report.skipped_xattrs,
        report.skipped_devices,
    );
    let flags = open::WRONLY | open::CREAT | open::EXCL;
    let file = openat2(place, MARK, flags, resolve::BENEATH, 0o600).at(Stage::UNPACK, UNPACKING)?;
    write_all(&file, text.as_bytes()).at(Stage::UNPACK, UNPACKING)
}
