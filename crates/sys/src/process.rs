//! Processes: clone3 as a fork, their handles, their ends. clone3(2), pidfd_send_signal(2), waitid(2), setns(2).

use crate::call::{Errno, call, nr};
use crate::fd::{Descriptor, Fd};

/// Namespaces and their flags, `CLONE_NEW*`.
pub mod namespace {
    /// Time; not for clone3, which would freeze its offsets.
    pub const TIME: u64 = 0x80;
    /// Mounts.
    pub const MOUNT: u64 = 0x2_0000;
    /// Cgroup paths.
    pub const CGROUP: u64 = 0x200_0000;
    /// Host and domain name.
    pub const UTS: u64 = 0x400_0000;
    /// System V IPC and POSIX message queues.
    pub const IPC: u64 = 0x800_0000;
    /// Ids and capabilities.
    pub const USER: u64 = 0x1000_0000;
    /// Process ids.
    pub const PID: u64 = 0x2000_0000;
    /// Network interfaces, routes, sockets.
    pub const NET: u64 = 0x4000_0000;
}

/// Which side of a fork this is.
#[derive(Debug)]
pub enum Fork {
    /// The new process.
    Child,
    /// The old one, with the new one's id and handle.
    Parent {
        /// Its id in the caller's pid namespace.
        pid: u32,
        /// Its handle: the only one that cannot come to mean another process.
        pidfd: Fd,
    },
}

/// Forks into new `namespaces` and, if given, straight into a cgroup: clone3 with `CLONE_PIDFD`, `CLONE_CLEAR_SIGHAND`
/// and `CLONE_INTO_CGROUP`, no shared memory. The child's exit signal is SIGCHLD.
///
/// With neither it is clone(2): the default filter of containers answers clone3 with ENOSYS, since it cannot see its flags,
/// and caught signals stay caught in the child.
///
/// The caller must be single-threaded: the child has this thread alone, and a lock that another held stays locked.
///
/// # Errors
/// As clone3(2): EBUSY for a cgroup with controllers enabled below it, ENOSPC at a limit of namespaces.
pub fn fork(namespaces: u64, cgroup: Option<&Fd>) -> Result<Fork, Errno> {
    #[repr(C, align(8))]
    #[derive(Default)]
    struct CloneArgs {
        flags: u64,
        pidfd: u64,
        child_tid: u64,
        parent_tid: u64,
        exit_signal: u64,
        stack: u64,
        stack_size: u64,
        tls: u64,
        set_tid: u64,
        set_tid_size: u64,
        cgroup: u64,
    }
    const CLONE_PIDFD: u64 = 0x1000;
    const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    const SIGCHLD: u64 = 17;
    let mut pidfd: i32 = -1;
    if namespaces == 0 && cgroup.is_none() {
        let flags = (CLONE_PIDFD | SIGCHLD) as usize;
        let place = core::ptr::from_mut(&mut pidfd) as usize;
        // SAFETY: without CLONE_VM the child runs on a copy of everything, as after fork(2); the handle goes to `pidfd`.
        return match unsafe { call(nr::CLONE, [flags, 0, place, 0, 0, 0]) }? {
            0 => Ok(Fork::Child),
            pid => Ok(Fork::Parent { pid: pid as u32, pidfd: Fd::from_call(pidfd as usize) }),
        };
    }
    let mut args = CloneArgs {
        flags: namespaces | CLONE_PIDFD | CLONE_CLEAR_SIGHAND,
        pidfd: core::ptr::from_mut(&mut pidfd) as u64,
        exit_signal: SIGCHLD,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.raw() as u64;
    }
    let size = size_of::<CloneArgs>();
    // SAFETY: without CLONE_VM the child runs on a copy of everything, as after fork(2); `args` is a whole clone_args.
    match unsafe { call(nr::CLONE3, [core::ptr::from_mut(&mut args) as usize, size, 0, 0, 0, 0]) }? {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent { pid: pid as u32, pidfd: Fd::from_call(pidfd as usize) }),
    }
}

