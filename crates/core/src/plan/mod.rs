//! What a launch will do, in order: made from the spec once, checked once, run as often as wanted.
//!
//! A plan holds nothing of one container: no id, host name, cgroup path, upper layer or stdio. These come with the
//! launch message ([`crate::channel::Launch`]).

mod compile;
mod mounts;
mod process;

use crate::error::{At, Code, Error, Result, Stage};
use crate::wire::{Bytes, Wire, wire};
use caisson_sys::{Fd, file};
use std::ffi::CString;

pub use compile::{Extras, compile, compile_exec};

wire! {
    /// A whole launch.
    #[derive(Clone, Debug, Default, PartialEq)]
    pub struct LaunchPlan {
        /// New namespaces, `CLONE_NEW*`.
        pub namespaces: u64,
        /// cgroup files to write before the first process enters, in order.
        pub limits: Vec<Limit>,
        /// The device program of the cgroup, `struct bpf_insn` as bytes.
        pub devices: Bytes,
        /// What the shim opens as detached mounts, in the order of their slots.
        pub sources: Vec<Source>,
        /// What init does, in order.
        pub steps: Vec<Step>,
        /// The command, its first word looked up in the container.
        pub args: Vec<CString>,
        /// Its environment.
        pub env: Vec<CString>,
        /// Whether stdio is a terminal of Caisson's own.
        pub terminal: bool,
        /// Whether init stays as pid 1: forks the command, passes signals on, reaps.
        pub supervise: bool,
        /// Whether the environment gets `HOSTNAME`, if it has none.
        pub host_variable: bool,
    }
}

wire! {
    /// A line for a file of the cgroup.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Limit {
        /// The spec's field, for the error.
        pub field: String,
        /// The file, like `memory.max`.
        pub file: CString,
        /// What is written.
        pub value: String,
        /// Whether it stands if the file is absent: it asked for what is so anyway (no swap where none is counted).
        pub optional: bool,
    }
}

wire! {
    /// A change of attributes, `MOUNT_ATTR_*` and `MS_*` propagation.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Attributes {
        /// To set.
        pub set: u64,
        /// To clear first.
        pub clear: u64,
        /// To set on it and all mounts below it.
        pub set_recursive: u64,
        /// To clear on it and all mounts below it.
        pub clear_recursive: u64,
        /// Propagation to give it and all below it.
        pub propagation: u64,
    }
}

wire! {
    /// A mount that only the host side can open.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub enum Source {
        /// A path of the host, absolute, resolved by the caller's rights.
        0 Host { path: CString, recursive: bool, attributes: Attributes, field: String },
        /// A file of the container's bundle directory: a relative source, as the runtime spec means it.
        1 Bundle { name: CString, attributes: Attributes, field: String },
    }
}

wire! {
    /// A file system that init makes, inside the new namespaces.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Filesystem {
        /// Its type.
        pub kind: CString,
        /// Its options; a key without a value is a flag.
        pub options: Vec<(CString, Option<CString>)>,
        /// The attributes of its mount.
        pub attributes: u64,
    }
}

wire! {
    /// One thing that init does. Its errors are told by [`Step::stage`].
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub enum Step {
        /// A session of its own.
        0 Session {},
        /// An empty session keyring.
        1 Keyring {},
        /// The loopback interface goes up.
        2 Loopback {},
        /// Makes a file system and puts its mount in the next slot, after those of [`LaunchPlan::sources`].
        3 Open { filesystem: Filesystem },
        /// The container's root becomes the root, and the host's is gone.
        4 EnterRoot {},
        /// Attaches the mount of a slot.
        5 Attach { slot: u32, target: CString, directory: bool, follow: bool },
        /// A device node below the root.
        6 Node { path: CString, mode: u32, major: u32, minor: u32, uid: u32, gid: u32 },
        /// A symbolic link below the root; one that is there already stays.
        7 Link { path: CString, target: CString },
        /// A terminal of the container's own devpts, as stdio and as /dev/console.
        8 Terminal { columns: u16, rows: u16 },
        /// Hides paths behind empty read-only mounts; those that are absent are passed over.
        9 Mask { paths: Vec<CString> },
        /// Makes paths read-only; those that are absent are passed over.
        10 ReadOnly { paths: Vec<CString> },
        /// The host name: the spec's, or the launch's.
        11 Hostname { name: Option<String> },
        /// The domain name.
        12 Domainname { name: String },
        /// A setting below /proc/sys, by its path there.
        13 Sysctl { path: CString, value: String },
        /// The root mount becomes read-only.
        14 RootReadOnly {},
        /// /proc/self/oom_score_adj.
        15 OomScore { score: i32 },
        /// A resource limit, `RLIMIT_*` by number.
        16 ResourceLimit { resource: u32, soft: u64, hard: u64, field: String },
        /// The file mode creation mask.
        17 Umask { mask: u32 },
        /// Enters the working directory; with `make`, makes it if it is absent.
        18 WorkingDirectory { path: CString, make: bool },
        /// Finds out who the process will be, by the container's own files.
        19 FindUser { user: User },
        /// Tells the shim that all is ready, and what is in force.
        20 Report {},
        /// Everything else leaves the bounding set.
        21 LimitBounding { keep: u64 },
        /// The system call filter.
        22 Filter { program: Bytes, flags: u32 },
        /// Groups, group and user, as found.
        23 Become {},
        /// The capability sets.
        24 Capabilities { effective: u64, permitted: u64, inheritable: u64, ambient: u64 },
        /// No exec gains a privilege any more.
        25 NoNewPrivileges {},
        /// The soft limit of open files back to 1024: Node has raised its own, and the shim inherits that.
        26 LowerFiles {},
        /// A joiner's last but the exec: it becomes a process that the container's others can see.
        27 Appear {},
    }
}

