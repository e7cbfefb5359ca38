//! Control groups, version 2 only. A container's group is a value: made below a parent, entered at birth, limited,
//! read, killed, removed.
//!
//! `C/` holds limits and statistics, `C/main` the payload: with the payload in C itself a later group for an exec would
//! be EBUSY, since a group that holds processes cannot hand controllers down.

pub mod devices;
pub mod find;
pub mod limits;
mod member;
pub mod stats;

use crate::error::{At, Code, Error, Result, Stage};
use crate::plan::Limit;
use caisson_sys::{Errno, Fd, bpf, file};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::ffi::{CStr, CString};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use find::Parent;
pub use member::Member;

/// A container's group and its payload's, as directories.
#[derive(Debug)]
pub struct Cgroup {
    /// `C/`: limits, statistics, the device program.
    pub whole: Fd,
    /// `C/main`: where the payload is born.
    pub main: Fd,
    /// The path of `C/`, for the journal and for people.
    pub path: PathBuf,
    name: CString,
    /// What was written to it, for the groups that are made below it later.
    limits: Vec<Limit>,
    /// How many were.
    members: u64,
}

const GROUP_MODE: Mode = Mode::from_bits_truncate(0o755);

impl Cgroup {
    /// Makes `C/` and `C/main`, the device program attached before any process can enter.
    ///
    /// # Errors
    /// EACCES and EPERM where the parent is not delegated; [`Code::NoController`] for a limit that cannot be had.
    pub fn create(parent: &Parent, name: &CStr, limits: &[Limit], devices: Option<&Fd>) -> Result<Self> {
        let path = parent.path.join(name.to_string_lossy().as_ref());
        let made = Self::make(parent, name, &path)?;
        match made.fill(parent, limits, devices) {
            Ok(main) => Ok(Self { main, limits: limits.to_vec(), ..made }),
            Err(error) => {
                // Nobody is in it yet, and nobody will know of it.
                let _ = made.remove(parent);
                Err(error)
            }
        }
    }

    /// Makes `C/` alone; its handle stands for `C/main` until that is there.
    fn make(parent: &Parent, name: &CStr, path: &Path) -> Result<Self> {
        let at = || path.to_string_lossy().into_owned();
        match mkdirat(&parent.fd, name, GROUP_MODE) {
            // The parent is removed by whoever finds it empty.
            Err(nix::errno::Errno::ENOENT) => {
                return Err(Error::new(Code::Internal, Stage::CGROUP, at(), "parent removed"));
            }
            answer => answer.at(Stage::CGROUP, at())?,
        }
        let whole = open_group(&parent.fd, name).at(Stage::CGROUP, at())?;
        let main = whole.duplicate(3).at(Stage::CGROUP, at())?;
        Ok(Self { whole, main, path: path.to_owned(), name: name.to_owned(), limits: Vec::new(), members: 0 })
    }

    /// Device program, limits and `C/main`, which it answers.
    fn fill(&self, parent: &Parent, limits: &[Limit], devices: Option<&Fd>) -> Result<Fd> {
        let (whole, path) = (&self.whole, &self.path);
        let at = || path.to_string_lossy().into_owned();
        if let Some(program) = devices {
            bpf::attach_device_program(whole, program).at(Stage::CGROUP, "linux.resources.devices")?;
        }
        if !limits.is_empty() {
            limits::enable(&parent.path, &parent.fd, limits)?;
            limits::enable(path, whole, limits)?;
            limits::write(path, whole, limits)?;
        }
        mkdirat(whole, c"main", GROUP_MODE).at(Stage::CGROUP, at())?;
        let main = open_group(whole, c"main").at(Stage::CGROUP, at())?;
        // The container sees its own limits: Node, Java and Go size themselves by what they read there.
        limits::write(path, &main, limits)?;
        Ok(main)
    }

    /// Kills every process of the container.
    ///
    /// # Errors
    /// As a write to cgroup.kill (5.14).
    pub fn kill(&self) -> Result<(), Errno> {
        write(&self.whole, c"cgroup.kill", b"1")
    }

