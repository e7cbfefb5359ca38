//! The shim: parent of every container of one owner. One thread, one loop: requests from the owner, reports of inits,
//! ends of processes. When the owner's socket ends it kills and takes down all it holds, and ends itself.

mod child;
mod command;
mod container;
mod dial;
mod exec;
mod listening;
mod pack;
mod peer;
mod peers;
mod request;
mod tree;
mod unpack;

use caisson_core::channel::{self, CAUSE_TIMEOUT, Event, Hello};
use caisson_core::clock;
use caisson_core::journal;
use caisson_core::launch::Launcher;
use caisson_core::layers::Store;
use caisson_core::off::off;
use caisson_core::trust;
use caisson_core::{Code, Error, Result, Stage};
use caisson_sys::fd::{self, Number};
use caisson_sys::{Errno, Fd, identity, process};
use container::Container;
use dial::Dialer;
use exec::Exec;
use listening::Listening;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use peer::Peer;
use request::not_running;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use unpack::{Outcome, Unpacker};

/// Where the owner's requests come from: the addon starts us with that socket as standard input.
const REQUESTS: Number = Number(0);
/// Where events go: a stream, as standard output.
const EVENTS: Number = Number(1);
/// The owner's number among the peers.
const OWNER: u64 = 0;
/// What an epoll event is about: a number times [`KINDS`] plus one of these.
const PROCESS: u64 = 0;
const REPORT: u64 = 1;
const REMOVER: u64 = 2;
const UNPACKER: u64 = 3;
const DIALER: u64 = 4;
/// From here on it is a peer's number.
const FROM_PEER: u64 = 5;
const TO_PEER: u64 = 6;
const ARRIVED: u64 = 7;
const LISTENER: u64 = 8;
const KINDS: u64 = 16;

/// How long a busy cgroup is asked again before it is left to the journal.
const PATIENCE_NS: u64 = 10_000_000_000;
/// How often it is asked.
const RETRY_MS: u64 = 1;

/// Runs until the owner is gone.
pub fn run() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut bytes = Vec::new();
            channel::frame(&Event::Failed { token: 0, error }, &mut bytes);
            let _ = caisson_sys::file::write_all(EVENTS, &bytes);
            ExitCode::from(1)
        }
    }
}

fn failed(stage: &'static str) -> impl FnOnce(Errno) -> Error {
    move |errno| Error {
        errno: Some(errno.raw()),
        ..Error::new(Code::Launch, Stage::SHIM, stage, errno.to_string())
    }
}

fn serve() -> Result<()> {
    // Whatever of Node's came along by mistake goes first.
    if !off("close_range") {
        fd::close_from(3).map_err(failed("close_range"))?;
    }
    process::reset_signals().map_err(failed("signals"))?;
    // Away from the terminal of whoever started Node: ^C is for the owner, which ends us by closing.
    if !off("setsid") {
        let _ = process::setsid();
    }
    // Nor does it hold the owner's working directory busy.
    nix::unistd::chdir("/").map_err(|errno| failed("chdir")(Errno::from_raw(errno as i32)))?;
    let _ = identity::set_name(c"caisson-shim");

    let mut room = vec![0u8; channel::MAX_MESSAGE];
    let Some((hello, _)) = channel::receive::<Hello>(REQUESTS, &mut room, true)? else { return Ok(()) };
    // An owner that has gone since may have removed its roots: they are not made again.
    if !hello.recover && peer::is_gone(REQUESTS) {
        return Ok(());
    }
    trust::check_root("runRoot", &hello.run_root)?;
    trust::check_root("root", &hello.data_root)?;
    if hello.cgroup_parent.as_ref().is_some_and(|path| path.contains(['\n', '\0'])) {
        return Err(Error::invalid("cgroupParent", "holds a line break"));
    }
    if let Some(ids) = &hello.ids {
        // Its maps are written through files that an undumpable process does not own.
        ids.enter()?;
    }
    identity::set_dumpable(false).map_err(failed("dumpable"))?;
    if hello.recover {
        journal::recover(Path::new(&hello.run_root));
        return Ok(());
    }
    let launcher = Launcher::prepare(&hello)?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC);
    let epoll = epoll.map_err(|errno| failed("epoll")(Errno::from_raw(errno as i32)))?;
    let owner = Peer::take().map_err(failed("socket"))?;
    let mut shim = Shim {
        epoll,
        launcher,
        containers: BTreeMap::new(),
        execs: BTreeMap::new(),
        unpackers: BTreeMap::new(),
        dialers: BTreeMap::new(),
        store: Store::open(Path::new(&hello.data_root))?,
        data_root: PathBuf::from(&hello.data_root),
        peers: BTreeMap::new(),
        listener: None,
        arrived: BTreeMap::new(),
        listener_at: None,
        last_peer: OWNER,
        waiting: Vec::new(),
        listening: Vec::new(),
        room,
    };
    shim.add_peer(OWNER, owner)?;
    let listener = shim.launcher.listen()?;
    shim.watch(&listener, EpollFlags::EPOLLIN, LISTENER)?;
    shim.listener = Some(listener);
    if shim.store.is_unclean() {
        shim.clean(0, None);
    }
    let answer = shim.work();
    shim.launcher.leave();
    answer
}

