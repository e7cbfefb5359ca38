//! The child of the clone: one loop over the plan's steps, then the exec. It never opens a path of the host: all that
//! comes from there was opened by the shim and is inherited as a detached mount.
//!
//! It is a fork of a single-threaded shim, so it may allocate. It ends by exec, or by one failure on its report socket
//! and `_exit`: never by unwinding into the shim's code.

mod command;
mod identity;
mod join;
mod mounts;
mod terminal;

pub use command::stay;
pub use join::join;

use crate::channel::{self, Isolation, Report, Stamps};
use crate::clock;
use crate::error::{At, Error, Result};
use crate::idmap::IdMap;
use crate::isolation;
use crate::off::off;
use crate::plan::{LaunchPlan, Step};
use crate::rootfs::open::{Kind, find, find_or_make};
use crate::wire::Wire;
use caisson_sys::{Descriptor, Errno, Fd, fd, file, identity as rights, ioctl, mount, process};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::AtomicU64;

/// What a process on its way to a command inherits, by value: it owns all of it.
#[derive(Debug)]
pub struct Given {
    /// stdin, stdout, stderr; none if the plan has a terminal.
    pub stdio: Vec<Fd>,
    /// Which of the three are pipes that Caisson made.
    pub own_stdio: u8,
    /// Where the report goes.
    pub report: Fd,
    /// The host name, where the plan has none.
    pub hostname: String,
    /// The users and groups that there are; none: all.
    pub ids: Option<IdMap>,
    /// What init alone has; none for a joiner.
    pub house: Option<House>,
    /// Whether orphans among its descendants come to it, which is how they are found without a cgroup.
    pub gathers: bool,
    /// What a joiner opens to the process that it became, once its shim was told of that.
    pub gate: Option<(Fd, Fd)>,
}

/// What the first process of a container makes the container from.
#[derive(Debug)]
pub struct House {
    /// The container's root, a detached mount.
    pub root: Fd,
    /// Other file systems of the root: place and detached mount.
    pub overlays: Vec<(CString, Fd)>,
    /// The plan's sources, in the order of their slots.
    pub sources: Vec<Fd>,
    /// An empty directory and an empty file, read-only, to hide paths behind.
    pub masks: (Fd, Fd),
    /// The mount namespace of which it enters a copy when it enters the root; none: it was born in it.
    pub namespace: Option<Fd>,
    /// Where the moment of the exec goes.
    pub executing: &'static AtomicU64,
    /// Whether its parent sees by itself what namespaces it is in.
    pub seen: bool,
    /// Whether nothing but its parent knows of it: it dies with that.
    pub tied: bool,
    /// What an init that stays is executed from; none where none stays.
    pub executable: Option<Fd>,
}

struct Init {
    plan: LaunchPlan,
    given: Given,
    /// The mounts of the plan's slots; taken when attached.
    slots: Vec<Option<Fd>>,
    /// The container's root as a directory, once entered.
    root: Option<Fd>,
    /// The tmpfs of Caisson's own at /dev.
    dev: Option<Fd>,
    /// A procfs of Caisson's own, whatever the container's root has at /proc.
    proc: Option<Fd>,
    /// The terminal's master and its other end.
    terminal: Option<(Fd, Fd)>,
    found: identity::Found,
    /// What the steps after the report will do, each of which ends the launch if it fails: the bounding set kept, the
    /// instructions of the filter, whether no_new_privs is set.
    ahead: (u64, u32, bool),
    stamps: Stamps,
}

/// Runs the plan as the first process of a container. Does not return.
pub fn init(plan: LaunchPlan, given: Given) -> ! {
    become_command(plan, given, None, c"caisson-init")
}

/// Runs the plan; `root` is there if the container's was entered already. Does not return.
fn become_command(plan: LaunchPlan, given: Given, root: Option<Fd>, name: &CStr) -> ! {
    let stamps = Stamps { born: clock::now(), ..Stamps::default() };
    let mut init = Init {
        plan,
        given,
        slots: Vec::new(),
        root,
        dev: None,
        proc: None,
        terminal: None,
        found: identity::Found::default(),
        ahead: (u64::MAX, 0, false),
        stamps,
    };
    let error = match init.prepare(name) {
        Ok(()) => init.execute(),
        Err(error) => error,
    };
    // write(2), which the plan made sure that the filter allows. If it fails the shim is gone, and nobody waits for it.
    let _ = file::write_all(&init.given.report, &Report::Failed { error }.to_bytes());
    caisson_sys::exit(1);
}