    /// Stops every process of the container, or lets them go on. Does not wait: cgroup.events says when it is so.
    ///
    /// # Errors
    /// As a write to cgroup.freeze.
    pub fn freeze(&self, frozen: bool) -> Result<(), Errno> {
        write(&self.whole, c"cgroup.freeze", if frozen { b"1" } else { b"0" })
    }

    /// Removes both groups. False while a process that is ending still holds them.
    ///
    /// # Errors
    /// As rmdir(2), but EBUSY.
    pub fn remove(&self, parent: &Parent) -> Result<bool> {
        let gone = remove_group(&self.whole, c"main", &self.path)?
            && remove_group(&parent.fd, &self.name, &self.path)?;
        // Busy with processes, or with groups that the container made below its own.
        Ok(gone || remove_below(&self.path).is_ok())
    }
}

/// How long a process may take to stop: one that waits in the kernel does so at the end of that.
const FREEZING: Duration = Duration::from_secs(10);

/// Waits until all processes of a group are stopped, after [`Cgroup::freeze`]; false if that took too long.
///
/// # Errors
/// As a read of cgroup.events.
pub fn is_frozen(group: &Fd) -> Result<bool, Errno> {
    let begun = Instant::now();
    loop {
        let mut room = [0; 256];
        let events = read(group, c"cgroup.events", &mut room)?;
        if events.lines().any(|line| matches!(line, "frozen 1" | "populated 0")) {
            return Ok(true);
        }
        if begun.elapsed() > FREEZING {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_micros(500));
    }
}

/// Removes one group below `dir`; false while it is busy, true if it is gone already.
fn remove_group(dir: &Fd, name: &CStr, path: &Path) -> Result<bool> {
    match unlinkat(dir, name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(nix::errno::Errno::ENOENT) => Ok(true),
        Err(nix::errno::Errno::EBUSY) => Ok(false),
        Err(errno) => Err(errno).at(Stage::UNDO, path.to_string_lossy()),
    }
}

/// A group's directory. Not O_PATH: its files are opened below it.
fn open_group(dir: &Fd, name: &CStr) -> Result<Fd, Errno> {
    file::openat2(dir, name, file::open::RDONLY | file::open::DIRECTORY, file::resolve::BENEATH, 0)
}

/// Writes a file of a group in one write, as cgroup files want it.
pub(crate) fn write(group: &Fd, name: &CStr, value: &[u8]) -> Result<(), Errno> {
    let file = file::openat2(group, name, file::open::WRONLY, file::resolve::BENEATH, 0)?;
    file::write_all(&file, value)
}

/// Reads a file of a group, at most 16 KiB of it.
pub(crate) fn read<'a>(group: &Fd, name: &CStr, room: &'a mut [u8]) -> Result<&'a str, Errno> {
    let file = file::openat2(group, name, file::open::RDONLY, file::resolve::BENEATH, 0)?;
    let bytes = file::read_into(&file, room)?;
    std::str::from_utf8(bytes).map_err(|_| Errno::EINVAL)
}

/// Kills and removes the group at `path` and all below it, for what a crash left. Waits for the dead, at most two
/// seconds.
///
/// # Errors
/// As rmdir(2): EBUSY if processes are still there after that.
pub fn destroy(path: &Path) -> Result<()> {
    let at = || path.to_string_lossy().into_owned();
    let kill = path.join("cgroup.kill");
    for round in 0..400 {
        if !path.exists() {
            return Ok(());
        }
        if round % 20 == 0 {
            // Absent before 5.14 only, which is below the oldest kernel.
            let _ = std::fs::write(&kill, "1");
        }
        match remove_below(path) {
            Ok(()) => return Ok(()),
            Err(error) if error.raw_os_error() == Some(Errno::EBUSY.raw()) => {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            Err(error) => return Err(error).at(Stage::UNDO, at()),
        }
    }
    Err(Errno::EBUSY).at(Stage::UNDO, at())
}

fn remove_below(path: &Path) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_below(&entry.path())?;
        }
    }
    match std::fs::remove_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        answer => answer,
    }
}
