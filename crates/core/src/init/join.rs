//! Another command in a container that runs: a fresh exec of the sealed executable, which knows nothing but its own plan.
//!
//! It enters the container's namespaces and gives up every right that the command will not have while no process of the
//! container can see it: that of the pid namespace it enters for its children only. Then it forks once, as a sibling, and
//! what appears in the container has no descriptor of the host's and no right that the container lacks (CVE-2016-9962).

use super::{Given, Init, become_command};
use crate::channel::{self, Join, Report};
use crate::error::{At, Code, Error, Result, Stage};
use crate::off::off;
use crate::plan::LaunchPlan;
use crate::wire::Wire;
use caisson_sys::process::{self, namespace};
use caisson_sys::{Cwd, Descriptor, Errno, Fd, file, identity as rights, ioctl};
use nix::fcntl::OFlag;
use std::vec::IntoIter;

/// Does what comes by `socket`, as its shim's child. Does not return.
pub fn join(socket: Fd) -> ! {
    match enter(&socket) {
        Ok((plan, join, stdio, root)) => {
            let Join { hostname, own_stdio, ids, grouped, .. } = join;
            let gate =
                nix::unistd::pipe2(OFlag::O_CLOEXEC).ok().map(|(closed, open)| (closed.into(), open.into()));
            let given = Given {
                stdio,
                own_stdio,
                report: socket,
                hostname,
                ids,
                house: None,
                gathers: !grouped,
                gate,
            };
            become_command(plan, given, Some(root), c"caisson-exec")
        }
        Err(error) => {
            let _ = file::write_all(&socket, &Report::Failed { error }.to_bytes());
            caisson_sys::exit(1)
        }
    }
}

/// Plan, message, stdio and the container's root, with all namespaces entered.
fn enter(socket: &Fd) -> Result<(LaunchPlan, Join, Vec<Fd>, Fd)> {
    let stage = Stage::CLONE;
    undumpable()?;
    // It is killed with its shim, which alone knows of it.
    rights::set_parent_death_signal(9).at(stage, "prctl")?;
    let mut room = vec![0; channel::MAX_MESSAGE];
    let wrong = || Error::new(Code::RuntimeMismatch, Stage::CHANNEL, "join", "has no plan or no container");
    let (join, descriptors) = channel::receive::<Join>(socket, &mut room, true)?.ok_or_else(wrong)?;
    if process::parent() != join.shim {
        caisson_sys::exit(1);
    }
    let mut descriptors: IntoIter<Fd> = descriptors.into_iter();
    let (Some(plan), Some(container)) = (descriptors.next(), descriptors.next()) else { return Err(wrong()) };
    let plan = LaunchPlan::open(&plan)?;

    // All at once: what fails half-way has entered nothing (setns(2)). The cgroup namespace is not the container's, whose
    // root is the first process's group: it is one of this process's own group.
    let kinds = join.namespaces & !namespace::CGROUP;
    match process::setns(&container, kinds) {
        Err(Errno::ESRCH) => return Err(not_running()),
        entered => entered.at(stage, "setns")?,
    }
    drop(container);
    if join.namespaces & namespace::CGROUP != 0 {
        process::unshare(namespace::CGROUP).at(stage, "unshare")?;
    }
    let root = file::openat2(Cwd, c"/", file::open::PATH | file::open::DIRECTORY, 0, 0).at(stage, "/")?;
    Ok((plan, join, descriptors.collect(), root))
}

fn not_running() -> Error {
    Error::new(Code::NotRunning, Stage::CLONE, "container", "the container is not running")
}

/// Every change of ids, and of capabilities with a user namespace, may undo it (PR_SET_DUMPABLE(2const)).
fn undumpable() -> Result<()> {
    if off("dumpable") {
        return Ok(());
    }
    rights::set_dumpable(false).at(Stage::CLONE, "prctl")
}

impl Init {
    /// What goes on from here is a process of the container's, and a child of the shim's.
    pub(super) fn appear(&mut self) -> Result<()> {
        let stage = Stage::CLONE;
        undumpable()?;
        // The container's own root goes before: descriptors are seen by who may see into the process.
        self.root = None;
        self.proc = None;
        let gate = self.given.gate.take();
        let pid = match process::fork_sibling() {
            // The first process of the pid namespace has ended, and nobody is born in it any more (pid_namespaces(7)).
            Err(Errno::ENOMEM) => return Err(not_running()),
            forked => forked.at(stage, "clone")?,
        };
        if pid != 0 {
            let told = file::write_all(&self.given.report, &Report::Born { pid }.to_bytes());
            if let (Ok(()), Some((_, open))) = (&told, &gate) {
                let _ = file::write_all(open, b"1");
            }
            caisson_sys::exit(i32::from(told.is_err()));
        }
        // Until the shim has been told who this is, it finds it by the process group, which is the joiner's.
        if let Some((closed, open)) = gate {
            drop(open);
            if file::read_into(&closed, &mut [0]).map_or(true, |read| read.is_empty()) {
                caisson_sys::exit(1);
            }
        }
        // A session of its own, so that a terminal's signals reach it; the terminal goes with it.
        process::setsid().at(stage, "setsid")?;
        if self.given.gathers {
            rights::set_subreaper().at(stage, "prctl")?;
        }
        match self.terminal.take() {
            Some((_, peer)) => ioctl::take_terminal(&peer as &dyn Descriptor).at(Stage::TERMINAL, "terminal"),
            None => Ok(()),
        }
    }
}
