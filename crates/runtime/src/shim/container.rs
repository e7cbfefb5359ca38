//! One container in the shim's hands: from its clone to the last thing taken down.

use caisson_core::cgroup::Cgroup;
use caisson_core::cgroup::stats::Usage;
use caisson_core::channel::{self, CAUSE_NONE, Ended, Event, Isolation, Report};
use caisson_core::clock;
use caisson_core::launch::{Launcher, Running, Undo};
use caisson_core::{Code, Error, Stage};
use caisson_sys::process::{self, End};
use caisson_sys::{Fd, ioctl, socket};
use nix::sys::epoll::{Epoll, EpollEvent};
use std::sync::atomic::Ordering;

/// How long after its launch a start is looked at and told. A run that is over by then wakes us once, at its end, and its
/// owner once.
const START_IS_TOLD_AFTER_NS: u64 = 3_000_000;
/// cgroup files whose values `isolation` reports.
const LIMITS: [&std::ffi::CStr; 8] = [
    c"memory.max",
    c"memory.high",
    c"memory.low",
    c"memory.swap.max",
    c"cpu.max",
    c"cpu.weight",
    c"cpuset.cpus",
    c"pids.max",
];

#[derive(Debug, PartialEq, Eq)]
enum Start {
    /// Init works.
    Preparing,
    /// Init was ready; the exec is next.
    Ready,
    /// The command runs, or ran.
    Executed,
    /// A step failed.
    Failed,
}

#[derive(Debug)]
enum Undoing {
    NotYet,
    Busy { since: u64 },
    Removing { remover: Fd, watched: bool },
    Done,
}

#[derive(Debug)]
pub(super) struct Container {
    pub(super) running: Running,
    start: Start,
    told: bool,
    /// Whether the end of init's reports wakes us.
    watched: bool,
    failure: Option<Error>,
    isolation: Isolation,
    /// The terminal's master, and where it is sent.
    terminal: Option<Fd>,
    terminal_to: Option<Fd>,
    killed: u8,
    deadline: Option<u64>,
    end: Option<End>,
    ended: Ended,
    undoing: Undoing,
}

impl Container {
    /// Reads what its parent can see of it, while init is at work.
    pub(super) fn new(mut running: Running, timeout_ms: u64, terminal_to: Option<Fd>) -> Self {
        let mut isolation = running.isolation.take().unwrap_or_default();
        if let Some(group) = &running.made.cgroup {
            isolation.cgroup = group.path.to_string_lossy().into_owned();
            isolation.limits = group.limits_held(&LIMITS);
        }
        let deadline = (timeout_ms != 0)
            .then(|| running.stamps.taken.saturating_add(timeout_ms.saturating_mul(1_000_000)));
        Self {
            running,
            start: Start::Preparing,
            told: false,
            watched: false,
            failure: None,
            isolation,
            terminal: None,
            terminal_to,
            killed: CAUSE_NONE,
            deadline,
            end: None,
            ended: Ended::default(),
            undoing: Undoing::NotYet,
        }
    }

    /// Kills everything in it. The first cause stands.
    pub(super) fn kill(&mut self, cause: u8) {
        if self.end.is_some() {
            return;
        }
        if self.killed == CAUSE_NONE {
            self.killed = cause;
        }
        // Without a group its pid namespace does: all in it die with its first process.
        let _ = match &self.running.made.cgroup {
            Some(group) => group.kill(),
            None => process::send_signal(&self.running.pidfd, 9),
        };
    }

    pub(super) fn resize(&self, columns: u16, rows: u16) {
        if let Some(terminal) = &self.terminal {
            let _ = ioctl::set_window_size(terminal, columns, rows);
        }
    }

    pub(super) fn usage(&self) -> Option<Usage> {
        let group = self.running.made.cgroup.as_ref();
        // Without a group there are no figures, which is not the same as none of a container that ended.
        self.end.is_none().then(|| group.map(Cgroup::usage).unwrap_or_default())
    }

