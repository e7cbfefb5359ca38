//! Another command in a container: first a joiner, which enters, then the process that it became.

use super::command::{Birth, Command, KILLED, LIMITS, WITHHELD_LOOK_NS, unready};
use super::container::Container;
use super::tree;
use caisson_core::cgroup::Member;
use caisson_core::cgroup::stats::{self, Usage};
use caisson_core::channel::{CAUSE_NONE, Event, Exec as Wanted, Isolation};
use caisson_core::clock;
use caisson_core::launch::Launcher;
use caisson_core::{Code, Error, Result, Stage, isolation};
use caisson_sys::Fd;
use caisson_sys::process;
use nix::sys::epoll::Epoll;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

/// How long what was killed is waited for.
const PATIENCE_NS: u64 = 10_000_000_000;
/// How long a group that is busy after its command's natural end is tried again: a process that has just been reaped still
/// counts for a moment, and one that stays behind is left to the container.
const MOMENT_NS: u64 = 20_000_000;

/// How long a joiner may take that is to be killed: it may hang in a file system of the container's.
const JOINER_NS: u64 = 1_000_000_000;

#[derive(Debug)]
pub(super) struct Exec {
    pub(super) command: Command,
    /// The container's number.
    pub(super) container: u64,
    /// The id map that it shares with its container and the shim.
    uid_map: String,
    /// The container's namespaces, its cgroup's apart.
    namespaces: Vec<(String, u64)>,
    group: Option<Member>,
    joining: Joining,
    joiner: u32,
    /// What it is to be sent once it is there.
    signals: Vec<i32>,
    /// When a joiner that is to be killed is waited for no longer.
    joiner_until: Option<u64>,
    /// Since when its group is busy after its end.
    busy_since: Option<u64>,
    removed: bool,
    done: bool,
    told: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Joining {
    /// The command's pidfd is the joiner's.
    Under,
    /// It is the command's own.
    Over,
}

impl Exec {
    pub(super) fn start(
        launcher: &Launcher,
        container: &mut Container,
        wanted: &Wanted,
        (plan, stdio): (&Fd, &[Fd]),
        terminal_to: Option<Fd>,
    ) -> Result<Self> {
        // Before its command runs its first process may still be in the host's mount namespace.
        if !container.command.is_running() {
            return Err(Error::new(
                Code::NotRunning,
                Stage::CLONE,
                "container",
                "the container is not running",
            ));
        }
        let first = (&container.command.pidfd, container.namespaces);
        let group = container.made.cgroup.as_mut();
        let joining = launcher.exec(group, first, wanted, (plan, stdio))?;
        let mut isolation = Isolation::default();
        if let Some(group) = &joining.group {
            isolation.cgroup = group.path.to_string_lossy().into_owned();
            isolation.limits = stats::limits_held(&group.fd, &LIMITS);
        }
        let birth = Birth {
            token: wanted.token,
            pid: 0,
            pidfd: joining.pidfd,
            report: joining.report,
            executing: None,
            stamps: joining.stamps,
            isolation,
            timeout_ms: wanted.timeout_ms,
            terminal_to,
            supervised: false,
        };
        Ok(Self {
            command: Command::new(birth),
            container: wanted.container,
            uid_map: launcher.uid_map().to_owned(),
            namespaces: container.shared_namespaces(),
            group: joining.group,
            joining: Joining::Under,
            joiner: joining.pid,
            signals: Vec::new(),
            joiner_until: None,
            busy_since: None,
            removed: false,
            done: false,
            told: false,
        })
    }

    /// Kills it and all its children. The first cause stands.
    pub(super) fn kill(&mut self, cause: u8) {
        if self.command.note_kill(cause) {
            self.kill_all();
        }
    }

    fn kill_all(&mut self) {
        match &self.group {
            Some(group) => drop(group.kill()),
            // A joiner that is killed now may have become the command already, and could not say so.
            None if self.joining == Joining::Under => self.joiner_until = Some(clock::now() + JOINER_NS),
            None => tree::kill(self.command.pid, &self.command.pidfd),
        }
    }

    /// Ends a joiner that was waited for long enough.
    pub(super) fn look_at_joiner(&mut self, now: u64) {
        if self.joiner_until.is_some_and(|until| until <= now) {
            self.joiner_until = None;
            if self.joining == Joining::Under {
                let _ = process::send_signal(&self.command.pidfd, 9);
            }
        }
    }

    pub(super) fn usage(&self) -> Option<Usage> {
        let usage = || self.group.as_ref().map(|group| stats::usage(&group.fd)).unwrap_or_default();
        (!self.command.has_ended()).then(usage)
    }

    /// Sends it a signal, once it is there.
    pub(super) fn signal(&mut self, signal: i32) {
        if self.joining == Joining::Under {
            self.signals.push(signal);
        } else {
            let _ = process::send_signal(&self.command.pidfd, signal);
        }
    }

    /// Reads its reports; with the news of the process that it became, that one is held. Answers whether it is a new one
    /// that must be watched.
    pub(super) fn read_reports(&mut self, epoll: &Epoll, room: &mut [u8]) -> bool {
        let Some(pid) = self.command.read_reports(epoll, room) else { return false };
        if self.joining == Joining::Over {
            return false;
        }
        match held(pid, self.pid_namespace()) {
            Ok(pidfd) => {
                let joiner = std::mem::replace(&mut self.command.pidfd, pidfd);
                let _ = epoll.delete(&joiner);
                // It wrote that and ends.
                while let Ok(None) = process::reap(&joiner) {
                    std::thread::yield_now();
                }
                self.command.pid = pid;
                self.joining = Joining::Over;
                let seen = isolation::namespaces_of(&self.command.pidfd);
                self.command.isolation.namespaces = seen.unwrap_or_else(|| self.namespaces.clone());
                self.command.isolation.uid_map.clone_from(&self.uid_map);
                for signal in std::mem::take(&mut self.signals) {
                    self.signal(signal);
                }
                if self.command.killed != CAUSE_NONE {
                    self.kill_all();
                }
                true
            }
            Err(error) => {
                self.command.fail(error);
                false
            }
        }
    }

