//! What a peer asks, and what is done about it.

use super::container::Container;
use super::dial::Dialer;
use super::exec::Exec;
use super::listening::Listening;
use super::unpack::Unpacker;
use super::{DIALER, KINDS, OWNER, PROCESS, Shim, end_of_reports};
use caisson_core::channel::{self, Event, Exec as Wanted, Launch, Request, TOKENS};
use caisson_core::launch::LAUNCH_DESCRIPTORS;
use caisson_core::{Code, Error, Result, Stage};
use caisson_sys::{Errno, Fd, process};
use nix::sys::epoll::EpollFlags;

pub(super) fn not_running() -> Error {
    Error::new(Code::NotRunning, Stage::CLONE, "container", "the container is not running")
}

/// Plan, stdio, and instead of stdio where a terminal goes.
fn given(descriptors: Vec<Fd>) -> Result<(Fd, Vec<Fd>, Option<Fd>)> {
    let mut descriptors = descriptors.into_iter();
    let missing = || Error::new(Code::RuntimeMismatch, Stage::CHANNEL, "launch", "has no plan");
    let plan = descriptors.next().ok_or_else(missing)?;
    let mut stdio: Vec<Fd> = descriptors.take(LAUNCH_DESCRIPTORS - 1).collect();
    let terminal = if stdio.len() == 1 { stdio.pop() } else { None };
    Ok((plan, stdio, terminal))
}

fn only_owner(from: u64) -> Result<()> {
    let message = "is for the program that started this process";
    if from == OWNER {
        Ok(())
    } else {
        Err(Error::new(Code::Unsupported, Stage::CHANNEL, "request", message))
    }
}

impl Shim {
    pub(super) fn hear_peer(&mut self, from: u64) {
        // Bounded, so that a flood of requests does not keep ends waiting.
        for _ in 0..16 {
            let Some(peer) = self.peers.get(&from) else { return };
            match channel::receive::<Request>(&peer.requests, &mut self.room, false) {
                Ok(Some((request, descriptors))) => self.request(from, request, descriptors),
                Err(error) if error.errno == Some(Errno::EAGAIN.raw()) => return,
                Ok(None) | Err(_) => return self.peer_is_gone(from),
            }
        }
    }

    fn request(&mut self, from: u64, request: Request, descriptors: Vec<Fd>) {
        // What comes of it goes to who asked.
        let taken = |token| {
            let starts = matches!(request, Request::Launch { .. } | Request::Exec { .. });
            starts && (self.containers.contains_key(&token) || self.execs.contains_key(&token))
        };
        if request.own().is_some_and(|token| token / TOKENS != from || taken(token)) {
            return self.peer_is_gone(from);
        }
        match request {
            Request::Launch { launch } => {
                let started = only_owner(from).and_then(|()| self.launch(&launch, descriptors));
                self.tell_failure(launch.token, started);
            }
            Request::Exec { exec } => {
                let started = self.exec(&exec, descriptors);
                self.tell_failure(exec.token, started);
            }
            Request::Signal { token, signal } => {
                if let Some(container) = self.containers.get(&token) {
                    let _ = process::send_signal(&container.command.pidfd, signal);
                } else if let Some(exec) = self.execs.get_mut(&token) {
                    exec.signal(signal);
                }
            }
            Request::Kill { token, cause } => {
                if let Some(container) = self.containers.get_mut(&token) {
                    container.kill(cause);
                } else if let Some(exec) = self.execs.get_mut(&token) {
                    exec.kill(cause);
                }
            }
            Request::Resize { token, columns, rows } => {
                let container = self.containers.get(&token).map(|container| &container.command);
                if let Some(command) = container.or(self.execs.get(&token).map(|exec| &exec.command)) {
                    command.resize(columns, rows);
                }
            }
            Request::Stats { token, request } => {
                let usage = self.containers.get(&token).and_then(Container::usage);
                let usage = usage.or_else(|| self.execs.get(&token).and_then(Exec::usage));
                self.tell(&Event::Stats { token, request, usage });
            }
            Request::Unpack { layer } => {
                let blob = only_owner(from).and_then(|()| {
                    let missing =
                        || Error::new(Code::RuntimeMismatch, Stage::CHANNEL, "layer", "has no blob");
                    descriptors.first().ok_or_else(missing)
                });
                let ids = self.launcher.ids();
                let started = blob.and_then(|blob| {
                    Unpacker::start(&self.data_root, (blob, descriptors.get(1)), &layer, ids)
                });
                let held = started.and_then(|unpacker| self.hold(layer.token, unpacker));
                self.tell_failure(layer.token, held);
            }
            Request::Spool { token, layer } => {
                let given = only_owner(from).and_then(|()| match &descriptors[..] {
                    [source, directory] => Ok((source, directory)),
                    _ => {
                        let message = "has no archive or no directory";
                        Err(Error::new(Code::RuntimeMismatch, Stage::CHANNEL, "spool", message))
                    }
                });
                let started = given.and_then(|(source, directory)| Unpacker::spool(source, directory, layer));
                let held = started.and_then(|spooler| self.hold(token, spooler));
                self.tell_failure(token, held);
            }
            Request::Commit { token, container, pause } => {
                let started = self.commit(token, container, pause, descriptors.first());
                self.tell_failure(token, started);
            }
            Request::Export { token, container } => {
                let started = self.export(token, container, descriptors.first());
                self.tell_failure(token, started);
            }
            Request::Dial { token, container, port } => {
                let dialed = self.dial(token, container, port, descriptors.first());
                self.tell_failure(token, dialed);
            }
            Request::List { token } => {
                let known: Vec<Event> = self
                    .containers
                    .values()
                    .filter(|container| container.command.is_running())
                    .map(|container| Event::Listed { token, listed: container.listed() })
                    .collect();
                known.iter().for_each(|event| self.tell(event));
                self.tell(&Event::Done { token });
            }
            Request::Wait { token, container } => match self.containers.contains_key(&container) {
                true => self.waiting.push((container, token)),
                false => self.tell(&Event::Done { token }),
            },
            Request::Sweep { token } => self.clean(token, None),
            Request::Listening { token, container, port } => {
                self.listening.push(Listening::new(token, container, port));
            }
            Request::Cancel { token } => {
                if self.cancel_listening(token) {
                    return;
                }
                if let Some(unpacker) = self.unpackers.get_mut(&token) {
                    unpacker.cancel();
                }
            }
        }
    }

