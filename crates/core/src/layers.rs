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

use crate::archive::{self, Digest, Options, Owner, Report};
use crate::channel::Layer;
use crate::error::{At, Code, Error, Result, Stage};
use crate::idmap::IdMap;
use crate::journal::private_directory;
use caisson_sys::file::{open, openat2, resolve, write_all};
use caisson_sys::{Cwd, Errno, Fd};
use nix::fcntl::{AtFlags, Flock, FlockArg, renameat};
use nix::sys::stat::{Mode, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, fsync, syncfs, unlinkat};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

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
    layers: Fd,
    unpacking: Fd,
}

fn directory(parent: &Fd, name: &CStr) -> Result<Fd, Errno> {
    let flags = open::RDONLY | open::DIRECTORY | open::NOFOLLOW;
    openat2(parent, name, flags, resolve::BENEATH | resolve::NO_SYMLINKS, 0)
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

fn flock(held: Fd, how: FlockArg) -> Result<Option<Flock<OwnedFd>>> {
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
        Ok(Self { layers: make(LAYERS)?, unpacking: make(UNPACKING)? })
    }

    /// Puts a layer into the store, if it is not there; with `ids` by what that user namespace can have. It may wait for another process that is doing the same.
    ///
    /// # Errors
    /// As [`archive::unpack`]; nothing is left then.
    pub fn unpack(&self, blob: OwnedFd, layer: &Layer, ids: Option<&IdMap>) -> Result<()> {
        let chain = name(&layer.chain)?;
        let Some(place) = self.claim(&chain)? else { return Ok(()) };
        let made = self.fill(&chain, &place, blob, layer, ids);
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
        blob: OwnedFd,
        layer: &Layer,
        ids: Option<&IdMap>,
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
        let lowers = layer.lowers.iter().map(|chain| self.root(chain)).collect::<Result<Vec<Fd>>>()?;
        let options = Options {
            expected_digest: Some(Digest::parse(&layer.digest)?),
            expected_size: Some(layer.size),
            expected_diff_id: Some(Digest::parse(&layer.diff_id)?),
            // In a user namespace nodes cannot be made, nor the files of more users than it has.
            devices: ids.is_none(),
            userxattr: ids.is_some(),
            owner: if ids.is_some_and(IdMap::is_single) { Owner::Caller } else { Owner::Archived },
            lowers: &lowers,
            ..Options::default()
        };
        let report = archive::unpack(File::from(blob), &root, &options)?;
        write_mark(&place, layer, &report)?;
        // One call for all its files, which are mostly written by now: an fsync for each would take many times as long.
        syncfs(&place).at(Stage::UNPACK, "syncfs")?;
        renameat(&self.unpacking, chain, &self.layers, chain).at(Stage::UNPACK, LAYERS)?;
        fsync(&self.layers).at(Stage::UNPACK, LAYERS)
    }

    /// The tree of a layer that is in the store.
    fn root(&self, chain: &str) -> Result<Fd> {
        let layer = directory(&self.layers, &name(chain)?).at(Stage::UNPACK, chain)?;
        directory(&layer, ROOT).at(Stage::UNPACK, chain)
    }

    /// Whether there is something that [`Store::clean`] should look at.
    #[must_use]
    pub fn is_unclean(&self) -> bool {
        self.unfinished().is_ok_and(|names| !names.is_empty())
    }

    /// Removes what was being made by processes that are dead.
    pub fn clean(&self) {
        for name in self.unfinished().unwrap_or_default() {
            let Ok(held) = directory(&self.unpacking, &name) else { continue };
            let Ok(Some(held)) = flock(held, FlockArg::LockExclusiveNonblock) else { continue };
            if is_at(&held, &self.unpacking, &name).unwrap_or(false) {
                let _ = archive::remove_tree(&self.unpacking, &name);
            }
        }
    }

    fn unfinished(&self) -> Result<Vec<CString>> {
        let copy: OwnedFd = directory(&self.unpacking, c".").at(Stage::UNPACK, UNPACKING)?.into();
        let mut listed = nix::dir::Dir::from_fd(copy).at(Stage::UNPACK, UNPACKING)?;
        let names = listed.iter().flatten().map(|entry| entry.file_name().to_owned());
        Ok(names.filter(|name| !matches!(name.to_bytes(), b"." | b"..")).collect())
    }
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
