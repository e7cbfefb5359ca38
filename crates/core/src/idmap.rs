//! A user namespace for a shim whose owner is not root: entered once, before anything else, after which the same code
//! runs as for root (user_namespaces(7)).

use crate::error::{At, Code, Error, Result, Stage};
use crate::off::off;
use crate::wire::wire;
use caisson_sys::process::{self, Fork, namespace};
use caisson_sys::{Errno, Fd, file, identity};
use nix::fcntl::OFlag;
use nix::unistd::{getegid, geteuid};
use std::fs;
use std::process::{Command, Stdio};

wire! {
    /// Which ids are in a user namespace. A range is the first id inside, the first outside, and how many.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct IdMap {
        /// Users.
        pub uids: Vec<(u32, (u32, u32))>,
        /// Groups.
        pub gids: Vec<(u32, (u32, u32))>,
        /// The paths of newuidmap(1) and newgidmap(1), which write maps of more than the caller's own ids.
        pub helpers: Option<(String, String)>,
    }
}

impl IdMap {
    /// Whether one user alone is in it: no other owner can be given to a file, and groups cannot be changed.
    #[must_use]
    pub fn is_single(&self) -> bool {
        self.helpers.is_none()
    }

    /// Whether a user and a group are in it.
    #[must_use]
    pub fn has(&self, uid: u32, gid: u32) -> bool {
        let within = |ranges: &Ranges, id: u32| {
            ranges
                .iter()
                .any(|(inside, (_, count))| id.checked_sub(*inside).is_some_and(|past| past < *count))
        };
        within(&self.uids, uid) && within(&self.gids, gid)
    }

    /// Moves this process, which must be single-threaded, into a new user namespace with this map, as user and group 0.
    ///
    /// # Errors
    /// [`Code::NoUserNamespace`] where there may be none, with what forbids it; as the helpers say where they refuse.
    pub fn enter(&self) -> Result<()> {
        let stage = Stage::SHIM;
        match &self.helpers {
            None => {
                let (uid, gid) = (geteuid(), getegid());
                unshare()?;
                if !off("setgroups") {
                    write_own("setgroups", "deny")?;
                }
                write_own("uid_map", &format!("0 {uid} 1\n"))?;
                write_own("gid_map", &format!("0 {gid} 1\n"))
            }
            Some((newuidmap, newgidmap)) => {
                // The helpers must be outside of the namespace that they write for.
                let outside = Outside::wait(&[(newuidmap, &self.uids), (newgidmap, &self.gids)])?;
                unshare()?;
                outside.go()?;
                // What the user may besides is nobody's in here.
                identity::set_groups(&[]).at(stage, "setgroups")?;
                identity::set_group(0).at(stage, "setresgid")?;
                identity::set_user(0).at(stage, "setresuid")
            }
        }
    }
}

fn unshare() -> Result<()> {
    process::unshare(namespace::USER).map_err(|errno| {
        let why = match errno {
            Errno::ENOSPC => "user namespaces are used up or switched off: /proc/sys/user/max_user_namespaces",
            Errno::EPERM => {
                "user namespaces are forbidden here: kernel.unprivileged_userns_clone, a seccomp filter, or a chroot"
            }
            _ => "no user namespace can be made",
        };
        refused(errno, "unshare", why)
    })
}

fn refused(errno: Errno, subject: &str, why: &str) -> Error {
    Error { errno: Some(errno.raw()), ..Error::new(Code::NoUserNamespace, Stage::SHIM, subject, why) }
}

fn write_own(name: &str, text: &str) -> Result<()> {
    let path = format!("/proc/self/{name}");
    fs::write(&path, text).map_err(|error| {
        let errno = Errno::from_raw(error.raw_os_error().unwrap_or(5));
        // AppArmor lets the namespace be made, and then holds back every right in it.
        let why = "a user namespace has no rights here: kernel.apparmor_restrict_unprivileged_userns, or another policy";
        if matches!(errno, Errno::EPERM | Errno::EACCES) {
            return refused(errno, &path, why);
        }
        refused(errno, &path, &errno.to_string())
    })
}

/// A child that stays outside and runs the helpers once it is told to.
struct Outside {
    process: Fd,
    go: Fd,
    said: Fd,
}

type Ranges = Vec<(u32, (u32, u32))>;

impl Outside {
    fn wait(helpers: &[(&String, &Ranges); 2]) -> Result<Self> {
        let at = Stage::SHIM;
        let pid = std::process::id();
        let (told, go) = nix::unistd::pipe2(OFlag::O_CLOEXEC).at(at, "pipe")?;
        let (said, say) = nix::unistd::pipe2(OFlag::O_CLOEXEC).at(at, "pipe")?;
        match process::fork(0, None).at(at, "clone")? {
            Fork::Parent { pidfd, .. } => Ok(Self { process: pidfd, go: go.into(), said: said.into() }),
            Fork::Child => {
                drop(go);
                let mut byte = [0];
                // The end without a byte: there is no namespace to write for.
                if file::read_into(Fd::from(told), &mut byte).is_ok_and(|read| read.is_empty()) {
                    caisson_sys::exit(0);
                }
                let failure = helpers.iter().find_map(|(path, ranges)| run(path, pid, ranges).err());
                let _ = file::write_all(Fd::from(say), failure.as_deref().unwrap_or_default().as_bytes());
                caisson_sys::exit(i32::from(failure.is_some()))
            }
        }
    }

    fn go(self) -> Result<()> {
        file::write_all(&self.go, b"1").at(Stage::SHIM, "pipe")?;
        let mut room = [0; 2048];
        let said = file::read_into(&self.said, &mut room).at(Stage::SHIM, "pipe")?;
        let said = String::from_utf8_lossy(said).trim().to_owned();
        let end = loop {
            match process::reap(&self.process).at(Stage::SHIM, "waitid")? {
                Some(end) => break end,
                None => std::thread::sleep(std::time::Duration::from_micros(100)),
            }
        };
        if (end.status, end.signaled) == (0, false) {
            return Ok(());
        }
        Err(Error::new(Code::NoUserNamespace, Stage::SHIM, "newuidmap", said))
    }
}

/// Runs one helper; what it complains of.
fn run(path: &str, pid: u32, ranges: &Ranges) -> std::result::Result<(), String> {
    let numbers = ranges.iter().flat_map(|(inside, (outside, count))| [inside, outside, count]);
    let words = std::iter::once(pid.to_string()).chain(numbers.map(ToString::to_string));
    let output = Command::new(path).args(words).env_clear().stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{path}: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(format!("{path}: {error}")),
    }
}
