//! Intent before side effects. A shim has a lock file below the run root, locked before it does anything, and a directory
//! of the same name; a container has a directory in that, its bundle, that holds the journal: what will be made elsewhere.
//! The directory goes last but one, the lock file last. Whoever finds a lock file unlocked finishes its shim's undoing.
//!
//! The locks are fcntl(2) record locks, not flocks: a child of the shim does not inherit them, so a shim that is dead
//! is never taken for alive because an init of it is still on its way to its exec.

use crate::cgroup;
use crate::error::{At, Code, Error, Result, Stage};
use crate::off::off;
use caisson_sys::{Cwd, Errno, Fd, file, process};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::stat::{Mode, mkdirat};
use std::ffi::CString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const SHIMS: &str = "shims";
const LOCK: &str = "lock";
/// Where a shim listens for other programs of the same user.
pub const SOCKET: &str = "socket";
const JOURNAL: &str = "journal";
/// Where a journal would name a cgroup.
const NONE: &str = "-";

/// What a container makes outside of its bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// Its cgroup, if it has one.
    pub cgroup: Option<PathBuf>,
    /// The directory of its writable layers.
    pub data: PathBuf,
}

/// A shim's own directory, locked.
#[derive(Debug)]
pub struct Place {
    /// Its path.
    pub path: PathBuf,
    fd: Fd,
    /// Held, not read: closing it gives up the lock.
    _lock: File,
}

/// Makes a directory of Caisson's roots, and checks one that is there: 0700, owned by this user (CVE-2021-41091).
///
/// # Errors
/// ENOENT below a parent that is not there; [`Code::Launch`] for one that is somebody else's.
pub fn private_directory(path: &Path) -> Result<()> {
    let at = || path.to_string_lossy().into_owned();
    let mode = if off("private") { 0o755 } else { 0o700 };
    match fs::DirBuilder::new().recursive(true).mode(mode).create(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        answer => answer.at(Stage::JOURNAL, at())?,
    }
    let known = fs::symlink_metadata(path).at(Stage::JOURNAL, at())?;
    if known.uid() != nix::unistd::geteuid().as_raw() || !known.is_dir() {
        return Err(Error::new(
            Code::Launch,
            Stage::JOURNAL,
            at(),
            "is not a directory of the user who runs this",
        ));
    }
    if known.mode() & 0o077 != 0 && !off("private") {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).at(Stage::JOURNAL, at())?;
    }
    Ok(())
}

fn directory(path: &Path) -> Result<Fd> {
    let name = c_path(path)?;
    file::openat2(Cwd, &name, file::open::RDONLY | file::open::DIRECTORY, 0, 0)
        .at(Stage::JOURNAL, path.to_string_lossy())
}

pub(crate) fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| Error::invalid(path.to_string_lossy(), "holds a NUL byte"))
}