/// Forks a sibling: a child of this process's parent, with this process's exit signal, in the pid namespace that children
/// of this one are born in. clone(2) with `CLONE_PARENT`. Answers its id, in this process's own namespace; 0 is the sibling.
///
/// The caller must be single-threaded, as for [`fork`].
///
/// # Errors
/// As clone(2): ENOMEM where that pid namespace's first process has ended; EINVAL for the first process of a namespace.
pub fn fork_sibling() -> Result<u32, Errno> {
    const CLONE_PARENT: usize = 0x8000;
    const SIGCHLD: usize = 17;
    // SAFETY: without CLONE_VM the child runs on a copy of everything, as after fork(2).
    unsafe { call(nr::CLONE, [CLONE_PARENT | SIGCHLD, 0, 0, 0, 0, 0]) }.map(|pid| pid as u32)
}

/// A handle of a process by its id. Right only for an id that cannot have been given to another since.
///
/// # Errors
/// As pidfd_open(2).
pub fn pidfd_open(pid: u32) -> Result<Fd, Errno> {
    // SAFETY: pidfd_open takes numbers only.
    unsafe { call(nr::PIDFD_OPEN, [pid as usize, 0, 0, 0, 0, 0]) }.map(Fd::from_call)
}

/// The namespaces that a pidfd can be asked for, by the number of their question (`PIDFD_GET_*_NAMESPACE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum PidfdNamespace {
    /// cgroup_namespaces(7)
    Cgroup = 1,
    /// ipc_namespaces(7)
    Ipc = 2,
    /// mount_namespaces(7)
    Mount = 3,
    /// network_namespaces(7)
    Network = 4,
    /// pid_namespaces(7): the one that it is in.
    Pid = 5,
    /// time_namespaces(7)
    Time = 7,
    /// user_namespaces(7)
    User = 9,
    /// uts_namespaces(7)
    Uts = 10,
}

/// A namespace that a process is in, by its handle (kernel 6.11).
///
/// # Errors
/// As pidfd_open(2) of Linux 6.11 has it: ENOTTY or EINVAL before, EOPNOTSUPP for a kind that the kernel was built without,
/// ESRCH after its end, EPERM or EACCES where it may not be traced.
pub fn namespace_of(pidfd: impl Descriptor, kind: PidfdNamespace) -> Result<Fd, Errno> {
    const PIDFS_IOCTL_MAGIC: usize = 0xFF << 8;
    // SAFETY: these questions take no argument.
    unsafe { call(nr::IOCTL, [pidfd.raw() as usize, PIDFS_IOCTL_MAGIC | kind as usize, 0, 0, 0, 0]) }
        .map(Fd::from_call)
}

/// Sends a signal by handle; 0 only asks whether the process is there.
///
/// # Errors
/// As pidfd_send_signal(2): ESRCH after its end.
pub fn send_signal(pidfd: impl Descriptor, signal: i32) -> Result<(), Errno> {
    // SAFETY: without a siginfo, numbers only.
    unsafe { call(nr::PIDFD_SEND_SIGNAL, [pidfd.raw() as usize, signal as usize, 0, 0, 0, 0]) }.map(drop)
}

/// How a process ended, and what it used, itself and the children it waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The number given to exit(2), or the signal.
    pub status: i32,
    /// Whether `status` is a signal.
    pub signaled: bool,
    /// CPU time in user mode, microseconds.
    pub user_us: u64,
    /// CPU time in the kernel, microseconds.
    pub system_us: u64,
    /// The largest resident set, KiB.
    pub max_rss_kib: u64,
}

const WNOHANG: usize = 1;
const WEXITED: usize = 4;
const WALL: usize = 0x4000_0000;

