//! The packer: a forked role of the shim that writes a container's files down: its writable layer for an image, or its root
//! file system as an archive. It is not in the container's pid namespace, so nobody in there sees it.

use super::Shim;
use super::container::Container;
use super::request::not_running;
use super::unpack::{Read, Unpacker};
use caisson_core::archive::{self, Form, Limits, Owner, Packing, private_view};
use caisson_core::cgroup;
use caisson_core::channel::{PAUSE_MUST, PAUSE_NOT};
use caisson_core::idmap::IdMap;
use caisson_core::{At, Code, Error, Result, Stage};
use caisson_sys::process::{self, namespace};
use caisson_sys::{Cwd, Fd};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, fstatfs};
use std::ffi::CString;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Bytes of a write.
const PIECE: usize = 256 * 1024;
const RLIMIT_NOFILE: u32 = 7;

/// How a container's files are written for a shim with this map.
fn packing(form: Form, ids: Option<&IdMap>) -> Packing {
    let limits = match form {
        Form::Layer => Limits::default(),
        // Of an archive nobody knows who reads it.
        Form::Whole => Limits { entries: u64::MAX, inflated_bytes: u64::MAX, ..Limits::default() },
    };
    let owner = if ids.is_some_and(IdMap::is_single) { Owner::Caller } else { Owner::Archived };
    Packing { form, userxattr: ids.is_some(), owner, limits }
}

/// Files that have several names are held open until all were written: as many as may be.
fn raise_limit() {
    if let Ok((_, hard)) = process::limit(RLIMIT_NOFILE) {
        let _ = process::set_limit(RLIMIT_NOFILE, hard, hard);
    }
}

/// Writes the writable layer at `upper` into `directory`, once the group, if there is one, stands still.
fn write_layer(upper: &Path, directory: &Fd, group: Option<&Fd>, packing: &Packing) -> Result<()> {
    if let Some(group) = group
        && !cgroup::is_frozen(group).at(Stage::CGROUP, "cgroup.events")?
    {
        let message = "the container cannot be paused: one of its processes does not stop";
        return Err(Error::new(Code::Launch, Stage::CGROUP, "pause", message));
    }
    let path = CString::new(upper.as_os_str().as_bytes());
    let path = path.map_err(|_| Error::invalid("root", "holds a NUL byte"))?;
    archive::pack_layer(&private_view(Cwd, &path)?, directory, packing)
}

/// Writes the root file system of the container whose first process this is.
fn write_root(first: &Fd, new: u64, target: Fd, packing: &Packing) -> Result<()> {
    // A reader that leaves is an error, not our end.
    let mut pipe = SigSet::empty();
    pipe.add(Signal::SIGPIPE);
    pipe.thread_block().at(Stage::PACK, "sigprocmask")?;
    if new & namespace::MOUNT == 0 {
        return Err(Error::new(
            Code::Internal,
            Stage::PACK,
            "mount",
            "the container has no mounts of its own",
        ));
    }
    // With the namespace comes its root: what is mounted below that stays behind.
    process::setns(first, namespace::MOUNT).at(Stage::PACK, "setns")?;
    let root = private_view(Cwd, c"/")?;
    // What is mounted over the root is what is found there: every root that is made here is an overlay.
    if fstatfs(&root).at(Stage::PACK, "/")?.filesystem_type() != OVERLAYFS_SUPER_MAGIC {
        let message = "in the container something is mounted over its root file system";
        return Err(Error::new(Code::Unsupported, Stage::PACK, "/", message));
    }
    let mut out = BufWriter::with_capacity(PIECE, Target(target));
    archive::pack(&root, &mut out, packing)?;
    out.flush().at(Stage::PACK, "the archive").map_err(|error| error.with_code(Code::Archive))
}

/// Where an archive goes: whoever gave it may have made it non-blocking.
struct Target(Fd);

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match nix::unistd::write(&self.0, bytes) {
                Err(nix::Error::EAGAIN) => {
                    let mut asked = [PollFd::new(self.0.as_fd(), PollFlags::POLLOUT)];
                    let _ = poll(&mut asked, PollTimeout::NONE);
                }
                Err(nix::Error::EINTR) => {}
                answer => return answer.map_err(io::Error::from),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shim {
    /// Starts to write a container's writable layer.
    pub(super) fn commit(&mut self, token: u64, container: u64, pause: u8, to: Option<&Fd>) -> Result<()> {
        let packing = packing(Form::Layer, self.launcher.ids());
        let to = to.ok_or_else(nowhere)?;
        let running = self.running(container)?;
        if pause == PAUSE_MUST && running.made.cgroup.is_none() {
            let message = "the container has no cgroup of its own, by which it could be paused";
            return Err(Error::new(Code::Isolation, Stage::CGROUP, "pause", message));
        }
        let paused = running.read(pause != PAUSE_NOT)?;
        let upper = running.made.upper();
        let group = running.made.cgroup.as_ref().filter(|_| paused).map(|group| &group.whole);
        let packer = Unpacker::work(Stage::PACK, to, group, |directory, group| {
            raise_limit();
            write_layer(&upper, &directory, group.as_ref(), &packing)
        });
        self.hold_reader(token, Read { container, paused }, packer)
    }

    /// Starts to write a container's root file system.
    pub(super) fn export(&mut self, token: u64, container: u64, to: Option<&Fd>) -> Result<()> {
        let packing = packing(Form::Whole, self.launcher.ids());
        let to = to.ok_or_else(nowhere)?;
        let running = self.running(container)?;
        let paused = running.read(false)?;
        let new = running.namespaces;
        let packer = Unpacker::work(Stage::PACK, to, Some(&running.command.pidfd), |target, first| {
            raise_limit();
            write_root(first.as_ref().ok_or_else(nowhere)?, new, target, &packing)
        });
        self.hold_reader(token, Read { container, paused }, packer)
    }

    /// A container whose command runs.
    fn running(&mut self, container: u64) -> Result<&mut Container> {
        let found = self.containers.get_mut(&container).ok_or_else(not_running)?;
        // Whether it does may not have been looked at yet.
        found.command.read_reports(&self.epoll, &mut self.room);
        if found.command.is_running() { Ok(found) } else { Err(not_running()) }
    }

    /// Ends all who read a container that has ended: whoever takes what they write may never go on.
    pub(super) fn end_readers(&mut self, container: u64) {
        let reading = self.unpackers.values_mut();
        let reading = reading.filter(|packer| packer.reads.is_some_and(|reads| reads.container == container));
        let message = "the container has ended, and its files were not read to their end in time";
        let error = Error::new(Code::NotRunning, Stage::PACK, "container", message);
        reading.for_each(|packer| packer.end_for(error.clone()));
    }

    fn hold_reader(&mut self, token: u64, reads: Read, packer: Result<Unpacker>) -> Result<()> {
        let held = packer.and_then(|packer| self.hold(token, packer.reading(reads)));
        held.inspect_err(|_| self.was_read(reads))
    }

    /// Nobody reads a container's files any more: it goes on, or goes.
    pub(super) fn was_read(&mut self, Read { container, paused }: Read) {
        if let Some(read) = self.containers.get_mut(&container) {
            read.was_read(paused);
        }
        self.advance(container);
    }
}

fn nowhere() -> Error {
    Error::new(Code::RuntimeMismatch, Stage::CHANNEL, "pack", "has nowhere to write to")
}
