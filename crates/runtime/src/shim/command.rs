//! One command in the shim's hands, a container's first process or another: from its birth to its end.

use caisson_core::cgroup::stats::Usage;
use caisson_core::channel::{self, CAUSE_NONE, Ended, Event, Isolation, Report, Stamps};
use caisson_core::clock;
use caisson_core::off::off;
use caisson_core::{Code, Error, Stage};
use caisson_sys::process::{self, End};
use caisson_sys::{Errno, Fd, ioctl, socket};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollEvent};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};

/// How long after its launch a start is looked at and told. A command that is over by then wakes us once, at its end, and
/// its owner once.
const START_IS_TOLD_AFTER_NS: u64 = 3_000_000;
/// cgroup files whose values `isolation` reports.
pub(super) const LIMITS: [&std::ffi::CStr; 8] = [
    c"memory.max",
    c"memory.high",
    c"memory.low",
    c"memory.swap.max",
    c"cpu.max",
    c"cpu.weight",
    c"cpuset.cpus",
    c"pids.max",
];

/// How many reports are read at one time.
const MOST_REPORTS: usize = 64;
/// How long an end that somebody else keeps is waited for, and how often it is looked for.
const WITHHELD_NS: u64 = 100_000_000;
pub(super) const WITHHELD_LOOK_NS: u64 = 20_000_000;
/// An end of which no more is known.
pub(super) const KILLED: End = End { status: 9, signaled: true, user_us: 0, system_us: 0, max_rss_kib: 0 };

#[derive(Debug, PartialEq, Eq)]
enum Start {
    /// It is on its way.
    Preparing,
    /// All is in place; the exec is next.
    Ready,
    /// The command runs, or ran.
    Executed,
    /// A step failed.
    Failed,
}

#[derive(Debug)]
pub(super) struct Command {
    pub(super) token: u64,
    pub(super) pid: u32,
    pub(super) pidfd: Fd,
    report: Fd,
    /// Where the moment of the exec is written, if it can be.
    executing: Option<&'static AtomicU64>,
    pub(super) stamps: Stamps,
    start: Start,
    told: bool,
    /// Whether the end of its reports wakes us.
    watched: bool,
    failure: Option<Error>,
    pub(super) isolation: Isolation,
    /// The terminal's master, and where it is sent.
    terminal: Option<Fd>,
    terminal_to: Option<Fd>,
    supervised: bool,
    pub(super) killed: u8,
    deadline: Option<u64>,
    /// Since when it is dead and its end is not ours to take: a process of its container traces it (ptrace(2)).
    withheld_since: Option<u64>,
    end: Option<End>,
    pub(super) ended: Ended,
}

/// How a command came to be.
#[derive(Debug)]
pub(super) struct Birth {
    pub(super) token: u64,
    pub(super) pid: u32,
    pub(super) pidfd: Fd,
    pub(super) report: Fd,
    pub(super) executing: Option<&'static AtomicU64>,
    pub(super) stamps: Stamps,
    /// What can be seen of it from outside.
    pub(super) isolation: Isolation,
    pub(super) timeout_ms: u64,
    pub(super) terminal_to: Option<Fd>,
    /// Whether its process is an init of ours, which ends as the command did: 128 and the signal.
    pub(super) supervised: bool,
}

/// It is gone, and said nothing.
pub(super) fn unready() -> Error {
    let message = "ended before it was ready: killed, or out of memory";
    Error::new(Code::Launch, Stage::SESSION, "init", message)
}

impl Command {
    pub(super) fn new(birth: Birth) -> Self {
        let Birth {
            token,
            pid,
            pidfd,
            report,
            executing,
            stamps,
            isolation,
            timeout_ms,
            terminal_to,
            supervised,
        } = birth;
        let deadline =
            (timeout_ms != 0).then(|| stamps.taken.saturating_add(timeout_ms.saturating_mul(1_000_000)));
        Self {
            token,
            pid,
            pidfd,
            report,
            executing,
            stamps,
            start: Start::Preparing,
            told: false,
            watched: false,
            failure: None,
            isolation,
            terminal: None,
            terminal_to,
            supervised,
            killed: CAUSE_NONE,
            deadline,
            withheld_since: None,
            end: None,
            ended: Ended::default(),
        }
    }