impl Init {
    fn prepare(&mut self, name: &CStr) -> Result<()> {
        if !off("close_range") {
            fd::close_on_exec_from(0).at(crate::Stage::SESSION, "close_range")?;
        }
        let _ = rights::set_name(name);
        if let Some(house) = &mut self.given.house {
            self.slots = std::mem::take(&mut house.sources).into_iter().map(Some).collect();
        }
        let steps = std::mem::take(&mut self.plan.steps);
        for step in &steps {
            match step {
                Step::LimitBounding { keep } => self.ahead.0 = *keep,
                Step::Filter { program, .. } => {
                    self.ahead.1 = u32::try_from(program.0.len() / 8).unwrap_or(u32::MAX);
                }
                Step::NoNewPrivileges {} => self.ahead.2 = true,
                _ => {}
            }
        }
        for step in &steps {
            self.step(step)?;
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        let stage = step.stage();
        match step {
            Step::Session {} if off("setsid") => Ok(()),
            Step::Session {} => process::setsid().at(stage, "setsid"),
            Step::Keyring {} if off("keyring") => Ok(()),
            Step::Keyring {} => match process::new_session_keyring() {
                Err(Errno::ENOSYS) => Ok(()),
                answer => answer.at(stage, "keyring"),
            },
            Step::Loopback {} => {
                let any = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None);
                let any: Fd = any.at(stage, "lo")?.into();
                ioctl::set_link_up(&any, c"lo").at(stage, "lo")
            }
            Step::Open { filesystem } => self.open(filesystem),
            Step::EnterRoot {} => self.enter_root(),
            Step::Attach { slot, target, directory, follow } => {
                self.attach(*slot, target, *directory, *follow)
            }
            Step::Node { path, mode, major, minor, uid, gid } => {
                self.node(path, *mode, (*major, *minor), (*uid, *gid))
            }
            Step::Link { path, target } => self.link(path, target),
            Step::Terminal { columns, rows } => self.open_terminal(*columns, *rows),
            Step::Mask { paths } => self.mask(paths),
            Step::ReadOnly { paths } => self.read_only(paths),
            Step::Hostname { name } => {
                let name = name.as_deref().unwrap_or(&self.given.hostname);
                process::set_hostname(name.as_bytes()).at(stage, "hostname")
            }
            Step::Domainname { name } => process::set_domainname(name.as_bytes()).at(stage, "domainname"),
            Step::Sysctl { path, value } => {
                let mut below = b"sys/".to_vec();
                below.extend_from_slice(path.as_bytes());
                self.write_proc(&CString::new(below).unwrap_or_default(), value.as_bytes())
                    .at(stage, format!("linux.sysctl {}", path.to_string_lossy()))
            }
            Step::RootReadOnly {} => {
                let change = mount::Change { set: mount::attr::RDONLY, ..Default::default() };
                mount::set_attributes(self.root(stage)?, &change, false).at(stage, "/")
            }
            Step::OomScore { score } => self
                .write_proc(c"self/oom_score_adj", score.to_string().as_bytes())
                .at(stage, "process.oomScoreAdj"),
            Step::ResourceLimit { resource, soft, hard, field } => {
                process::set_limit(*resource, *soft, *hard).at(stage, field.as_str())
            }
            Step::LowerFiles {} => {
                const RLIMIT_NOFILE: u32 = 7;
                let (soft, hard) = process::limit(RLIMIT_NOFILE).at(stage, "nofile")?;
                process::set_limit(RLIMIT_NOFILE, soft.min(1024), hard).at(stage, "nofile")
            }
            Step::Umask { mask } => {
                nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(*mask));
                Ok(())
            }
            Step::WorkingDirectory { path, make } => {
                self.enter_root_late(path)?;
                self.enter_working_directory(path, *make)
            }
            Step::FindUser { user } => {
                self.found = identity::find(self.root(stage)?, user)?;
                self.found.check(self.given.ids.as_ref())
            }
            Step::Report {} => self.report(),
            Step::LimitBounding { keep } => {
                rights::limit_bounding(*keep).at(stage, "process.capabilities.bounding")
            }
            Step::Filter { program, flags } => {
                rights::load_filter(&program.0, *flags).at(stage, "linux.seccomp")
            }
            Step::Become {} => {
                self.found.take_effect(self.given.ids.as_ref())?;
                // After the last change of ids, which would undo it (PR_SET_PDEATHSIG(2const)).
                let tied = self.given.house.as_ref().is_some_and(|house| house.tied);
                if tied { rights::set_parent_death_signal(9).at(stage, "prctl") } else { Ok(()) }
            }
            Step::Capabilities { effective, permitted, inheritable, ambient } => {
                self.found.limit_capabilities(*effective, *permitted, *inheritable, *ambient)
            }
            Step::NoNewPrivileges {} => rights::set_no_new_privileges().at(stage, "process.noNewPrivileges"),
            Step::Appear {} => self.appear(),
        }
    }

    /// The container's root; there from [`Step::EnterRoot`] on.
    fn root(&self, stage: crate::Stage) -> Result<&Fd> {
        self.root.as_ref().ok_or_else(|| Error::new(crate::Code::Internal, stage, "/", "no root was entered"))
    }

    fn house(&self, stage: crate::Stage) -> Result<&House> {
        let missing =
            || Error::new(crate::Code::Internal, stage, "plan", "a step of init's in a joiner's plan");
        self.given.house.as_ref().ok_or_else(missing)
    }

    /// A procfs of this pid namespace that nothing in the container can have covered (CVE-2019-16884, CVE-2025-52881).
    fn write_proc(&mut self, path: &CStr, value: &[u8]) -> Result<(), Errno> {
        use file::{open, resolve};
        if off("own_procfs") {
            let path = std::path::Path::new("/proc").join(std::ffi::OsStr::from_bytes(path.to_bytes()));
            return std::fs::write(path, value)
                .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(5)));
        }
        let proc = match self.proc.take() {
            Some(proc) => proc,
            None => mount::fsopen(c"proc")?.mount(0)?,
        };
        let strict = resolve::BENEATH | resolve::NO_XDEV | resolve::NO_MAGICLINKS;
        let opened = file::openat2(&proc, path, open::WRONLY, strict, 0);
        self.proc = Some(proc);
        file::write_all(opened?, value)
    }

    fn enter_working_directory(&mut self, path: &CString, make: bool) -> Result<()> {
        let stage = crate::Stage::CWD;
        let at = || path.to_string_lossy().into_owned();
        let root = self.root(stage)?;
        let place =
            if make { find_or_make(root, path, Kind::Directory, true) } else { find(root, path, true) };
        let place = place.at(stage, at())?;
        nix::unistd::fchdir(&place).at(stage, at())?;
        // A descriptor of the host that leaked in would show here as a path outside the root (CVE-2024-21626).
        let here = nix::unistd::getcwd().at(stage, "process.cwd")?;
        if !here.starts_with("/") {
            return Err(Error::new(
                crate::Code::Launch,
                stage,
                "process.cwd",
                "is outside of the container's root",
            ));
        }
        Ok(())
    }

    fn report(&mut self) -> Result<()> {
        self.stamps.ready = clock::now();
        self.give_stdio()?;
        let isolation = self.isolation();
        let report = Report::Ready { isolation, stamps: self.stamps };
        let master: Vec<&dyn Descriptor> =
            self.terminal.iter().map(|(master, _)| master as &dyn Descriptor).collect();
        channel::send(&self.given.report, &report, &master, true).at(crate::Stage::SESSION, "report")
    }

    fn isolation(&self) -> Isolation {
        let seen = self.given.house.as_ref().is_none_or(|house| house.seen);
        let proc = self.proc.as_ref().filter(|_| !seen);
        let mut isolation = isolation::read(proc);
        isolation.user = (self.found.uid, self.found.gid);
        isolation.bounding &= self.ahead.0;
        (isolation.seccomp, isolation.no_new_privileges) = (self.ahead.1, self.ahead.2);
        isolation
    }
}