wire! {
    /// Who the process is to be.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub enum User {
        /// Ids, as the runtime spec gives them.
        0 Ids { uid: u32, gid: u32, groups: Vec<u32> },
        /// Docker's words: `name|uid[:name|gid]`, looked up in the container's passwd and group.
        1 Named { words: String, groups: Vec<String> },
    }
}

impl Step {
    /// The stage that an error of this step is told under.
    #[must_use]
    pub const fn stage(&self) -> Stage {
        match self {
            Self::Session {} | Self::Keyring {} | Self::Report {} => Stage::SESSION,
            Self::Loopback {} => Stage::NETWORK,
            Self::EnterRoot {} | Self::RootReadOnly {} => Stage::ROOT,
            Self::Open { .. } | Self::Attach { .. } => Stage::MOUNT,
            Self::Node { .. } | Self::Link { .. } => Stage::DEVICE,
            Self::Terminal { .. } => Stage::TERMINAL,
            Self::Mask { .. } | Self::ReadOnly { .. } => Stage::MASK,
            Self::Hostname { .. } | Self::Domainname { .. } | Self::Sysctl { .. } => Stage::SETTING,
            Self::OomScore { .. }
            | Self::ResourceLimit { .. }
            | Self::LowerFiles {}
            | Self::Umask { .. }
            | Self::FindUser { .. }
            | Self::LimitBounding { .. }
            | Self::Become {}
            | Self::Capabilities { .. }
            | Self::NoNewPrivileges {} => Stage::IDENTITY,
            Self::Appear {} => Stage::CLONE,
            Self::WorkingDirectory { .. } => Stage::CWD,
            Self::Filter { .. } => Stage::SECCOMP,
        }
    }
}

/// Says that plan and executable were built together. The build script of neither makes it: both take the version and
/// the size of the types that cross.
const BUILD: &str = concat!("caisson-plan ", env!("CARGO_PKG_VERSION"), " 3");
/// The largest plan that is read: a filter of 4,096 instructions and a thousand mounts are far below it.
const MAX_PLAN: u64 = 4 << 20;

impl LaunchPlan {
    /// The plan in a sealed memory file, as the launch message carries it.
    ///
    /// # Errors
    /// As memfd_create(2).
    pub fn seal(&self) -> Result<Fd> {
        let mut bytes = Vec::with_capacity(16 << 10);
        BUILD.to_owned().put(&mut bytes);
        self.put(&mut bytes);
        if bytes.len() as u64 > MAX_PLAN {
            let message = "is larger than 4 MiB, most of which is its args and environment";
            return Err(Error::invalid("config.json", message));
        }
        let file = file::memfd(c"caisson-plan", false).at(Stage::PLAN, "memfd")?;
        file::write_all(&file, &bytes).at(Stage::PLAN, "memfd")?;
        file::seal(&file).at(Stage::PLAN, "memfd")?;
        Ok(file)
    }

    /// Reads a plan back from its sealed file.
    ///
    /// # Errors
    /// [`Code::RuntimeMismatch`] for a file that is not sealed, or was written by another build.
    pub fn open(file: &Fd) -> Result<Self> {
        let mismatch = |message: &str| Error::new(Code::RuntimeMismatch, Stage::PLAN, "plan", message);
        let length = nix::sys::stat::fstat(file).at(Stage::PLAN, "plan")?.st_size.unsigned_abs();
        if length > MAX_PLAN {
            return Err(mismatch("too large"));
        }
        let length = usize::try_from(length).map_err(|_| mismatch("too large"))?;
        let bytes = file::Sealed::map(file, length).map_err(|_| mismatch("not a sealed memory file"))?;
        let (build, plan) = <(String, Self)>::from_bytes(&bytes)?;
        if build != BUILD {
            return Err(mismatch("addon and executable are of different builds: reinstall caisson"));
        }
        Ok(plan)
    }
}