    /// Notes why it is killed: the first cause stands. False if it has ended.
    pub(super) fn note_kill(&mut self, cause: u8) -> bool {
        if self.end.is_some() {
            return false;
        }
        if self.killed == CAUSE_NONE {
            self.killed = cause;
        }
        true
    }

    pub(super) fn resize(&self, columns: u16, rows: u16) {
        if let Some(terminal) = &self.terminal {
            let _ = ioctl::set_window_size(terminal, columns, rows);
        }
    }

    /// Has the end of its reports wake us: with a terminal at once, since somebody waits for it.
    pub(super) fn watch_reports(&mut self, epoll: &Epoll, event: EpollEvent) {
        // If it cannot, the end of the process tells the same, later.
        let _ = epoll.add(&self.report, event);
        self.watched = true;
    }

    /// Whether it may have more to say, and nothing would wake us then.
    pub(super) fn is_unheard(&self) -> bool {
        !self.watched && self.end.is_none() && self.is_starting()
    }

    fn is_starting(&self) -> bool {
        matches!(self.start, Start::Preparing | Start::Ready)
    }

    /// Reads what it sent; the end of its socket is the exec. Answers the process that a joiner became, if it says so.
    pub(super) fn read_reports(&mut self, epoll: &Epoll, room: &mut [u8]) -> Option<u32> {
        let mut born = None;
        // Bounded: a container that may see into all its processes can send some, too.
        for _ in 0..MOST_REPORTS {
            if !self.is_starting() {
                break;
            }
            let received = match channel::receive::<Report>(&self.report, room, false) {
                // Its end, too: it was killed before it had read what it was told.
                Err(error) if error.errno == Some(Errno::ECONNRESET.raw()) => Ok(None),
                received => received,
            };
            match received {
                Ok(Some((Report::Ready { isolation, stamps }, descriptors))) => {
                    if self.start == Start::Preparing {
                        self.take_ready(isolation, stamps, descriptors);
                    }
                }
                Ok(Some((Report::Wanted { .. }, _))) => {}
                Ok(Some((Report::Born { pid }, _))) => born = born.or(Some(pid)),
                Ok(Some((Report::Executing { at }, _))) => self.stamps.executed = at,
                Ok(Some((Report::Failed { error }, _))) => self.fail(error),
                Ok(None) if self.start == Start::Ready => {
                    let moment = self.executing.map_or(0, |moment| moment.load(Ordering::Relaxed));
                    let moments = [moment, self.stamps.executed, clock::now()];
                    self.stamps.executed = moments.into_iter().find(|moment| *moment != 0).unwrap_or(0);
                    self.start = Start::Executed;
                }
                // Killed before the command began: that is how it ended, and no failure.
                Ok(None) if self.killed != CAUSE_NONE => self.start = Start::Failed,
                Ok(None) => self.fail(unready()),
                Err(error) if error.errno == Some(Errno::EAGAIN.raw()) => return born,
                Err(error) => self.fail(error),
            }
        }
        if !self.is_starting() && std::mem::take(&mut self.watched) {
            let _ = epoll.delete(&self.report);
        }
        born
    }

    fn take_ready(&mut self, isolation: Isolation, stamps: Stamps, descriptors: Vec<Fd>) {
        let seen = std::mem::replace(&mut self.isolation, isolation);
        (self.isolation.cgroup, self.isolation.limits) = (seen.cgroup, seen.limits);
        if !seen.namespaces.is_empty() {
            (self.isolation.namespaces, self.isolation.uid_map) = (seen.namespaces, seen.uid_map);
        }
        let mine = &mut self.stamps;
        (mine.born, mine.rooted, mine.ready) = (stamps.born, stamps.rooted, stamps.ready);
        self.terminal = descriptors.into_iter().next();
        self.start = Start::Ready;
    }

    pub(super) fn fail(&mut self, error: Error) {
        self.failure = self.failure.take().or(Some(error));
        self.start = Start::Failed;
    }

    /// Takes the end of its process, if that is here; `figures` are its group's: usage, and kills of the OOM killer.
    pub(super) fn reap(&mut self, epoll: &Epoll, figures: impl FnOnce() -> (Usage, u64)) {
        if self.end.is_some() {
            return;
        }
        let end = match process::reap(&self.pidfd) {
            Ok(None) => match self.withheld(epoll) {
                None => return,
                Some(end) => end,
            },
            Ok(Some(end)) => end,
            // Somebody else took it: what is known is that it is over.
            Err(_) => KILLED,
        };
        self.stamps.ended = clock::now();
        let _ = epoll.delete(&self.pidfd);
        self.over_with(end, figures());
    }

