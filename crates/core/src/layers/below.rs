//! The layers that one stands on, which may still be on their way.

use super::{ROOT, Store, directory, is_opaque};
use crate::archive::Lowers;
use crate::error::{At, Code, Error, Result, Stage};
use crate::ingest::{Growing, Ingest};
use caisson_sys::{Errno, Fd};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;

/// The layers below one that is being made.
#[derive(Debug)]
pub(super) struct Below<'a> {
    pub store: &'a Store,
    pub chains: &'a [String],
    pub gate: Option<&'a OwnedFd>,
    /// What the layer's own blob grows by.
    pub growing: Option<(&'a Ingest, &'a Growing)>,
    pub roots: OnceLock<Vec<Fd>>,
}

impl Lowers for Below<'_> {
    fn roots(&self) -> Result<&[Fd]> {
        if let Some(known) = self.roots.get() {
            return Ok(known);
        }
        if let Some(gate) = self.gate {
            // A layer below may be the same blob, or wait for one whose unpacker waits for this one.
            if let Some((ingest, growing)) = self.growing.filter(|_| !is_open(gate)) {
                ingest.finish(growing)?;
            }
            let mut gate = File::from(gate.try_clone().at(Stage::UNPACK, "gate")?);
            gate.read_to_end(&mut Vec::new()).at(Stage::UNPACK, "gate")?;
        }
        let mut roots = Vec::new();
        for chain in self.chains {
            let layer = self.store.layer(chain)?;
            let root = match directory(&layer, ROOT) {
                Err(Errno::ENOENT) => return Err(not_there(chain)),
                answer => answer.at(Stage::UNPACK, chain)?,
            };
            roots.push(root);
            let opaque = match is_opaque(&layer) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(not_there(chain)),
                answer => answer.at(Stage::UNPACK, chain)?,
            };
            if opaque {
                break;
            }
        }
        Ok(self.roots.get_or_init(|| roots))
    }
}

/// Whether there is nothing to wait for at a gate.
fn is_open(gate: &OwnedFd) -> bool {
    poll(&mut [PollFd::new(gate.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO) != Ok(0)
}

/// A layer that another one needs, and that is not there or not whole.
pub(super) fn not_there(chain: &str) -> Error {
    Error::new(Code::ImageNotFound, Stage::UNPACK, chain, "a layer below is not in the store")
}