/// Takes a shim's lock, if nobody has it.
fn lock(file: File) -> Result<Option<File>, std::io::Error> {
    let whole = nix::libc::flock {
        l_type: nix::libc::F_WRLCK as i16,
        l_whence: nix::libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    match fcntl(&file, FcntlArg::F_SETLK(&whole)) {
        Ok(_) => Ok(Some(file)),
        Err(nix::errno::Errno::EACCES | nix::errno::Errno::EAGAIN) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

impl Place {
    /// Makes the directory of this process, and locks it.
    ///
    /// # Errors
    /// As mkdir(2), open(2).
    pub fn make(run_root: &Path) -> Result<Self> {
        let shims = run_root.join(SHIMS);
        private_directory(&shims)?;
        let (path, held) = loop {
            let path = shims.join(format!("{}-{:x}", std::process::id(), crate::clock::now()));
            let at = || path.to_string_lossy().into_owned();
            let mut options = fs::OpenOptions::new();
            let file = options.read(true).write(true).create_new(true).mode(0o600);
            let file = file.open(path.with_extension(LOCK)).at(Stage::JOURNAL, at())?;
            // Before it was locked somebody may have taken it for a dead one's, and have removed it.
            if let Some(held) = lock(file).at(Stage::JOURNAL, at())?
                && held.metadata().at(Stage::JOURNAL, at())?.nlink() > 0
            {
                break (path, held);
            }
        };
        private_directory(&path)?;
        Ok(Self { fd: directory(&path)?, path, _lock: held })
    }

    /// Makes a container's bundle directory with its journal, before anything else of it is made.
    ///
    /// # Errors
    /// As mkdir(2), open(2), write(2).
    pub fn begin(&self, id: &str, intent: &Intent) -> Result<Fd> {
        let name = CString::new(id).map_err(|_| Error::invalid("id", "holds a NUL byte"))?;
        mkdirat(&self.fd, name.as_c_str(), Mode::from_bits_truncate(0o700)).at(Stage::JOURNAL, id)?;
        let flags = file::open::RDONLY | file::open::DIRECTORY;
        let bundle =
            file::openat2(&self.fd, &name, flags, file::resolve::BENEATH, 0).at(Stage::JOURNAL, id)?;
        let cgroup = intent.cgroup.as_deref().unwrap_or(Path::new(NONE));
        let text = format!("cgroup {}\ndata {}\n", cgroup.display(), intent.data.display());
        write(&bundle, JOURNAL, text.as_bytes())?;
        Ok(bundle)
    }

    /// Adds the first process of a container that has no cgroup by which it could be found and killed: its id, and when
    /// it was born, which no later process of that id shares.
    ///
    /// # Errors
    /// As open(2), write(2).
    pub fn note_init(&self, bundle: &Fd, pid: u32) -> Result<()> {
        let born = born(pid).unwrap_or_default();
        let flags = file::open::WRONLY | file::open::APPEND;
        let journal = file::openat2(bundle, c"journal", flags, file::resolve::BENEATH, 0);
        let text = format!("init {pid} {born}\n");
        file::write_all(&journal.at(Stage::JOURNAL, JOURNAL)?, text.as_bytes()).at(Stage::JOURNAL, JOURNAL)
    }

    /// Removes a container's bundle directory with these files, once nothing else of it is left. The journal goes last.
    ///
    /// # Errors
    /// As unlink(2).
    pub fn finish(&self, id: &str, files: &[String]) -> Result<()> {
        use nix::unistd::{UnlinkatFlags, unlinkat};
        let known = files.iter().map(String::as_str).chain([JOURNAL]);
        let unlinked =
            known.map(|name| unlinkat(&self.fd, format!("{id}/{name}").as_str(), UnlinkatFlags::NoRemoveDir));
        let mut unlinked = unlinked.collect::<Vec<_>>().into_iter();
        if unlinked.all(|answer| answer.is_ok()) && unlinkat(&self.fd, id, UnlinkatFlags::RemoveDir).is_ok() {
            return Ok(());
        }
        // Something else is there, or was never made: whatever it is, it is ours.
        remove(&self.path.join(id))
    }

    /// Listens on a path beside the directory, which only this user can reach (security.md E1). By a short way: a socket's
    /// address has room for 107 bytes (unix(7)).
    ///
    /// # Errors
    /// As bind(2), listen(2).
    pub fn listen(&self) -> Result<Fd> {
        use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
        let stage = Stage::JOURNAL;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let listener = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).at(stage, SOCKET)?;
        let shims = directory(self.path.parent().unwrap_or(&self.path))?;
        let name = self.path.with_extension(SOCKET);
        let name = name.file_name().unwrap_or_default();
        let short =
            Path::new("/proc/self/fd").join(caisson_sys::Descriptor::raw(&shims).to_string()).join(name);
        let address = UnixAddr::new(&short).at(stage, SOCKET)?;
        bind(std::os::fd::AsRawFd::as_raw_fd(&listener), &address).at(stage, SOCKET)?;
        listen(&listener, Backlog::new(128).at(stage, SOCKET)?).at(stage, SOCKET)?;
        Ok(listener.into())
    }

    /// Removes the shim's own directory, if no container is left in it.
    pub fn leave(&self) {
        let _ = fs::remove_file(self.path.with_extension(SOCKET));
        if fs::remove_dir(&self.path).is_ok() {
            let _ = fs::remove_file(self.path.with_extension(LOCK));
        }
    }
}

/// Writes a file of the bundle directory, 0644: the container's engine files are read by every user in it.
///
/// # Errors
/// As open(2), write(2).
pub fn write(bundle: &Fd, name: &str, content: &[u8]) -> Result<()> {
    let c_name = CString::new(name).map_err(|_| Error::invalid("files", "holds a NUL byte"))?;
    let flags = file::open::WRONLY | file::open::CREAT | file::open::EXCL;
    let made =
        file::openat2(bundle, &c_name, flags, file::resolve::BENEATH, 0o644).at(Stage::JOURNAL, name)?;
    file::write_all(&made, content).at(Stage::JOURNAL, name)
}

/// Removes a tree of Caisson's own, absent or not.
///
/// # Errors
/// As unlink(2).
pub fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        answer => answer.at(Stage::UNDO, path.to_string_lossy()),
    }
}