    /// Has the end of init's reports wake us: with a terminal at once, since somebody waits for it.
    pub(super) fn watch_reports(&mut self, epoll: &Epoll, event: EpollEvent) {
        // If it cannot, the end of the process tells the same, later.
        let _ = epoll.add(&self.running.report, event);
        self.watched = true;
    }

    /// Whether init may have more to say, and nothing would wake us then.
    pub(super) fn is_unheard(&self) -> bool {
        !self.watched && self.end.is_none() && matches!(self.start, Start::Preparing | Start::Ready)
    }

    /// Reads what init sent; the end of its socket is the exec.
    pub(super) fn read_reports(&mut self, epoll: &Epoll, room: &mut [u8]) {
        while matches!(self.start, Start::Preparing | Start::Ready) {
            match channel::receive::<Report>(&self.running.report, room, false) {
                Ok(Some((Report::Ready { isolation, stamps }, descriptors))) => {
                    let seen = std::mem::replace(&mut self.isolation, isolation);
                    (self.isolation.cgroup, self.isolation.limits) = (seen.cgroup, seen.limits);
                    if !seen.namespaces.is_empty() {
                        (self.isolation.namespaces, self.isolation.uid_map) = (seen.namespaces, seen.uid_map);
                    }
                    let mine = &mut self.running.stamps;
                    (mine.born, mine.rooted, mine.ready) = (stamps.born, stamps.rooted, stamps.ready);
                    self.terminal = descriptors.into_iter().next();
                    self.start = Start::Ready;
                }
                Ok(Some((Report::Failed { error }, _))) => {
                    self.failure = Some(error);
                    self.start = Start::Failed;
                }
                Ok(None) if self.start == Start::Ready => {
                    let moment = self.running.executing.load(Ordering::Relaxed);
                    self.running.stamps.executed = if moment == 0 { clock::now() } else { moment };
                    self.start = Start::Executed;
                }
                // Killed before the command began: that is how it ended, and no failure.
                Ok(None) if self.killed != CAUSE_NONE => self.start = Start::Failed,
                Ok(None) => {
                    let message = "init ended before it was ready: killed, or out of memory";
                    self.failure = Some(Error::new(Code::Launch, Stage::SESSION, "init", message));
                    self.start = Start::Failed;
                }
                Err(error) if error.errno == Some(caisson_sys::Errno::EAGAIN.raw()) => return,
                Err(error) => {
                    self.failure = Some(error);
                    self.start = Start::Failed;
                }
            }
        }
        if std::mem::take(&mut self.watched) {
            let _ = epoll.delete(&self.running.report);
        }
    }

    /// Takes the end of the main process.
    pub(super) fn reap(&mut self, epoll: &Epoll) {
        if self.end.is_some() {
            return;
        }
        let end = match process::reap(&self.running.pidfd) {
            Ok(None) => return,
            Ok(Some(end)) => end,
            // Somebody else took it: what is known is that it is over.
            Err(_) => End { status: 9, signaled: true, user_us: 0, system_us: 0, max_rss_kib: 0 },
        };
        self.end = Some(end);
        self.running.stamps.ended = clock::now();
        let _ = epoll.delete(&self.running.pidfd);
        let group = self.running.made.cgroup.as_ref();
        let killed_by_kill = end.signaled && end.status == 9;
        self.ended = Ended {
            status: end.status,
            signaled: end.signaled,
            killed: self.killed,
            oom: killed_by_kill && group.is_some_and(|group| group.main_oom_kills() > 0),
            usage: group.map(Cgroup::usage).unwrap_or_default(),
            rusage: (end.user_us, (end.system_us, end.max_rss_kib)),
            ..Ended::default()
        };
    }

    /// The event of its start, once the command runs: at once with a terminal, else after a moment.
    pub(super) fn started(&mut self, now: u64) -> Option<Event> {
        let terminal = self.terminal.is_some();
        let due = terminal || now >= self.running.stamps.taken + START_IS_TOLD_AFTER_NS;
        if self.told || self.start != Start::Executed || self.end.is_some() && !terminal || !due {
            return None;
        }
        self.told = true;
        if let (Some(master), Some(to)) = (&self.terminal, self.terminal_to.take()) {
            // An owner that does not take it has no terminal; that it is gone shows elsewhere.
            let _ = socket::send(&to, b"terminal", &[master], false);
        }
        Some(Event::Started {
            token: self.running.token,
            pid: self.running.pid,
            isolation: self.isolation.clone(),
        })
    }