/// Takes the end of a child, if it has ended (waitid(2), `P_PIDFD | WEXITED | WNOHANG`, any kind of child).
///
/// # Errors
/// ECHILD if it is not a child of ours, or its end was taken.
pub fn reap(pidfd: impl Descriptor) -> Result<Option<End>, Errno> {
    const P_PIDFD: usize = 3;
    const CLD_EXITED: i32 = 1;
    #[repr(C, align(8))]
    struct SigInfo {
        signo: i32,
        errno: i32,
        code: i32,
        pad: i32,
        pid: i32,
        uid: u32,
        status: i32,
        rest: [u8; 100],
    }
    let mut info = SigInfo { signo: 0, errno: 0, code: 0, pad: 0, pid: 0, uid: 0, status: 0, rest: [0; 100] };
    let mut usage = [0u64; 18];
    let args = [
        P_PIDFD,
        pidfd.raw() as usize,
        core::ptr::from_mut(&mut info) as usize,
        WNOHANG | WEXITED | WALL,
        usage.as_mut_ptr() as usize,
        0,
    ];
    // SAFETY: `info` is as large as a siginfo_t (128) and `usage` as a rusage (144), both ours.
    unsafe { call(nr::WAITID, args) }?;
    let [user_s, user_us, system_s, system_us, max_rss_kib, ..] = usage;
    Ok((info.pid != 0).then(|| End {
        status: info.status,
        signaled: info.code != CLD_EXITED,
        user_us: user_s.wrapping_mul(1_000_000).wrapping_add(user_us),
        system_us: system_s.wrapping_mul(1_000_000).wrapping_add(system_us),
        max_rss_kib,
    }))
}

/// Whether a child has ended; its end is not taken.
///
/// # Errors
/// ECHILD if it is not a child of ours, or its end was taken.
pub fn has_ended(pidfd: impl Descriptor) -> Result<bool, Errno> {
    const P_PIDFD: usize = 3;
    const WNOWAIT: usize = 0x100_0000;
    let mut info = [0u32; 32];
    let args =
        [P_PIDFD, pidfd.raw() as usize, info.as_mut_ptr() as usize, WNOHANG | WEXITED | WALL | WNOWAIT, 0, 0];
    // SAFETY: `info` is as large as a siginfo_t (128), and ours.
    unsafe { call(nr::WAITID, args) }?;
    let [signo, ..] = info;
    Ok(signo != 0)
}

/// Sends SIGKILL to the process group of this id. Right only while a process of it is a child of ours that was not reaped.
///
/// # Errors
/// As kill(2): ESRCH where there is none.
pub fn kill_group(id: u32) -> Result<(), Errno> {
    // SAFETY: kill takes numbers only.
    unsafe { call(nr::KILL, [(id as usize).wrapping_neg(), 9, 0, 0, 0, 0]) }.map(drop)
}

/// Takes the end of one child of ours in this process group; false if none has ended yet.
///
/// # Errors
/// ECHILD where no child of ours is in it any more.
pub fn reap_group(id: u32) -> Result<bool, Errno> {
    const P_PGID: usize = 2;
    let mut info = [0u32; 32];
    let args = [P_PGID, id as usize, info.as_mut_ptr() as usize, WNOHANG | WEXITED | WALL, 0, 0];
    // SAFETY: `info` is as large as a siginfo_t (128), and ours.
    unsafe { call(nr::WAITID, args) }?;
    let [signo, ..] = info;
    Ok(signo != 0)
}

/// Leaves the caller's namespaces of these kinds for new ones.
///
/// # Errors
/// As unshare(2).
pub fn unshare(namespaces: u64) -> Result<(), Errno> {
    // SAFETY: unshare takes a number; without CLONE_FILES or CLONE_VM flags nothing of Rust's is affected.
    unsafe { call(nr::UNSHARE, [namespaces as usize, 0, 0, 0, 0, 0]) }.map(drop)
}

/// Enters the namespace that `fd` refers to; it must be of this kind.
///
/// # Errors
/// As setns(2).
pub fn setns(fd: impl Descriptor, kind: u64) -> Result<(), Errno> {
    // SAFETY: setns takes numbers only.
    unsafe { call(nr::SETNS, [fd.raw() as usize, kind as usize, 0, 0, 0, 0]) }.map(drop)
}

