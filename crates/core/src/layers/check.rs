//! Whether a layer is still what its blob says: it is unpacked once more, aside, and the two trees are compared. So it is
//! held against all that unpacking does, by the one reader of archives that there is.

use super::below::Below;
use super::{
    CLAIMS, MARK, ROOT, Store, UNPACKING, directory, expected, flock, is_at, is_opaque, name, options,
};
use crate::archive;
use crate::channel::Layer;
use crate::error::{At, Code, Error, Result, Stage};
use crate::idmap::IdMap;
use caisson_sys::{Errno, Fd};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::{Mode, mkdirat};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

fn differs(subject: impl Into<String>, message: &str) -> Error {
    Error::new(Code::Digest, Stage::VERIFY, subject, message)
}

impl Store {
    /// Holds a blob, and the layer if it is there, against what is expected of them.
    ///
    /// # Errors
    /// As [`archive::unpack`] for the blob; [`Code::Digest`] of [`Stage::VERIFY`] for a layer that differs from it, by its
    /// first difference.
    pub fn check(&self, blob: OwnedFd, layer: &Layer, ids: Option<&IdMap>) -> Result<()> {
        let chain = name(&layer.chain)?;
        let there = match directory(&self.layers, &chain) {
            Err(Errno::ENOENT) => return archive::verify(File::from(blob), &expected(layer)?),
            answer => answer.at(Stage::VERIFY, &layer.chain)?,
        };
        let aside = CString::new(format!("check-{}-{}", layer.chain, std::process::id()))
            .map_err(|_| Error::invalid("chain", "holds a NUL byte"))?;
        let held = self.aside(&aside)?;
        let place: Fd = held.try_clone().at(Stage::VERIFY, UNPACKING)?.into();
        let checked = self.check_in(&place, blob, layer, ids, &there);
        // While it is still locked.
        let removed = archive::remove_tree(&self.unpacking, &aside);
        checked.and(removed)
    }

    /// A directory of our own, locked: who cleans up leaves it alone from then on.
    fn aside(&self, name: &CStr) -> Result<Flock<OwnedFd>> {
        for _ in 0..CLAIMS {
            match mkdirat(&self.unpacking, name, Mode::S_IRWXU) {
                Ok(()) | Err(nix::Error::EEXIST) => {}
                Err(errno) => return Err(errno).at(Stage::VERIFY, UNPACKING),
            }
            let Ok(place) = directory(&self.unpacking, name) else { continue };
            let Some(held) = flock(place, FlockArg::LockExclusive)? else { continue };
            if is_at(&held, &self.unpacking, name)? {
                return Ok(held);
            }
        }
        Err(Error::new(Code::Internal, Stage::VERIFY, UNPACKING, "its place cannot be held"))
    }

    fn check_in(
        &self,
        place: &Fd,
        blob: OwnedFd,
        layer: &Layer,
        ids: Option<&IdMap>,
        there: &Fd,
    ) -> Result<()> {
        // What one that was killed, and had our number, left in it.
        archive::remove_tree(place, ROOT)?;
        mkdirat(place, ROOT, Mode::S_IRWXU).at(Stage::VERIFY, UNPACKING)?;
        let fresh = directory(place, ROOT).at(Stage::VERIFY, UNPACKING)?;
        let below =
            Below { store: self, chains: &layer.lowers, gate: None, growing: None, roots: OnceLock::new() };
        let report = archive::unpack(File::from(blob), &fresh, &options(layer, ids, &below)?)?;
        let mark = MARK.to_string_lossy();
        if is_opaque(there).map_err(|_| differs(mark.clone(), "cannot be read"))? != report.opaque_root {
            return Err(differs(mark, "says something else of the layers below"));
        }
        let tree = match directory(there, ROOT) {
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {
                return Err(differs("", "its tree is missing"));
            }
            answer => answer.at(Stage::VERIFY, &layer.chain)?,
        };
        archive::compare(&fresh, &tree)
    }
}