    pub(super) fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    pub(super) fn undo(&mut self, launcher: &Launcher, patience: u64) {
        let since = match &self.undoing {
            Undoing::NotYet => clock::now(),
            Undoing::Busy { since } => *since,
            Undoing::Removing { .. } | Undoing::Done => return self.finish_removal(launcher),
        };
        if matches!(self.undoing, Undoing::Busy { .. })
            && let Some(group) = &self.running.made.cgroup
        {
            // With a pid namespace everything died with its init; what still counts is on its way out, or was moved in.
            let _ = group.kill();
        }
        self.undoing = match launcher.undo(&self.running.made) {
            Ok(Undo::Done) => Undoing::Done,
            Ok(Undo::Removing(remover)) => Undoing::Removing { remover, watched: false },
            Ok(Undo::Busy) if clock::now() < since + patience => Undoing::Busy { since },
            Ok(Undo::Busy) => {
                self.ended.left =
                    Some(Error::new(Code::Launch, Stage::UNDO, &self.isolation.cgroup, "still busy"));
                Undoing::Done
            }
            Err(error) => {
                self.ended.left = Some(error);
                Undoing::Done
            }
        };
    }

    fn finish_removal(&mut self, launcher: &Launcher) {
        if let Undoing::Done = self.undoing
            && self.ended.left.is_none()
            && let Err(error) = launcher.finish(&self.running.made)
        {
            self.ended.left = Some(error);
        }
    }

    /// A process that removes files and is not watched yet.
    pub(super) fn new_remover(&mut self) -> Option<&Fd> {
        match &mut self.undoing {
            Undoing::Removing { remover, watched } if !*watched => {
                *watched = true;
                Some(remover)
            }
            _ => None,
        }
    }

    pub(super) fn give_up_remover(&mut self) {
        self.undoing = Undoing::Done;
    }

    pub(super) fn take_remover(&mut self, epoll: &Epoll) {
        if let Undoing::Removing { remover, .. } = &self.undoing {
            let end = process::reap(remover);
            let _ = epoll.delete(remover);
            if !matches!(end, Ok(Some(End { status: 0, signaled: false, .. }))) {
                let message = "its files could not all be removed";
                self.ended.left = Some(Error::new(Code::Launch, Stage::UNDO, "layer", message));
            }
            self.undoing = Undoing::Done;
        }
    }

    /// The last event, once nothing is left to do.
    pub(super) fn over(&mut self) -> Option<Event> {
        if !matches!(self.undoing, Undoing::Done) {
            return None;
        }
        self.running.stamps.undone = clock::now();
        let token = self.running.token;
        if let Some(error) = self.failure.take() {
            return Some(Event::Failed { token, error });
        }
        let mut end = std::mem::take(&mut self.ended);
        end.stamps = self.running.stamps;
        end.isolation = std::mem::take(&mut self.isolation);
        Some(Event::Ended { token, end })
    }

    /// When this container wants to be looked at again.
    pub(super) fn wakes_at(&self, now: u64, retry: u64) -> Option<u64> {
        match self.undoing {
            Undoing::Busy { .. } => return Some(now + retry),
            Undoing::Removing { .. } | Undoing::Done => return None,
            Undoing::NotYet => {}
        }
        let told = (!self.told && self.start == Start::Executed || self.is_unheard())
            .then(|| self.running.stamps.taken + START_IS_TOLD_AFTER_NS);
        [told, self.deadline].into_iter().flatten().min()
    }

    pub(super) fn is_due(&self, now: u64) -> bool {
        matches!(self.undoing, Undoing::Busy { .. }) || self.wakes_at(now, 1).is_some_and(|at| at <= now)
    }

    pub(super) fn kill_at_deadline(&mut self, now: u64, cause: u8) {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.deadline = None;
            self.kill(cause);
        }
    }
}
