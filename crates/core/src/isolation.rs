//! What is in force for a container, read from the kernel: by its parent through its pidfd, beside its way to the command;
//! or, where the kernel cannot (before 6.11) or may not, by init of itself, on that way.

use crate::channel::Isolation;
use caisson_sys::file::{self, open, resolve};
use caisson_sys::process::{self, PidfdNamespace};
use caisson_sys::{Descriptor, Fd, identity};
use nix::sys::stat::fstat;
use std::ffi::CStr;

const NAMESPACES: [(&str, &CStr, PidfdNamespace); 8] = [
    ("cgroup", c"self/ns/cgroup", PidfdNamespace::Cgroup),
    ("ipc", c"self/ns/ipc", PidfdNamespace::Ipc),
    ("mount", c"self/ns/mnt", PidfdNamespace::Mount),
    ("network", c"self/ns/net", PidfdNamespace::Network),
    ("pid", c"self/ns/pid", PidfdNamespace::Pid),
    ("time", c"self/ns/time", PidfdNamespace::Time),
    ("user", c"self/ns/user", PidfdNamespace::User),
    ("uts", c"self/ns/uts", PidfdNamespace::Uts),
];

/// The inode numbers of a process's namespaces by name. None where the kernel has no such question, or no answer for us;
/// a kind that the kernel was built without is left out.
#[must_use]
pub fn namespaces_of(pidfd: impl Descriptor + Copy) -> Option<Vec<(String, u64)>> {
    let mut found = Vec::with_capacity(NAMESPACES.len());
    for (name, _, kind) in NAMESPACES {
        match process::namespace_of(pidfd, kind) {
            Ok(namespace) => found.push((name.to_owned(), fstat(&namespace).ok()?.st_ino)),
            Err(caisson_sys::Errno::EOPNOTSUPP) => {}
            Err(_) => return None,
        }
    }
    Some(found)
}

/// This process's id map, `0 0 4294967295` where there is none of its own, through a procfs.
#[must_use]
pub fn uid_map(proc: &Fd) -> String {
    let map = file::openat2(proc, c"self/uid_map", open::RDONLY, resolve::BENEATH, 0);
    let mut room = [0u8; 4096];
    let Ok(map) = map else { return String::new() };
    let text = file::read_into(&map, &mut room).map(|text| String::from_utf8_lossy(text));
    text.map(|text| text.split_ascii_whitespace().collect::<Vec<_>>().join(" ")).unwrap_or_default()
}

/// What this process can read of itself. Without a procfs of Caisson's own the lists are empty.
#[must_use]
pub fn read(proc: Option<&Fd>) -> Isolation {
    let mut isolation = Isolation { bounding: identity::bounding(), ..Isolation::default() };
    let Some(proc) = proc else { return isolation };
    for (name, path, _) in NAMESPACES {
        // The links of ns/ are not followed by path but read: `net:[4026531840]`.
        if let Ok(target) = nix::fcntl::readlinkat(proc, path)
            && let Some(inode) = target.to_str().and_then(|text| text.split(['[', ']']).nth(1)?.parse().ok())
        {
            isolation.namespaces.push((name.to_owned(), inode));
        }
    }
    isolation.uid_map = uid_map(proc);
    isolation
}
