//! A container in the shim's hands: its first process, and what must be taken down after that.

use super::command::{Birth, Command, LIMITS};
use caisson_core::cgroup::Member;
use caisson_core::cgroup::stats::{self, Usage};
use caisson_core::channel::{Ended, Event, Listed};
use caisson_core::clock;
use caisson_core::launch::{Launcher, Made, Running, Undo};
use caisson_core::layers::Held;
use caisson_core::{At, Code, Error, Result, Stage};
use caisson_sys::Fd;
use caisson_sys::process::{self, End};
use nix::sys::epoll::Epoll;

/// How often groups in which something is left are looked at.
const SWEEP_NS: u64 = 1_000_000_000;
/// How long those who read a container's files are waited for once it has ended.
const READERS_NS: u64 = 5_000_000_000;

#[derive(Debug)]
enum Undoing {
    NotYet,
    Busy { since: u64 },
    Removing { remover: Fd, watched: bool },
    Done,
}

#[derive(Debug)]
pub(super) struct Container {
    pub(super) command: Command,
    pub(super) made: Made,
    /// Which namespaces are its own, as clone's flags.
    pub(super) namespaces: u64,
    id: String,
    about: String,
    /// Groups of commands that are over, in which something is left.
    stale: Vec<Member>,
    sweep_at: u64,
    undoing: Undoing,
    /// How many read its files; how many of them have it stopped.
    readers: usize,
    pausers: usize,
    /// Until when they are waited for, since it has ended.
    readers_until: Option<u64>,
    /// Nobody removes its image before it is gone.
    layer: Option<Held>,
}

impl Container {
    /// Reads what its parent can see of it, while init is at work.
    pub(super) fn new(
        running: Running,
        timeout_ms: u64,
        terminal_to: Option<Fd>,
        layer: Option<Held>,
    ) -> Self {
        let Running { token, pid, pidfd, report, executing, isolation, made, namespaces, .. } = running;
        let Running { id, about, supervised, stamps, .. } = running;
        let mut isolation = isolation.unwrap_or_default();
        if let Some(group) = &made.cgroup {
            isolation.cgroup = group.path.to_string_lossy().into_owned();
            isolation.limits = stats::limits_held(&group.whole, &LIMITS);
        }
        let executing = Some(executing);
        let birth = Birth {
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
        };
        Self {
            command: Command::new(birth),
            made,
            namespaces,
            id,
            about,
            stale: Vec::new(),
            sweep_at: 0,
            undoing: Undoing::NotYet,
            readers: 0,
            pausers: 0,
            readers_until: None,
            layer,
        }
    }

    /// Kills everything in it. The first cause stands.
    pub(super) fn kill(&mut self, cause: u8) {
        if !self.command.note_kill(cause) {
            return;
        }
        // Without a group its pid namespace does: all in it die with its first process.
        let _ = match &self.made.cgroup {
            Some(group) => group.kill(),
            None => process::send_signal(&self.command.pidfd, 9),
        };
    }

    /// Keeps a group in which something is left, until it is empty.
    pub(super) fn keep(&mut self, group: Member) {
        self.stale.push(group);
        self.sweep_at = clock::now() + SWEEP_NS;
    }

    /// Removes the groups that are empty by now.
    pub(super) fn sweep(&mut self, now: u64) {
        if !self.stale.is_empty() && self.sweep_at <= now {
            self.stale.retain(|group| matches!(group.remove(), Ok(false)));
            self.sweep_at = now + SWEEP_NS;
        }
    }

    /// The namespaces that its other commands are in.
    pub(super) fn shared_namespaces(&self) -> Vec<(String, u64)> {
        let namespaces = self.command.isolation.namespaces.iter();
        namespaces.filter(|(name, _)| name != "cgroup").cloned().collect()
    }

    /// For other programs.
    pub(super) fn listed(&self) -> Listed {
        Listed {
            container: self.command.token,
            id: self.id.clone(),
            pid: self.command.pid,
            about: self.about.clone(),
            isolation: self.command.isolation.clone(),
        }
    }

    pub(super) fn usage(&self) -> Option<Usage> {
        // Without a group there are no figures, which is not the same as none of a container that ended.
        let group = self.made.cgroup.as_ref();
        let usage = || group.map(|group| stats::usage(&group.whole)).unwrap_or_default();
        (!self.command.has_ended()).then(usage)
    }