/// Removes a tree if it is small: at most `budget` entries. False if it is not, and what is left of it is for
/// [`remove`]. Nothing may live in it any more: it goes by paths.
///
/// # Errors
/// As unlink(2).
pub fn remove_small(path: &Path, budget: &mut usize) -> Result<bool> {
    let at = || path.to_string_lossy().into_owned();
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(true),
        entries => entries.at(Stage::UNDO, at())?,
    };
    for entry in entries {
        let entry = entry.at(Stage::UNDO, at())?;
        let Some(left) = budget.checked_sub(1) else { return Ok(false) };
        *budget = left;
        if entry.file_type().at(Stage::UNDO, at())?.is_dir() {
            if !remove_small(&entry.path(), budget)? {
                return Ok(false);
            }
        } else {
            fs::remove_file(entry.path()).at(Stage::UNDO, at())?;
        }
    }
    fs::remove_dir(path).at(Stage::UNDO, at())?;
    Ok(true)
}

/// Undoes what dead shims left below `run_root`. Idempotent; two at once get in each other's way at no step.
/// Answers what could not be undone, which stays in its journal.
pub fn recover(run_root: &Path) -> Vec<Error> {
    let mut failures = Vec::new();
    let Ok(entries) = fs::read_dir(run_root.join(SHIMS)) else { return failures };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != LOCK) {
            continue;
        }
        let opened = fs::OpenOptions::new().read(true).write(true).open(&path);
        let Ok(Some(held)) = opened.and_then(lock) else { continue };
        let _ = fs::remove_file(path.with_extension(SOCKET));
        if let Err(error) = recover_shim(&path.with_extension("")) {
            failures.push(error);
        } else {
            let _ = fs::remove_file(&path);
        }
        drop(held);
    }
    failures
}

fn recover_shim(shim: &Path) -> Result<()> {
    let entries = match fs::read_dir(shim) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.at(Stage::UNDO, shim.to_string_lossy())?,
    };
    let mut failure = None;
    for entry in entries.flatten() {
        if let Err(error) = recover_container(&entry.path()) {
            failure = Some(error);
        }
    }
    match failure {
        Some(error) => Err(error),
        None => remove(shim),
    }
}

fn recover_container(bundle: &Path) -> Result<()> {
    let text = match fs::read_to_string(bundle.join(JOURNAL)) {
        Err(error) if error.raw_os_error() == Some(Errno::ENOENT.raw()) => String::new(),
        answer => answer.at(Stage::UNDO, bundle.to_string_lossy())?,
    };
    // A journal that ends before its last line was cut by a crash before anything it names was made.
    let lines: Vec<&str> = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).collect();
    if let [cgroup, data, more @ ..] = lines.as_slice()
        && let (Some(cgroup), Some(data)) = (cgroup.strip_prefix("cgroup "), data.strip_prefix("data "))
    {
        if let Some(init) = more.first().and_then(|line| line.strip_prefix("init ")) {
            end(init).at(Stage::UNDO, "init")?;
        }
        // What is removed is this container's own, whatever stands there.
        let id = bundle.file_name().unwrap_or_default();
        let own = |path: &str| Path::new(path).is_absolute() && Path::new(path).file_name() == Some(id);
        if (!own(data) || cgroup != NONE && !own(cgroup)) && !off("root_check") {
            let message = "names what is not this container's";
            return Err(Error::new(Code::Internal, Stage::UNDO, bundle.to_string_lossy(), message));
        }
        if cgroup != NONE {
            cgroup::destroy(Path::new(cgroup))?;
            if let Some(parent) = Path::new(cgroup).parent() {
                let _ = fs::remove_dir(parent);
            }
        }
        remove(Path::new(data))?;
    }
    remove(bundle)
}

/// When a process was born, in clock ticks since boot: field 22 of proc_pid_stat(5).
fn born(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

/// Kills the process `PID BORN`, if it is still that one; with it, as the first of its pid namespace, all of them. Waits
/// until it is gone, at most two seconds.
fn end(init: &str) -> std::result::Result<(), Errno> {
    let Some((pid, expected)) = init.split_once(' ') else { return Ok(()) };
    let (Ok(pid), Ok(expected)) = (pid.parse::<u32>(), expected.parse::<u64>()) else { return Ok(()) };
    // The handle first, and the question after it: what the handle refers to is then known.
    let handle = match process::pidfd_open(pid) {
        Err(Errno::ESRCH) => return Ok(()),
        answer => answer?,
    };
    if born(pid) != Some(expected) {
        return Ok(());
    }
    let _ = process::send_signal(&handle, 9);
    for _ in 0..400 {
        if process::send_signal(&handle, 0) == Err(Errno::ESRCH) || born(pid) != Some(expected) {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    Err(Errno::EBUSY)
}