    /// Whether what it is so far has ended. To be asked before its reports are read: they are complete then.
    pub(super) fn joiner_has_ended(&self) -> bool {
        self.joining == Joining::Under && process::has_ended(&self.command.pidfd) != Ok(false)
    }

    /// Takes the end of its process. That of a joiner which became nothing is the end of all; one that was killed as it
    /// became something could not say so, and what it became would keep the container's first process from ending.
    pub(super) fn reap(&mut self, epoll: &Epoll, joiner_ended: bool) {
        if self.joining == Joining::Under {
            if !joiner_ended {
                return;
            }
            end_group(self.joiner);
        }
        let group = self.group.as_ref();
        let figures = || match group {
            Some(group) => (stats::usage(&group.fd), stats::oom_kills(&group.fd)),
            None => (Usage::default(), 0),
        };
        self.command.reap(epoll, figures);
        if self.joining == Joining::Under && self.command.has_ended() && self.command.killed == CAUSE_NONE {
            self.command.fail(unready());
        }
    }

    /// Its pid namespace's number; 0 where it is not known.
    fn pid_namespace(&self) -> u64 {
        self.namespaces.iter().find(|(name, _)| name == "pid").map_or(0, |(_, inode)| *inode)
    }

    /// Whether it cannot be watched, and is given up.
    pub(super) fn abandon(&mut self) {
        self.kill(CAUSE_NONE);
        if self.joining == Joining::Under {
            let _ = process::send_signal(&self.command.pidfd, 9);
            end_group(self.joiner);
        }
        self.command.fail(Error::new(Code::Launch, Stage::WATCH, "epoll", "it cannot be watched"));
        self.command.over_with(KILLED, (Usage::default(), 0));
    }

    /// After its end: what was killed goes with its group; what stays behind otherwise is the container's.
    pub(super) fn undo(&mut self) {
        let Some(group) = self.group.as_ref().filter(|_| !self.done) else {
            self.done = true;
            return;
        };
        let now = clock::now();
        let since = *self.busy_since.get_or_insert(now);
        let killed = self.command.killed != CAUSE_NONE;
        match group.remove() {
            Ok(true) => (self.done, self.removed) = (true, true),
            Ok(false) if killed => {
                let _ = group.kill();
                self.done = now >= since + PATIENCE_NS;
            }
            Ok(false) => self.done = now >= since + MOMENT_NS,
            Err(error) => {
                self.command.ended.left = Some(error);
                self.done = true;
            }
        }
    }

    /// The last event, once.
    pub(super) fn over(&mut self) -> Option<Event> {
        (self.done && !std::mem::replace(&mut self.told, self.done)).then(|| self.command.over())
    }

    pub(super) const fn is_told(&self) -> bool {
        self.told
    }

    /// Whether it was told, and its process is there all the same: it has to be taken before the container can end.
    pub(super) fn lingers(&self) -> bool {
        self.told && self.command.is_withheld()
    }

    /// Its group, if that could not be removed: something that it left behind is in it.
    pub(super) fn leftover(&mut self) -> Option<Member> {
        self.group.take_if(|_| !self.removed)
    }

    pub(super) fn wakes_at(&self, now: u64, retry: u64) -> Option<u64> {
        if self.told {
            return Some(now + WITHHELD_LOOK_NS);
        }
        if self.command.has_ended() {
            return Some(now + retry);
        }
        [self.command.wakes_at(), self.joiner_until].into_iter().flatten().min()
    }

    pub(super) fn is_due(&self, now: u64) -> bool {
        self.command.has_ended()
            || self.command.is_dead()
            || self.wakes_at(now, 1).is_some_and(|at| at <= now)
    }
}

/// Kills what a joiner left in its group and takes all ends, its own too.
fn end_group(joiner: u32) {
    let _ = process::kill_group(joiner);
    for _ in 0..2_000 {
        match process::reap_group(joiner) {
            Ok(true) => {}
            Ok(false) => std::thread::sleep(std::time::Duration::from_micros(500)),
            Err(_) => return,
        }
    }
}

/// The handle of a child of ours by its id, which cannot come to mean another process before we have taken its end. What
/// says the id may be the container's by now: it must be a child.
///
/// `namespace` is the container's pid namespace: another container's process is no command of this one.
fn held(pid: u32, namespace: u64) -> Result<Fd> {
    let failed = |message: &str| Error::new(Code::Launch, Stage::CLONE, "joiner", message);
    let pidfd = process::pidfd_open(pid).map_err(|errno| failed(&errno.to_string()))?;
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    if waitid(Id::PIDFd(pidfd.as_fd()), look) == Err(nix::errno::Errno::ECHILD) {
        return Err(failed("became no child of the shim's"));
    }
    // Of one that is over already nothing can be read, and nothing done to.
    let own = fs::metadata(format!("/proc/{pid}/ns/pid")).map(|link| link.ino());
    if own.is_ok_and(|own| namespace != 0 && own != namespace) {
        return Err(failed("became no process of the container's"));
    }
    Ok(pidfd)
}