    /// Takes the end of the main process.
    pub(super) fn reap(&mut self, epoll: &Epoll) {
        let group = self.made.cgroup.as_ref();
        self.command.reap(epoll, || match group {
            Some(group) => (stats::usage(&group.whole), stats::oom_kills(&group.main)),
            None => (Usage::default(), 0),
        });
    }

    /// From now on somebody reads its files, for as long as which they stay; with `pause` all in it is stopped, if it has a
    /// group. Answers whether it is: [`cgroup::is_frozen`] says when.
    ///
    /// # Errors
    /// As a write to cgroup.freeze.
    pub(super) fn read(&mut self, pause: bool) -> Result<bool> {
        let group = self.made.cgroup.as_ref().filter(|_| pause);
        if let Some(group) = group.filter(|_| self.pausers == 0) {
            group.freeze(true).at(Stage::CGROUP, "cgroup.freeze")?;
        }
        let paused = group.is_some();
        self.readers += 1;
        self.pausers += usize::from(paused);
        Ok(paused)
    }

    /// One of those who read it is at its end.
    pub(super) fn was_read(&mut self, paused: bool) {
        self.readers -= 1;
        self.pausers -= usize::from(paused);
        if let (true, 0, Some(group)) = (paused, self.pausers, &self.made.cgroup) {
            let _ = group.freeze(false);
        }
    }

    /// Whether those who read it were waited for long enough; said once.
    pub(super) fn is_read_too_long(&mut self, now: u64) -> bool {
        let long = self.readers_until.is_some_and(|until| until <= now);
        if long {
            // They are killed, and their end is what is waited for now.
            self.readers_until = Some(u64::MAX);
        }
        long
    }

    fn ended(&mut self) -> &mut Ended {
        &mut self.command.ended
    }

    pub(super) fn undo(&mut self, launcher: &Launcher, patience: u64) {
        if self.readers > 0 && matches!(self.undoing, Undoing::NotYet) {
            self.readers_until.get_or_insert_with(|| clock::now() + READERS_NS);
            return;
        }
        let since = match &self.undoing {
            Undoing::NotYet => clock::now(),
            Undoing::Busy { since } => *since,
            Undoing::Removing { .. } | Undoing::Done => return self.finish_removal(launcher),
        };
        if matches!(self.undoing, Undoing::Busy { .. })
            && let Some(group) = &self.made.cgroup
        {
            // With a pid namespace everything died with its init; what still counts is on its way out, or was moved in.
            let _ = group.kill();
        }
        self.undoing = match launcher.undo(&self.made) {
            Ok(Undo::Done) => Undoing::Done,
            Ok(Undo::Removing(remover)) => Undoing::Removing { remover, watched: false },
            Ok(Undo::Busy) if clock::now() < since + patience => Undoing::Busy { since },
            Ok(Undo::Busy) => {
                let busy =
                    Error::new(Code::Launch, Stage::UNDO, &self.command.isolation.cgroup, "still busy");
                self.ended().left = Some(busy);
                Undoing::Done
            }
            Err(error) => {
                self.ended().left = Some(error);
                Undoing::Done
            }
        };
    }

    fn finish_removal(&mut self, launcher: &Launcher) {
        if let Undoing::Done = self.undoing
            && self.ended().left.is_none()
            && let Err(error) = launcher.finish(&self.made)
        {
            self.ended().left = Some(error);
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
                self.ended().left = Some(Error::new(Code::Launch, Stage::UNDO, "layer", message));
            }
            self.undoing = Undoing::Done;
        }
    }

    /// The last event, once nothing is left to do.
    pub(super) fn over(&mut self) -> Option<Event> {
        matches!(self.undoing, Undoing::Done).then(|| {
            // Before it is told: who hears it may remove the image.
            self.layer = None;
            self.command.over()
        })
    }

    /// When this container wants to be looked at again.
    pub(super) fn wakes_at(&self, now: u64, retry: u64) -> Option<u64> {
        match self.undoing {
            Undoing::Busy { .. } => Some(now + retry),
            Undoing::Removing { .. } | Undoing::Done => None,
            Undoing::NotYet => {
                let sweep = (!self.stale.is_empty()).then_some(self.sweep_at);
                [self.command.wakes_at(), sweep, self.readers_until].into_iter().flatten().min()
            }
        }
    }

    pub(super) fn is_due(&self, now: u64) -> bool {
        matches!(self.undoing, Undoing::Busy { .. })
            || self.command.is_dead() && !self.command.has_ended()
            || self.wakes_at(now, 1).is_some_and(|at| at <= now)
    }
}
