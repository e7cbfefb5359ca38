//! Where version 2 is mounted, and which group containers go below.

use crate::error::{At, Code, Error, Result, Stage};
use caisson_sys::{Cwd, Errno, Fd, file};
use nix::unistd::{AccessFlags, access};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The group below which containers' groups are made.
#[derive(Debug)]
pub struct Parent {
    /// Its directory.
    pub fd: Fd,
    /// Its path.
    pub path: PathBuf,
}

/// Where cgroup2 is mounted: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` on a hybrid host. Of several mounts the
/// first that is still visible.
///
/// # Errors
/// [`Code::NoController`] where there is none.
pub fn mount_point() -> Result<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").at(Stage::CGROUP, "/proc/self/mountinfo")?;
    let points = table.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        right.starts_with("cgroup2 ").then(|| left.split(' ').nth(4))?
    });
    points.map(PathBuf::from).find(|point| point.join("cgroup.procs").exists()).ok_or_else(|| {
        Error::new(
            Code::NoController,
            Stage::CGROUP,
            "cgroup2",
            "cgroup version 2 is not mounted on this host",
        )
    })
}

impl Parent {
    /// The default for root: a group of Caisson's own at the top of what this process sees, where docker puts its own.
    ///
    /// # Errors
    /// As [`mount_point`].
    pub fn default_path() -> Result<PathBuf> {
        Ok(mount_point()?.join("caisson"))
    }

    /// For everybody but root: a group of Caisson's own below the highest one that was handed to this user, of those
    /// that this process is in: a process may be born only below a group that is the user's (cgroups(7), "Delegation
    /// containment"), and that one may hand controllers down, where the lowest, which holds processes, may not. None
    /// where nothing was handed over.
    #[must_use]
    pub fn delegated() -> Option<Self> {
        let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
        if own.split('/').any(|part| part == "..") {
            return None;
        }
        let top = mount_point().ok()?;
        let path = top.join(own);
        let groups = path.ancestors().take_while(|group| group.starts_with(&top));
        let ours = |group: &&Path| {
            let writable = |path: &Path| access(path, AccessFlags::W_OK).is_ok();
            writable(group) && writable(&group.join("cgroup.procs"))
        };
        Self::open(&groups.take_while(ours).last()?.join("caisson")).ok()
    }

    /// Opens the group at `path`, and makes it if it is absent.
    ///
    /// # Errors
    /// EACCES, EPERM, EROFS where groups cannot be made; the message says so.
    pub fn open(path: &Path) -> Result<Self> {
        let at = || path.to_string_lossy().into_owned();
        let name = CString::new(path.as_os_str().as_bytes())
            .map_err(|_| Error::new(Code::InvalidSpec, Stage::CGROUP, "cgroupParent", "holds a NUL byte"))?;
        let mut tries = 0;
        let fd = loop {
            match std::fs::create_dir(path) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                answer => answer.at(Stage::CGROUP, at())?,
            }
            match file::openat2(Cwd, &name, file::open::RDONLY | file::open::DIRECTORY, 0, 0) {
                // Found empty and removed by another shim, between the two calls.
                Err(Errno::ENOENT) if tries < 32 => tries += 1,
                answer => break answer.at(Stage::CGROUP, at())?,
            }
        };
        const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;
        let system = nix::sys::statfs::fstatfs(&fd).at(Stage::CGROUP, at())?;
        if system.filesystem_type().0 != CGROUP2_SUPER_MAGIC {
            let message = format!("{} is not in a cgroup2 file system", path.display());
            return Err(Error::new(Code::InvalidSpec, Stage::CGROUP, "cgroupParent", message));
        }
        Ok(Self { fd, path: path.to_owned() })
    }

    /// Removes the group if nobody uses it any more.
    pub fn remove_if_empty(&self) {
        let _ = std::fs::remove_dir(&self.path);
    }
}