/// Of init's reports their end alone wakes us, which is the exec or a failure: what was said before is read then.
fn end_of_reports(token: u64) -> EpollEvent {
    EpollEvent::new(EpollFlags::EPOLLRDHUP, token * KINDS + REPORT)
}

struct Shim {
    epoll: Epoll,
    launcher: Launcher,
    containers: BTreeMap<u64, Container>,
    /// Other commands in them.
    execs: BTreeMap<u64, Exec>,
    /// Processes that unpack layers, and one of number 0 that cleans the store.
    unpackers: BTreeMap<u64, Unpacker>,
    /// Connections on their way.
    dialers: BTreeMap<u64, Dialer>,
    data_root: PathBuf,
    store: Store,
    /// Who asks and is told, by number; without the owner it ends.
    peers: BTreeMap<u64, Peer>,
    /// Where other programs of the same user come in, and those that have not said yet who they are.
    listener: Option<Fd>,
    arrived: BTreeMap<u64, Fd>,
    /// When it is listened to again, after there was no room for who knocked.
    listener_at: Option<u64>,
    last_peer: u64,
    /// Who waits for the end of which container: its number, and that of the answer.
    waiting: Vec<(u64, u64)>,
    /// Who waits for a port.
    listening: Vec<Listening>,
    room: Vec<u8>,
}

impl Shim {
    fn watch(&self, file: &Fd, what: EpollFlags, about: u64) -> Result<()> {
        let added = self.epoll.add(file, EpollEvent::new(what, about));
        added.map_err(|errno| failed("epoll")(Errno::from_raw(errno as i32)))
    }

