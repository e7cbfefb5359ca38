//! Who asks, the owner or another program of the same user: requests come in by one socket, events go out by another.

use super::{EVENTS, REQUESTS};
use caisson_sys::fd::{self, Number};
use caisson_sys::{Errno, Fd, socket};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{SockFlag, accept4, getsockopt, sockopt};
use std::os::fd::AsFd;

/// Whether the other end of a socket is closed: POLLHUP, which need not be asked for.
pub(super) fn is_gone(requests: Number) -> bool {
    let Ok(mine) = fd::duplicate(requests, 3) else { return false };
    let mut asked = [PollFd::new(mine.as_fd(), PollFlags::empty())];
    poll(&mut asked, PollTimeout::ZERO).is_ok_and(|answers| answers > 0)
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) requests: Fd,
    pub(super) events: Fd,
    /// What the stream had no room for yet.
    pub(super) unsent: Vec<u8>,
}

impl Peer {
    /// Another program that comes in by `listener`, if one waits; of other users nobody does.
    ///
    /// # Errors
    /// As accept4(2), but EAGAIN: EMFILE.
    pub(super) fn accept(listener: &Fd) -> Result<Option<Fd>, nix::errno::Errno> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        loop {
            let came = match accept4(listener, flags) {
                Err(nix::errno::Errno::EAGAIN) => return Ok(None),
                Err(nix::errno::Errno::ECONNABORTED | nix::errno::Errno::EINTR) => continue,
                came => came?,
            };
            // Whom this user namespace does not have has the number of nobody in it (user_namespaces(7)).
            let from = getsockopt(&came, sockopt::PeerCredentials);
            if from.is_ok_and(|from| from.uid() == nix::unistd::geteuid().as_raw()) {
                return Ok(Some(came.into()));
            }
        }
    }

    pub(super) const fn new(requests: Fd, events: Fd) -> Self {
        Self { requests, events, unsent: Vec::new() }
    }

    /// Takes both from standard input and output, where /dev/null, as on standard error, is left.
    pub(super) fn take() -> Result<Self, Errno> {
        const NULL: Number = Number(2);
        let owner = Self {
            requests: fd::duplicate(REQUESTS, 3)?,
            events: fd::duplicate(EVENTS, 3)?,
            unsent: Vec::new(),
        };
        fd::place(NULL, REQUESTS.0)?;
        fd::place(NULL, EVENTS.0)?;
        Ok(owner)
    }

    /// Writes what there is room for.
    ///
    /// # Errors
    /// As sendmsg(2), but EAGAIN: the owner is gone.
    pub(super) fn flush(&mut self) -> Result<(), Errno> {
        while !self.unsent.is_empty() {
            match socket::send(&self.events, &self.unsent, &[], false) {
                Ok(written) => drop(self.unsent.drain(..written)),
                Err(Errno::EAGAIN) => return Ok(()),
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}
