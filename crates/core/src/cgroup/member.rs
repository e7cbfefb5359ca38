//! `C/x-N`: the group of one more command in a container, with its own figures and the container's limits.

use super::{Cgroup, GROUP_MODE, limits, open_group, read, remove_group, write};
use crate::error::{At, Result, Stage};
use caisson_sys::{Errno, Fd};
use nix::sys::stat::mkdirat;
use std::ffi::CString;
use std::path::PathBuf;

/// A group below a container's.
#[derive(Debug)]
pub struct Member {
    /// Its directory.
    pub fd: Fd,
    /// Its path, for people.
    pub path: PathBuf,
    whole: Fd,
    name: CString,
}

impl Cgroup {
    /// Makes the next `x-N`. The first one has the container hand down whatever controllers it has, so that each has
    /// figures of its own; `C/` itself holds no process, so nothing is in the way.
    ///
    /// # Errors
    /// As mkdir(2); as a write of one of the container's limits.
    pub fn add(&mut self) -> Result<Member> {
        if self.members == 0 {
            self.hand_down();
        }
        self.members += 1;
        let name = CString::new(format!("x-{}", self.members)).unwrap_or_default();
        let path = self.path.join(name.to_string_lossy().as_ref());
        let at = || path.to_string_lossy().into_owned();
        mkdirat(&self.whole, name.as_c_str(), GROUP_MODE).at(Stage::CGROUP, at())?;
        let fd = open_group(&self.whole, &name).at(Stage::CGROUP, at());
        let whole = self.whole.duplicate(3).at(Stage::CGROUP, at());
        let member = Member { fd: fd?, whole: whole?, name, path };
        match limits::write(&member.path, &member.fd, &self.limits) {
            Ok(()) => Ok(member),
            Err(error) => {
                // Nobody is in it yet.
                let _ = member.remove();
                Err(error)
            }
        }
    }

    /// What is not handed down has no figures, which the receipt says: no reason to refuse.
    fn hand_down(&self) {
        let mut room = [0u8; 1024];
        let Ok(there) = read(&self.whole, c"cgroup.controllers", &mut room) else { return };
        for name in
            there.split_ascii_whitespace().filter(|name| matches!(*name, "cpu" | "memory" | "pids" | "io"))
        {
            let _ = write(&self.whole, c"cgroup.subtree_control", format!("+{name}").as_bytes());
        }
    }
}

impl Member {
    /// Kills every process in it.
    ///
    /// # Errors
    /// As a write to cgroup.kill (5.14).
    pub fn kill(&self) -> std::result::Result<(), Errno> {
        write(&self.fd, c"cgroup.kill", b"1")
    }

    /// Removes it. False while a process is in it; what is left then goes with the container.
    ///
    /// # Errors
    /// As rmdir(2), but EBUSY.
    pub fn remove(&self) -> Result<bool> {
        remove_group(&self.whole, &self.name, &self.path)
    }
}
