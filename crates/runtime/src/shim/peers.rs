//! Those who ask and are told: the owner, and other programs of the same user for as long as it is there.

use super::peer::Peer;
use super::{ARRIVED, FROM_PEER, KINDS, OWNER, Shim, TO_PEER};
use caisson_core::Result;
use caisson_core::channel::{self, ATTACH, Attach, Event, TOKENS};
use nix::sys::epoll::EpollFlags;

/// How many may be there at one time.
const MOST: usize = 1024;

impl Shim {
    /// Watches a peer's sockets.
    pub(super) fn add_peer(&mut self, number: u64, peer: Peer) -> Result<()> {
        self.watch(&peer.requests, EpollFlags::EPOLLIN, number * KINDS + FROM_PEER)?;
        // Edge-triggered: told when it closes, and when there is room again after there was none.
        let events = EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
        self.watch(&peer.events, events, number * KINDS + TO_PEER)?;
        self.peers.insert(number, peer);
        Ok(())
    }

    pub(super) fn is_left(&self) -> bool {
        !self.peers.contains_key(&OWNER)
    }

    /// Takes those who knock.
    pub(super) fn hear_listener(&mut self) {
        while let Some(came) = self.listener.as_ref().and_then(Peer::accept) {
            self.last_peer += 1;
            let number = self.last_peer;
            if self.arrived.len() + self.peers.len() < MOST
                && self.watch(&came, EpollFlags::EPOLLIN, number * KINDS + ARRIVED).is_ok()
            {
                self.arrived.insert(number, came);
            }
        }
    }

    /// One that came says who it is.
    pub(super) fn hear_arrived(&mut self, number: u64) {
        let Some(came) = self.arrived.remove(&number) else { return };
        let _ = self.epoll.delete(&came);
        let Ok(Some((attach, descriptors))) = channel::receive::<Attach>(&came, &mut self.room, false) else {
            return;
        };
        let events = descriptors.into_iter().next().filter(|_| attach.version == ATTACH);
        if let Some(events) = events
            && self.add_peer(number, Peer::new(came, events)).is_ok()
        {
            self.tell(&Event::Welcome { token: number * TOKENS });
        }
    }

    /// Tells who it is about. What it has no room for waits here: a busy peer does not hold us, and misses nothing.
    pub(super) fn tell(&mut self, event: &Event) {
        let number = event.about() / TOKENS;
        if let Some(peer) = self.peers.get_mut(&number) {
            channel::frame(event, &mut peer.unsent);
            self.flush(number);
        }
    }

    pub(super) fn flush(&mut self, number: u64) {
        if self.peers.get_mut(&number).is_some_and(|peer| peer.flush().is_err()) {
            self.peer_is_gone(number);
        }
    }

    /// With the owner all goes; with another what it started.
    pub(super) fn peer_is_gone(&mut self, number: u64) {
        if let Some(peer) = self.peers.remove(&number) {
            let _ = self.epoll.delete(&peer.requests);
            let _ = self.epoll.delete(&peer.events);
        }
        if number == OWNER {
            self.containers.values_mut().for_each(|container| container.kill(channel::CAUSE_ABORTED));
            self.unpackers.values_mut().for_each(super::Unpacker::cancel);
        }
        let its = self.execs.iter_mut().filter(|(token, _)| number == OWNER || *token / TOKENS == number);
        its.for_each(|(_, exec)| exec.kill(channel::CAUSE_ABORTED));
        self.waiting.retain(|(_, token)| token / TOKENS != number);
        self.listening.retain(|one| one.token() / TOKENS != number);
    }
}