    fn work(&mut self) -> Result<()> {
        let mut events = [EpollEvent::empty(); 64];
        while !self.is_left()
            || !self.containers.is_empty()
            || !self.execs.is_empty()
            || !self.unpackers.is_empty()
        {
            let count = match self.epoll.wait(&mut events, self.next_timeout()) {
                Err(nix::errno::Errno::EINTR) => 0,
                Err(errno) => return Err(failed("epoll")(Errno::from_raw(errno as i32))),
                Ok(count) => count,
            };
            // Ends before requests: a container that is over makes room first.
            for event in events.iter().take(count).filter(|event| event.data() % KINDS < FROM_PEER) {
                match (event.data() / KINDS, event.data() % KINDS) {
                    (token, UNPACKER) => self.hear_unpacker(token),
                    (token, DIALER) => self.hear_dialer(token),
                    (token, _) if self.execs.contains_key(&token) => self.hear_exec(token),
                    (token, what) => self.hear_container(token, what),
                }
            }
            for event in events.iter().take(count) {
                match (event.data() / KINDS, event.data() % KINDS) {
                    (peer, FROM_PEER) => self.hear_peer(peer),
                    (peer, TO_PEER)
                        if event.events().intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLRDHUP) =>
                    {
                        self.hear_last(peer);
                        self.peer_is_gone(peer);
                    }
                    (peer, TO_PEER) => self.flush(peer),
                    (peer, ARRIVED) => self.hear_arrived(peer),
                    (_, LISTENER) => self.hear_listener(),
                    _ => {}
                }
            }
            self.look_at_clock();
        }
        Ok(())
    }

    fn hear_dialer(&mut self, token: u64) {
        let Some(outcome) = self.dialers.get(&token).and_then(Dialer::outcome) else { return };
        if let Some(dialer) = self.dialers.remove(&token) {
            let _ = self.epoll.delete(&dialer.process);
        }
        self.tell(&match outcome {
            Ok(()) => Event::Dialed { token },
            Err(error) => Event::Failed { token, error },
        });
    }

    fn hold(&mut self, token: u64, mut unpacker: Unpacker) -> Result<()> {
        if let Err(error) = self.watch(&unpacker.process, EpollFlags::EPOLLIN, token * KINDS + UNPACKER) {
            unpacker.cancel();
            return Err(error);
        }
        if let Some(report) = &unpacker.report {
            let _ = self.watch(report, EpollFlags::EPOLLIN, token * KINDS + UNPACKER);
        }
        self.unpackers.insert(token, unpacker);
        Ok(())
    }

    /// Cleans the store in a process of its own: what is removed may be large.
    fn clean(&mut self, token: u64, failure: Option<Error>) {
        let cleaner = Unpacker::clean(&self.data_root, failure.clone());
        if let Err(error) = cleaner.and_then(|cleaner| self.hold(token, cleaner))
            && token != 0
        {
            // The next shim tries again.
            self.tell(&Event::Failed { token, error: failure.unwrap_or(error) });
        }
    }

    fn hear_unpacker(&mut self, token: u64) {
        let Some(unpacker) = self.unpackers.get_mut(&token) else { return };
        let wanted = unpacker.wanted(&mut self.room);
        let outcome = unpacker.outcome(&mut self.room);
        if let Some(offset) = wanted {
            self.tell(&Event::Wanted { token, offset });
        }
        let (Some(outcome), Some(unpacker)) = (outcome, self.unpackers.get(&token)) else { return };
        let _ = self.epoll.delete(&unpacker.process);
        if let Some(report) = &unpacker.report {
            let _ = self.epoll.delete(report);
        }
        let reads = self.unpackers.remove(&token).and_then(|unpacker| unpacker.reads);
        if let Some(reads) = reads {
            self.was_read(reads);
        }
        match outcome {
            Outcome::Unpacked => self.tell(&Event::Unpacked { token }),
            Outcome::Failed(error) => self.tell(&Event::Failed { token, error }),
            Outcome::Unclean(error) => self.clean(token, Some(error)),
            Outcome::Cleaned if token != 0 => self.tell(&Event::Done { token }),
            Outcome::Cleaned => {}
        }
    }

    fn hear_container(&mut self, token: u64, what: u64) {
        let Some(container) = self.containers.get_mut(&token) else { return };
        match what {
            REPORT => {
                container.command.read_reports(&self.epoll, &mut self.room);
            }
            PROCESS => {
                container.command.read_reports(&self.epoll, &mut self.room);
                container.reap(&self.epoll);
            }
            _ => container.take_remover(&self.epoll),
        }
        self.advance(token);
    }

    /// Tells what there is to tell about a container, and goes on with its undoing.
    fn advance(&mut self, token: u64) {
        let Some(mut container) = self.containers.remove(&token) else { return };
        if let Some(event) = container.command.started(clock::now()) {
            self.tell(&event);
        }
        if container.command.has_ended() {
            container.undo(&self.launcher, PATIENCE_NS);
            if let Some(remover) = container.new_remover()
                && self
                    .epoll
                    .add(remover, EpollEvent::new(EpollFlags::EPOLLIN, token * KINDS + REMOVER))
                    .is_err()
            {
                container.give_up_remover();
            }
            if let Some(event) = container.over() {
                self.tell(&event);
                let done: Vec<u64> =
                    self.waiting.iter().filter(|(of, _)| *of == token).map(|(_, to)| *to).collect();
                self.waiting.retain(|(of, _)| *of != token);
                done.iter().for_each(|token| self.tell(&Event::Done { token: *token }));
                return;
            }
        }
        if self.is_left() || container.command.has_failed() {
            container.kill(channel::CAUSE_ABORTED);
        }
        self.containers.insert(token, container);
    }

    /// First the process is the joiner's, then the one that it became: with the second the first is no news any more.
    fn hear_exec(&mut self, token: u64) {
        let Some(exec) = self.execs.get_mut(&token) else { return };
        let joiner_ended = exec.joiner_has_ended();
        if exec.read_reports(&self.epoll, &mut self.room) {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, token * KINDS + PROCESS);
            if self.epoll.add(&exec.command.pidfd, event).is_err() {
                exec.abandon();
            }
            exec.read_reports(&self.epoll, &mut self.room);
        }
        exec.reap(&self.epoll, joiner_ended);
        self.advance_exec(token);
    }

    fn advance_exec(&mut self, token: u64) {
        let Some(mut exec) = self.execs.remove(&token) else { return };
        if let Some(event) = exec.command.started(clock::now()) {
            self.tell(&event);
        }
        if exec.command.has_ended() {
            let container = self.containers.get(&exec.container).map(|container| &container.command);
            if exec.command.is_lost()
                && container.is_none_or(|first| first.has_ended() || first.killed != channel::CAUSE_NONE)
            {
                exec.command.blame(not_running());
            }
            exec.undo();
            if let Some(event) = exec.over() {
                if let (Some(group), Some(container)) =
                    (exec.leftover(), self.containers.get_mut(&exec.container))
                {
                    container.keep(group);
                }
                self.tell(&event);
            }
            if exec.is_told() && !exec.lingers() {
                return;
            }
        } else if self.is_left() || exec.command.has_failed() {
            exec.kill(channel::CAUSE_ABORTED);
        }
        self.execs.insert(token, exec);
    }

    fn next_timeout(&self) -> EpollTimeout {
        let now = clock::now();
        let retry = RETRY_MS * 1_000_000;
        let containers = self.containers.values().filter_map(|container| container.wakes_at(now, retry));
        let execs = self.execs.values().filter_map(|exec| exec.wakes_at(now, retry));
        let listener = self.listener_at;
        let ports = self.listening.iter().map(Listening::wakes_at);
        let next = containers.chain(execs).chain(ports).chain(listener).min();
        match next {
            None => EpollTimeout::NONE,
            Some(at) => {
                let ms = at.saturating_sub(now).div_ceil(1_000_000).min(60_000);
                EpollTimeout::try_from(i32::try_from(ms).unwrap_or(60_000)).unwrap_or(EpollTimeout::ZERO)
            }
        }
    }

    fn look_at_clock(&mut self) {
        let now = clock::now();
        let due: Vec<u64> = self
            .containers
            .iter()
            .filter(|(_, container)| container.is_due(now))
            .map(|(token, _)| *token)
            .collect();
        for token in due {
            if let Some(container) = self.containers.get_mut(&token) {
                container.sweep(now);
                if container.command.is_out_of_time(now) {
                    container.kill(CAUSE_TIMEOUT);
                }
                if container.command.is_dead() {
                    container.reap(&self.epoll);
                }
                if container.command.is_unheard() {
                    container.command.watch_reports(&self.epoll, end_of_reports(token));
                    container.command.read_reports(&self.epoll, &mut self.room);
                }
                if container.is_read_too_long(now) {
                    self.end_readers(token);
                }
            }
            self.advance(token);
        }
        self.look_at_ports(now);
        self.look_at_listener(now);
        let due = self.execs.iter().filter(|(_, exec)| exec.is_due(now)).map(|(token, _)| *token);
        for token in due.collect::<Vec<_>>() {
            if let Some(exec) = self.execs.get_mut(&token) {
                if exec.command.is_out_of_time(now) {
                    exec.kill(CAUSE_TIMEOUT);
                }
                exec.look_at_joiner(now);
                if exec.command.is_dead() {
                    exec.reap(&self.epoll, false);
                }
                if exec.command.is_unheard() {
                    exec.command.watch_reports(&self.epoll, end_of_reports(token));
                    self.hear_exec(token);
                    continue;
                }
            }
            self.advance_exec(token);
        }
    }
}
