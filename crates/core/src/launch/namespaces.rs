//! The shim's two mount namespaces: the host's view, where sources are opened, and an empty one, which containers are
//! copies of. A container's namespace never holds a mount of the host's, so there is none to copy at its birth, none to
//! take away before its command runs, and none to be found by a way out of its root.

use crate::error::{At, Result, Stage};
use crate::off::off;
use caisson_sys::mount::{self, attr, propagation};
use caisson_sys::process::{self, Fork, namespace};
use caisson_sys::{Cwd, Errno, Fd, file};

#[derive(Debug)]
pub(super) struct MountNamespaces {
    /// A slave of the host's, never private: what is mounted there later arrives. The shim lives in it.
    view: Fd,
    /// The host's /proc.
    pub(super) proc: Fd,
    /// One empty directory of a file system in which nothing can be made.
    empty: Fd,
    /// Whether this process is in a user namespace. There the kernel lets a procfs or a sysfs be mounted only where
    /// another can be seen whole, which is in the view: init leaves it after it has made those that it needs.
    mapped: bool,
}

fn current(proc: &Fd) -> Result<Fd, Errno> {
    file::openat2(proc, c"self/ns/mnt", file::open::RDONLY, 0, 0)
}

impl MountNamespaces {
    /// Makes both, and leaves this process, which must be single-threaded, in the host's view.
    pub(super) fn make(mapped: bool) -> Result<Self> {
        let at = Stage::SHIM;
        let directory = file::open::PATH | file::open::DIRECTORY;
        // Below it the links of ns/ can be opened from wherever this process is.
        let proc = file::openat2(Cwd, c"/proc", directory, 0, 0).at(at, "/proc")?;
        process::unshare(namespace::MOUNT).at(at, "unshare")?;
        mount::set_propagation(c"/", propagation::SLAVE).at(at, "/")?;
        let view = current(&proc).at(at, "/proc/self/ns/mnt")?;

        process::unshare(namespace::MOUNT).at(at, "unshare")?;
        let context = mount::fsopen(c"tmpfs").at(at, "tmpfs")?;
        for (key, value) in [(c"nr_inodes", c"1"), (c"mode", c"555")] {
            context.string(key, value).at(at, "tmpfs")?;
        }
        context.flag(c"ro").at(at, "tmpfs")?;
        let root = context.mount(attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC).at(at, "tmpfs")?;
        mount::attach_at(&root, Cwd, c"/").at(at, "/")?;
        nix::unistd::fchdir(&root).at(at, "/")?;
        mount::pivot_root_here().at(at, "pivot_root")?;
        mount::detach(c".").at(at, "umount")?;
        let empty = current(&proc).at(at, "/proc/self/ns/mnt")?;
        process::setns(&view, namespace::MOUNT).at(at, "setns")?;
        Ok(Self { view, proc, empty, mapped })
    }

    /// What init still has to enter: a copy of this namespace, once its own file systems are made.
    pub(super) fn ahead(&self) -> Result<Option<Fd>, Errno> {
        self.mapped.then(|| self.empty.duplicate(3)).transpose()
    }

    /// Forks a child whose new mount namespace is a copy of the empty one; or which has yet to enter one.
    pub(super) fn fork(&self, kinds: u64, cgroup: Option<&Fd>) -> Result<Fork, Errno> {
        if off("in_root") {
            return process::fork(kinds, cgroup);
        }
        if self.mapped {
            return process::fork(kinds & !namespace::MOUNT, cgroup);
        }
        process::setns(&self.empty, namespace::MOUNT)?;
        let fork = process::fork(kinds, cgroup);
        if matches!(fork, Ok(Fork::Child)) {
            return fork;
        }
        process::setns(&self.view, namespace::MOUNT)?;
        fork
    }
}
