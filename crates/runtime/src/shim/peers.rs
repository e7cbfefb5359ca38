//! Those who ask and are told: the owner, and other programs of the same user for as long as it is there.

use super::peer::Peer;
use super::{ARRIVED, FROM_PEER, KINDS, LISTENER, OWNER, Shim, TO_PEER};
use caisson_core::Result;
use caisson_core::channel::{self, ATTACH, Attach, Event, TOKENS};
use caisson_core::clock;
use nix::sys::epoll::EpollFlags;

/// How many may be there at one time.
const MOST: usize = 256;
/// How many may be there that have not said who they are.
const MOST_ARRIVED: usize = 64;
/// How long nobody is let in after there was no room.
const PAUSE_NS: u64 = 100_000_000;
/// How often sixteen requests of one who left are read.
const LAST_ROUNDS: usize = 64;

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

    /// Takes those who knock. Who says nothing makes room for who comes after; where there is none, nobody is heard for a
    /// moment: the listener would wake us without end.
    pub(super) fn hear_listener(&mut self) {
        loop {
            match self.listener.as_ref().map(Peer::accept) {
                Some(Ok(Some(came))) => {
                    if self.arrived.len() >= MOST_ARRIVED {
                        self.arrived.pop_first();
                    }
                    self.last_peer += 1;
                    let number = self.last_peer;
                    if self.peers.len() < MOST
                        && self.watch(&came, EpollFlags::EPOLLIN, number * KINDS + ARRIVED).is_ok()
                    {
                        self.arrived.insert(number, came);
                    }
                }
                Some(Err(_)) if !self.arrived.is_empty() => self.arrived.clear(),
                Some(Err(_)) => {
                    if let Some(listener) = &self.listener {
                        let _ = self.epoll.delete(listener);
                    }
                    self.listener_at = Some(clock::now() + PAUSE_NS);
                    return;
                }
                Some(Ok(None)) | None => return,
            }
        }
    }

    pub(super) fn look_at_listener(&mut self, now: u64) {
        if self.listener_at.is_some_and(|at| at <= now) {
            self.listener_at = None;
            if let Some(listener) = &self.listener
                && self.watch(listener, EpollFlags::EPOLLIN, LISTENER).is_err()
            {
                self.listener_at = Some(now + PAUSE_NS);
            }
        }
    }

    /// What another program asked last: it may be gone by the time that it is read.
    pub(super) fn hear_last(&mut self, number: u64) {
        for _ in 0..LAST_ROUNDS {
            if number == OWNER || !self.peers.contains_key(&number) {
                return;
            }
            self.hear_peer(number);
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
        let reading =
            self.unpackers.iter_mut().filter(|(token, _)| number != OWNER && *token / TOKENS == number);
        reading.for_each(|(_, packer)| packer.cancel());
        let its = self.execs.iter_mut().filter(|(token, _)| number == OWNER || *token / TOKENS == number);
        its.for_each(|(_, exec)| exec.kill(channel::CAUSE_ABORTED));
        self.waiting.retain(|(_, token)| token / TOKENS != number);
        self.listening.retain(|one| one.token() / TOKENS != number);
    }
}
