//! The unpacker: a forked role of the shim that holds a blob, or an archive of images, a socket for its failure, and
//! nothing else of the shim's. The packer (pack.rs) is one, too.

use super::child;
use caisson_core::archive;
use caisson_core::channel::{self, Layer, Report};
use caisson_core::idmap::IdMap;
use caisson_core::layers::{Source, Store};
use caisson_core::{At, Code, Error, Result, Stage};
use caisson_sys::fd::{self, Number};
use caisson_sys::process::{self, End};
use caisson_sys::{Fd, identity};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

const SIGKILL: i32 = 9;
/// Where the child has its blob and its socket.
const BLOB: Number = Number(0);
const REPORT: Number = Number(1);
/// And what ends once the layers below are there, if they are not; or the directory that an archive is read into.
const MORE: Number = Number(2);

#[derive(Debug)]
pub(super) struct Unpacker {
    pub(super) process: Fd,
    /// Where it says what it wants, and why it failed; none while it only cleans.
    pub(super) report: Option<Fd>,
    /// Why it failed, as it said.
    said: Option<Error>,
    /// Why there is nothing to wait for but the cleaning.
    failure: Option<Error>,
    cancelled: bool,
    /// What it reads, if it is a container.
    pub(super) reads: Option<Read>,
}

/// A container that is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Read {
    pub(super) container: u64,
    /// Whether it is stopped for that.
    pub(super) paused: bool,
}

/// What the end of an unpacker means.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The layer is in the store, or the archive in its directory.
    Unpacked,
    /// It is not, and nothing is left of it.
    Failed(Error),
    /// It was killed: the store has to be cleaned.
    Unclean(Error),
    /// The store is clean.
    Cleaned,
}

impl Unpacker {
    /// Starts to unpack a layer from its blob, with a gate if the layers below are on their way; or to check one.
    pub(super) fn start(
        data_root: &Path,
        (blob, gate): (&Fd, Option<&Fd>),
        layer: &Layer,
        ids: Option<&IdMap>,
    ) -> Result<Self> {
        Self::work(Stage::UNPACK, blob, gate, |blob, gate| {
            let store = Store::open(data_root)?;
            if layer.check {
                return store.check(blob.into(), layer, ids);
            }
            let source = Source { blob: blob.into(), gate: gate.map(Into::into) };
            store.unpack(source, layer, ids, |offset| {
                channel::send(REPORT, &Report::Wanted { offset }, &[], true).at(Stage::UNPACK, "report")
            })
        })
    }

    /// Starts to read an archive of images into a directory, or with `layer` one layer.
    pub(super) fn spool(source: &Fd, directory: &Fd, layer: bool) -> Result<Self> {
        Self::work(Stage::UNPACK, source, Some(directory), |source, directory| {
            let missing = || Error::new(Code::Internal, Stage::UNPACK, "directory", "is not there");
            let (source, directory) = (File::from(OwnedFd::from(source)), directory.ok_or_else(missing)?);
            if layer { archive::spool_layer(source, &directory) } else { archive::spool(source, &directory) }
        })
    }

    /// Starts a child that has a blob, perhaps something more, and nothing else.
    pub(super) fn work(
        stage: Stage,
        blob: &Fd,
        more: Option<&Fd>,
        work: impl FnOnce(Fd, Option<Fd>) -> Result<()>,
    ) -> Result<Self> {
        let pair = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC);
        let (report, theirs) = pair.at(stage, "socketpair")?;
        let (report, theirs): (Fd, Fd) = (report.into(), theirs.into());
        let process = child::fork(stage, || {
            let _ =
                identity::set_name(if stage == Stage::PACK { c"caisson-pack" } else { c"caisson-unpack" });
            // The owner's sockets and every container's pipes go: their ends must not depend on us.
            let alone = fd::place(blob, BLOB.0)
                .and_then(|()| fd::place(&theirs, REPORT.0))
                .and_then(|()| more.map_or(Ok(()), |more| fd::place(more, MORE.0)))
                .and_then(|()| fd::close_from(3));
            let worked = alone.at(stage, "descriptors").and_then(|()| {
                let own = |number| fd::duplicate(number, 3).at(stage, "descriptors");
                let more = more.map(|_| own(MORE)).transpose()?;
                work(own(BLOB)?, more)
            });
            let Err(error) = worked else { return 0 };
            let _ = channel::send(REPORT, &Report::Failed { error }, &[], true);
            1
        })?;
        Ok(Self { process, report: Some(report), said: None, failure: None, cancelled: false, reads: None })
    }

    /// It reads a container.
    pub(super) fn reading(mut self, reads: Read) -> Self {
        self.reads = Some(reads);
        self
    }

    /// Starts to remove what dead unpackers left; `failure` is what is told of it at the end.
    pub(super) fn clean(data_root: &Path, failure: Option<Error>) -> Result<Self> {
        let process = child::fork(Stage::UNPACK, || {
            let _ = identity::set_name(c"caisson-unpack");
            if fd::close_from(3).is_err() {
                return 1;
            }
            Store::open(data_root).map_or(1, |store| {
                store.clean();
                0
            })
        })?;
        Ok(Self { process, report: None, said: None, failure, cancelled: false, reads: None })
    }

    /// Ends it. A cleaner is left to its work, which is short.
    pub(super) fn cancel(&mut self) {
        if self.report.is_some() && !self.cancelled {
            self.cancelled = true;
            let _ = process::send_signal(&self.process, SIGKILL);
        }
    }

    /// Ends it for a reason, which is what its asker is told.
    pub(super) fn end_for(&mut self, error: Error) {
        self.cancel();
        self.said = Some(error);
    }

    /// What it says: from which byte on it wants its blob.
    pub(super) fn wanted(&mut self, room: &mut [u8]) -> Option<u64> {
        let report = self.report.as_ref()?;
        let mut wanted = None;
        while let Ok(Some((said, _))) = channel::receive::<Report>(report, room, false) {
            match said {
                Report::Wanted { offset } => wanted = Some(offset),
                Report::Failed { error } => self.said = Some(error),
                _ => {}
            }
        }
        wanted
    }

    /// What its end means; nothing while it works. After [`Self::wanted`].
    pub(super) fn outcome(&mut self, room: &mut [u8]) -> Option<Outcome> {
        let end = match process::reap(&self.process) {
            Ok(None) => return None,
            Ok(Some(end)) => end,
            Err(_) => End { status: SIGKILL, signaled: true, user_us: 0, system_us: 0, max_rss_kib: 0 },
        };
        if self.report.is_none() {
            return Some(self.failure.take().map_or(Outcome::Cleaned, Outcome::Failed));
        }
        if !end.signaled && end.status == 0 {
            return Some(Outcome::Unpacked);
        }
        // It may have said so between our look and its end.
        self.wanted(room);
        if let Some(error) = self.said.take() {
            return Some(Outcome::Failed(error));
        }
        let (stage, role) = match self.reads {
            Some(_) => (Stage::PACK, "packing"),
            None => (Stage::UNPACK, "unpacking"),
        };
        let message = match (self.cancelled, end.signaled) {
            (true, _) => "was cancelled".to_owned(),
            (false, true) => format!("the {role} process was ended by signal {}", end.status),
            (false, false) => format!("the {role} process could not begin"),
        };
        let error = Error::new(Code::Archive, stage, "", message);
        // What a packer leaves is its asker's.
        Some(if self.reads.is_some() { Outcome::Failed(error) } else { Outcome::Unclean(error) })
    }
}
