//! Waiting until something in a container listens at a port: a bounded look at the tables of its network, at first often.

use super::Shim;
use super::request::not_running;
use caisson_core::channel::Event;
use caisson_core::clock;
use caisson_core::{Code, Error, Stage};
use std::fs;

/// From one look to the next: at first, and at most.
const FIRST_NS: u64 = 1_000_000;
const LAST_NS: u64 = 20_000_000;

#[derive(Debug)]
pub(super) struct Listening {
    token: u64,
    container: u64,
    port: u16,
    next: u64,
    pause: u64,
}

impl Listening {
    pub(super) fn new(token: u64, container: u64, port: u16) -> Self {
        Self { token, container, port, next: clock::now(), pause: FIRST_NS }
    }

    pub(super) const fn token(&self) -> u64 {
        self.token
    }

    pub(super) const fn wakes_at(&self) -> u64 {
        self.next
    }
}

impl Shim {
    /// Looks for those whose time has come; tells what there is to tell.
    pub(super) fn look_at_ports(&mut self, now: u64) {
        let mut left = Vec::with_capacity(self.listening.len());
        for mut one in std::mem::take(&mut self.listening) {
            let container = self.containers.get(&one.container).map(|container| &container.command);
            match container.filter(|command| !command.has_ended()).map(|command| command.pid) {
                None => self.tell(&Event::Failed { token: one.token, error: not_running() }),
                Some(pid) if one.next <= now => {
                    if is_listening(pid, one.port) {
                        self.tell(&Event::Done { token: one.token });
                        continue;
                    }
                    one.next = now + one.pause;
                    one.pause = (one.pause * 2).min(LAST_NS);
                    left.push(one);
                }
                Some(_) => left.push(one),
            }
        }
        left.append(&mut self.listening);
        self.listening = left;
    }

    /// Ends a wait. False if there is none of this number.
    pub(super) fn cancel_listening(&mut self, token: u64) -> bool {
        let before = self.listening.len();
        self.listening.retain(|one| one.token != token);
        if self.listening.len() == before {
            return false;
        }
        let error = Error::new(Code::Launch, Stage::DIAL, "port", "is not waited for any more");
        self.tell(&Event::Failed { token, error });
        true
    }
}

/// Whether a socket of the network of `pid` listens at `port`: state 0A of proc_pid_net(5), `tcp`.
fn is_listening(pid: u32, port: u16) -> bool {
    let wanted = format!("{port:04X}");
    ["tcp", "tcp6"].iter().any(|name| {
        let table = fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap_or_default();
        table.lines().skip(1).any(|line| {
            let mut words = line.split_ascii_whitespace().skip(1);
            let (local, state) = (words.next().unwrap_or_default(), words.nth(1));
            state == Some("0A") && local.rsplit(':').next() == Some(wanted.as_str())
        })
    })
}
