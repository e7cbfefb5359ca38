//! The owner's two sockets: requests come in by one, events go out by the other.

use super::{EVENTS, REQUESTS};
use caisson_sys::fd::{self, Number};
use caisson_sys::{Errno, Fd, socket};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;

/// Whether the other end of a socket is closed: POLLHUP, which need not be asked for.
pub(super) fn is_gone(requests: Number) -> bool {
    let Ok(mine) = fd::duplicate(requests, 3) else { return false };
    let mut asked = [PollFd::new(mine.as_fd(), PollFlags::empty())];
    poll(&mut asked, PollTimeout::ZERO).is_ok_and(|answers| answers > 0)
}

#[derive(Debug)]
pub(super) struct Owner {
    pub(super) requests: Fd,
    pub(super) events: Fd,
    /// What the stream had no room for yet.
    pub(super) unsent: Vec<u8>,
}

impl Owner {
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
