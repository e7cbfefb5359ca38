//! What is in force, read from the kernel just before rights are given up.

use crate::channel::Isolation;
use caisson_sys::file::{self, open, resolve};
use caisson_sys::{Fd, identity};
use std::ffi::CStr;

const NAMESPACES: [(&str, &CStr); 8] = [
    ("cgroup", c"self/ns/cgroup"),
    ("ipc", c"self/ns/ipc"),
    ("mount", c"self/ns/mnt"),
    ("network", c"self/ns/net"),
    ("pid", c"self/ns/pid"),
    ("time", c"self/ns/time"),
    ("user", c"self/ns/user"),
    ("uts", c"self/ns/uts"),
];

/// Reads namespaces and id map through a procfs of Caisson's own. Without one the lists are empty.
#[must_use]
pub fn read(proc: Option<&Fd>) -> Isolation {
    let mut isolation = Isolation { bounding: identity::bounding(), ..Isolation::default() };
    let Some(proc) = proc else { return isolation };
    for (name, path) in NAMESPACES {
        // The links of ns/ are not followed by path but read: `net:[4026531840]`.
        if let Ok(target) = nix::fcntl::readlinkat(proc, path)
            && let Some(inode) = target.to_str().and_then(|text| text.split(['[', ']']).nth(1)?.parse().ok())
        {
            isolation.namespaces.push((name.to_owned(), inode));
        }
    }
    let map = file::openat2(proc, c"self/uid_map", open::RDONLY, resolve::BENEATH, 0);
    let mut room = [0u8; 4096];
    if let Ok(map) = map
        && let Ok(text) = file::read_into(&map, &mut room)
    {
        isolation.uid_map =
            String::from_utf8_lossy(text).split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    }
    isolation
}