    pub(super) fn tell_failure(&mut self, token: u64, outcome: Result<()>) {
        if let Err(error) = outcome {
            self.tell(&Event::Failed { token, error });
        }
    }

    fn launch(&mut self, launch: &Launch, descriptors: Vec<Fd>) -> Result<()> {
        let token = launch.token;
        let (plan, stdio, terminal) = given(descriptors)?;
        let layer = launch.layer.as_ref().map(|chain| self.store.hold(chain)).transpose()?;
        let running = self.launcher.launch(&plan, launch, stdio)?;
        let watched = self.watch(&running.pidfd, EpollFlags::EPOLLIN, token * KINDS + PROCESS);
        watched.inspect_err(|_| self.launcher.abandon(&running))?;
        let waited_for = terminal.is_some();
        let mut container = Container::new(running, launch.timeout_ms, terminal, layer);
        if waited_for {
            container.command.watch_reports(&self.epoll, end_of_reports(token));
        }
        self.containers.insert(token, container);
        Ok(())
    }

    fn exec(&mut self, wanted: &Wanted, descriptors: Vec<Fd>) -> Result<()> {
        let token = wanted.token;
        let (plan, stdio, terminal) = given(descriptors)?;
        let container = self.containers.get_mut(&wanted.container).ok_or_else(not_running)?;
        // Whether its command runs may not have been looked at yet.
        container.command.read_reports(&self.epoll, &mut self.room);
        let waited_for = terminal.is_some();
        let mut exec = Exec::start(&self.launcher, container, wanted, (&plan, &stdio), terminal)?;
        if self.watch(&exec.command.pidfd, EpollFlags::EPOLLIN, token * KINDS + PROCESS).is_err() {
            exec.abandon();
        } else if waited_for {
            exec.command.watch_reports(&self.epoll, end_of_reports(token));
        }
        self.execs.insert(token, exec);
        Ok(())
    }

    fn dial(&mut self, token: u64, container: u64, port: u16, back: Option<&Fd>) -> Result<()> {
        let refuse = |code, message| Error::new(code, Stage::DIAL, "container", message);
        let back = back.ok_or_else(|| refuse(Code::RuntimeMismatch, "has no way back"))?;
        let running = self.containers.get(&container).filter(|container| !container.command.has_ended());
        let running = running.ok_or_else(not_running)?;
        let dialer = Dialer::start(&running.command.pidfd, running.namespaces, back, port)?;
        self.watch(&dialer.process, EpollFlags::EPOLLIN, token * KINDS + DIALER)?;
        self.dialers.insert(token, dialer);
        Ok(())
    }
}