/// A session of its own.
///
/// # Errors
/// As setsid(2): EPERM for a process group leader.
pub fn setsid() -> Result<(), Errno> {
    // SAFETY: setsid takes nothing.
    unsafe { call(nr::SETSID, [0; 6]) }.map(drop)
}

/// A new, empty, anonymous session keyring: what the caller had in its own is out of reach.
///
/// # Errors
/// As keyctl(2), `KEYCTL_JOIN_SESSION_KEYRING`; ENOSYS where the kernel has no keys.
pub fn new_session_keyring() -> Result<(), Errno> {
    const KEYCTL_JOIN_SESSION_KEYRING: usize = 1;
    // SAFETY: with a null name, numbers only.
    unsafe { call(nr::KEYCTL, [KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0, 0]) }.map(drop)
}

/// All signals to their default action, none blocked: what was ignored by an ancestor is no longer.
///
/// # Errors
/// As rt_sigprocmask(2).
pub fn reset_signals() -> Result<(), Errno> {
    const SIG_SETMASK: usize = 2;
    #[repr(C)]
    struct Action {
        handler: usize,
        flags: usize,
        restorer: usize,
        mask: u64,
    }
    let default = Action { handler: 0, flags: 0, restorer: 0, mask: 0 };
    for signal in (1..=64usize).filter(|signal| !matches!(signal, 9 | 19)) {
        // SAFETY: the action is whole, and SIG_DFL runs no code of ours.
        unsafe { call(nr::RT_SIGACTION, [signal, core::ptr::from_ref(&default) as usize, 0, 8, 0, 0]) }?;
    }
    let none = 0u64;
    // SAFETY: the set is 8 bytes, as we say.
    unsafe { call(nr::RT_SIGPROCMASK, [SIG_SETMASK, core::ptr::from_ref(&none) as usize, 0, 8, 0, 0]) }
        .map(drop)
}

/// Sets soft and hard limit of a resource of this process, `RLIMIT_*` by number.
///
/// # Errors
/// As prlimit64(2): EPERM to raise a hard limit without CAP_SYS_RESOURCE.
pub fn set_limit(resource: u32, soft: u64, hard: u64) -> Result<(), Errno> {
    let limit = [soft, hard];
    // SAFETY: the limit is a whole rlimit64.
    unsafe { call(nr::PRLIMIT64, [0, resource as usize, limit.as_ptr() as usize, 0, 0, 0]) }.map(drop)
}

/// Soft and hard limit of a resource of this process.
///
/// # Errors
/// As prlimit64(2).
pub fn limit(resource: u32) -> Result<(u64, u64), Errno> {
    let mut limit = [0u64; 2];
    // SAFETY: the room is a whole rlimit64.
    unsafe { call(nr::PRLIMIT64, [0, resource as usize, 0, limit.as_mut_ptr() as usize, 0, 0]) }?;
    let [soft, hard] = limit;
    Ok((soft, hard))
}

/// The host name of the caller's UTS namespace.
///
/// # Errors
/// As sethostname(2): EINVAL above 64 bytes.
pub fn set_hostname(name: &[u8]) -> Result<(), Errno> {
    // SAFETY: the bytes are borrowed and as many as we say.
    unsafe { call(nr::SETHOSTNAME, [name.as_ptr() as usize, name.len(), 0, 0, 0, 0]) }.map(drop)
}

/// The domain name of the caller's UTS namespace.
///
/// # Errors
/// As setdomainname(2): EINVAL above 64 bytes.
pub fn set_domainname(name: &[u8]) -> Result<(), Errno> {
    // SAFETY: the bytes are borrowed and as many as we say.
    unsafe { call(nr::SETDOMAINNAME, [name.as_ptr() as usize, name.len(), 0, 0, 0, 0]) }.map(drop)
}

/// The parent's id; 0 where it lives in another pid namespace.
#[must_use]
pub fn parent() -> u32 {
    // SAFETY: getppid takes nothing and cannot fail.
    unsafe { call(nr::GETPPID, [0; 6]) }.unwrap_or(0) as u32
}
