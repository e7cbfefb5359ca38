//! Whether a layer is still what its blob says: it is unpacked once more, aside, and the two trees are compared. So it is
//! held against all that unpacking does, by the one reader of archives that there is.

use super::{Below, MARK, ROOT, Store, UNPACKING, directory, expected, flock, is_opaque, name, options};
use crate::archive;
use crate::channel::Layer;
use crate::error::{At, Code, Error, Result, Stage};
use crate::idmap::IdMap;
use caisson_sys::{Errno, Fd};
use nix::fcntl::FlockArg;
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
        mkdirat(&self.unpacking, aside.as_c_str(), Mode::S_IRWXU).at(Stage::VERIFY, UNPACKING)?;
        let checked = self.check_aside(&aside, blob, layer, ids, &there);
        let removed = archive::remove_tree(&self.unpacking, &aside);
        checked.and(removed)
    }

    fn check_aside(
        &self,
        aside: &CStr,
        blob: OwnedFd,
        layer: &Layer,
        ids: Option<&IdMap>,
        there: &Fd,
    ) -> Result<()> {
        // Who cleans up leaves it alone.
        let place = directory(&self.unpacking, aside).at(Stage::VERIFY, UNPACKING)?;
        let locked = directory(&self.unpacking, aside).at(Stage::VERIFY, UNPACKING)?;
        let _held = flock(locked, FlockArg::LockExclusive)?;
        mkdirat(&place, ROOT, Mode::S_IRWXU).at(Stage::VERIFY, UNPACKING)?;
        let fresh = directory(&place, ROOT).at(Stage::VERIFY, UNPACKING)?;
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