    /// What is made of one that is dead, and whose end its tracer keeps: it was killed, or it has failed. Nothing at first.
    fn withheld(&mut self, epoll: &Epoll) -> Option<End> {
        let mut asked = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        if !poll(&mut asked, PollTimeout::ZERO).is_ok_and(|answers| answers > 0) {
            return None;
        }
        let now = clock::now();
        if self.withheld_since.is_none() {
            // Its handle stays readable: it would wake us without end.
            let _ = epoll.delete(&self.pidfd);
        }
        let since = *self.withheld_since.get_or_insert(now);
        if now < since + WITHHELD_NS || off("traced") {
            return None;
        }
        if self.killed == CAUSE_NONE {
            let message = "a process of the container traces it, and keeps how it ended";
            self.fail(Error::new(Code::Launch, Stage::WATCH, "ptrace", message));
        }
        Some(KILLED)
    }

    /// Whether its tracer still has its end, so that it is to be looked at again until that is gone.
    pub(super) fn is_withheld(&self) -> bool {
        self.withheld_since.is_some() && matches!(process::reap(&self.pidfd), Ok(None))
    }

    /// How it ended.
    pub(super) fn over_with(&mut self, end: End, (usage, oom_kills): (Usage, u64)) {
        let by_kill = end.signaled && end.status == 9 || self.supervised && end.status == 128 + 9;
        self.end = Some(end);
        self.ended = Ended {
            status: end.status,
            signaled: end.signaled,
            killed: self.killed,
            oom: by_kill && oom_kills > 0,
            usage,
            rusage: (end.user_us, (end.system_us, end.max_rss_kib)),
            ..Ended::default()
        };
    }

    /// The event of its start, once the command runs: at once with a terminal, else after a moment.
    pub(super) fn started(&mut self, now: u64) -> Option<Event> {
        let terminal = self.terminal.is_some();
        let due = terminal || now >= self.stamps.taken + START_IS_TOLD_AFTER_NS;
        if self.told || self.start != Start::Executed || self.end.is_some() && !terminal || !due {
            return None;
        }
        self.told = true;
        if let (Some(master), Some(to)) = (&self.terminal, self.terminal_to.take()) {
            // An owner that does not take it has no terminal; that it is gone shows elsewhere.
            let _ = socket::send(&to, b"terminal", &[master], false);
        }
        Some(Event::Started { token: self.token, pid: self.pid, isolation: self.isolation.clone() })
    }

    /// Whether the command itself runs.
    pub(super) fn is_running(&self) -> bool {
        self.start == Start::Executed && self.end.is_none()
    }

    /// Whether its end is kept by a tracer, and is to be looked for.
    pub(super) fn is_dead(&self) -> bool {
        self.withheld_since.is_some()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    /// Whether its start failed for no reason of its own: then it is that of its container.
    pub(super) fn is_lost(&self) -> bool {
        self.failure.as_ref().is_some_and(|failure| *failure == unready())
    }

    /// Gives the failure of its start another reason.
    pub(super) fn blame(&mut self, error: Error) {
        self.failure = Some(error);
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// The last event, once nothing is left to do.
    pub(super) fn over(&mut self) -> Event {
        self.stamps.undone = clock::now();
        let token = self.token;
        if let Some(error) = self.failure.take() {
            return Event::Failed { token, error };
        }
        let mut end = std::mem::take(&mut self.ended);
        end.stamps = self.stamps;
        end.isolation = std::mem::take(&mut self.isolation);
        Event::Ended { token, end }
    }

    /// When it wants to be looked at again.
    pub(super) fn wakes_at(&self) -> Option<u64> {
        let told = (!self.told && self.start == Start::Executed || self.is_unheard())
            .then(|| self.stamps.taken + START_IS_TOLD_AFTER_NS);
        let withheld = self.withheld_since.map(|_| clock::now() + WITHHELD_LOOK_NS);
        [told, self.deadline, withheld].into_iter().flatten().min()
    }

    /// Whether its time is over; said once.
    pub(super) fn is_out_of_time(&mut self, now: u64) -> bool {
        let out = self.deadline.is_some_and(|deadline| deadline <= now);
        if out {
            self.deadline = None;
        }
        out
    }
}
