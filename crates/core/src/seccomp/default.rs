//! The profile of a container that asks for none: docker's of 2026 (moby/profiles 0.2.3) by what it allows, with the
//! differences that the rows name. Data; a call of no row gets EPERM, a number above the highest named gets ENOSYS.

use oci_spec::runtime::{
    Arch, Capabilities, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArgBuilder,
    LinuxSeccompOperator, LinuxSyscall,
};

use super::profile::Machine;

/// Allowed to everyone.
const ALLOWED: &str = "
    accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32 clock_adjtime
    clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep
    clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1
    epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit
    exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2
    fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat
    fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait
    futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid
    getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid
    getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname
    getsockopt gettid gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1
    inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl
    ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32
    lgetxattr link linkat listen listmount listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lstat
    lstat64 madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock
    mlock2 mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64
    mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall
    munmap name_to_handle_at nanosleep newfstatat open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2
    pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64
    process_mrelease pselect6 pselect6_time64 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recv
    recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename renameat renameat2
    restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
    rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max
    sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval
    sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield
    seccomp select semctl semget semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto
    set_robust_list set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups
    setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32
    setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget
    shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall socketpair splice stat stat64 statfs
    statfs64 statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create
    timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create
    timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit
    umask uname unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid
    write writev _llseek _newselect";

/// Allowed with a capability in the bounding set; `open_tree_attr` is as powerful as `open_tree` and `mount_setattr`
/// (docker's profile does not have it yet).
const WITH: &[(Capability, &str)] = &[
    (Capability::DacReadSearch, "open_by_handle_at"),
    (
        Capability::SysAdmin,
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr
         lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree open_tree_attr perf_event_open
         quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    (Capability::SysBoot, "reboot"),
    (Capability::SysChroot, "chroot"),
    (Capability::SysModule, "delete_module init_module finit_module"),
    (Capability::SysPacct, "acct"),
    (
        Capability::SysPtrace,
        "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    ),
    (Capability::SysRawio, "iopl ioperm"),
    (Capability::SysTime, "settimeofday stime clock_settime clock_settime64"),
    (Capability::SysTtyConfig, "vhangup"),
    (Capability::SysNice, "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    (Capability::Syslog, "syslog"),
    (Capability::Bpf, "bpf"),
    (Capability::Perfmon, "perf_event_open"),
];

/// Without a capability: not there, rather than forbidden. clone3 has its flags behind a pointer, and glibc falls back to
/// clone only for ENOSYS.
const ABSENT_WITHOUT: &[(Capability, &str)] = &[(Capability::SysAdmin, "clone3 open_tree_attr")];

/// Since this kernel a tracer cannot change a call behind the filter.
const TRACING_SINCE: ((u32, u32), &str) = ((4, 8), "process_vm_readv process_vm_writev ptrace");

/// Of one kind of machine, its 32-bit processes too.
const OF_MACHINE: &[(Machine, &str)] = &[
    (Machine::X86_64, "arch_prctl modify_ldt"),
    (Machine::Aarch64, "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2"),
];

/// NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;

/// PER_LINUX, PER_LINUX32, UNAME26 alone and with PER_LINUX32, and the question.
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;

/// The default profile for a container with these capabilities in its bounding set, on this machine and a kernel of this
/// major and minor number.
#[must_use]
pub fn default_profile(bounding: &Capabilities, kernel: (u32, u32)) -> LinuxSeccomp {
    default_profile_for(Machine::NATIVE, bounding, kernel)
}

pub(super) fn default_profile_for(
    machine: Machine,
    bounding: &Capabilities,
    kernel: (u32, u32),
) -> LinuxSeccomp {
    use LinuxSeccompOperator::{ScmpCmpEq, ScmpCmpGt, ScmpCmpLt, ScmpCmpMaskedEq};
    let has = |capability: &Capability| bounding.contains(capability);
    let mut syscalls = vec![allow(ALLOWED)];
    syscalls.extend(WITH.iter().filter(|row| has(&row.0)).map(|row| allow(row.1)));
    syscalls
        .extend(ABSENT_WITHOUT.iter().filter(|row| !has(&row.0)).map(|row| errno(row.1, nix::libc::ENOSYS)));
    if kernel >= TRACING_SINCE.0 {
        syscalls.push(allow(TRACING_SINCE.1));
    }
    syscalls.extend(OF_MACHINE.iter().filter(|row| row.0 == machine).map(|row| allow(row.1)));
    if !has(&Capability::SysAdmin) {
        syscalls.push(first(allow("clone"), ScmpCmpMaskedEq, CLONE_NAMESPACES, 0));
    }
    syscalls.extend(PERSONALITIES.map(|value| first(allow("personality"), ScmpCmpEq, value, 0)));
    syscalls.push(first(allow("socket"), ScmpCmpLt, AF_ALG, 0));
    syscalls.push(first(allow("socket"), ScmpCmpEq, AF_ALG + 1, 0));
    syscalls.push(first(allow("socket"), ScmpCmpGt, AF_VSOCK, 0));
    // Not in docker's: the kernel looks at 32 bits of the family, the rule above at 64, so 1 << 32 | AF_ALG is above
    // AF_VSOCK for the one and AF_ALG for the other.
    for family in [AF_ALG, AF_VSOCK] {
        syscalls.push(first(errno("socket", nix::libc::EPERM), ScmpCmpMaskedEq, 0xffff_ffff, family));
    }
    let mut profile = LinuxSeccomp::default();
    profile
        .set_default_action(LinuxSeccompAction::ScmpActErrno)
        .set_default_errno_ret(Some(nix::libc::EPERM as u32))
        .set_architectures(Some(architectures(machine)))
        .set_syscalls(Some(syscalls));
    profile
}

pub(super) fn architectures(machine: Machine) -> Vec<Arch> {
    match machine {
        Machine::X86_64 => vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32],
        Machine::Aarch64 => vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm],
    }
}

fn allow(names: &str) -> LinuxSyscall {
    let mut entry = LinuxSyscall::default();
    entry
        .set_names(names.split_ascii_whitespace().map(str::to_owned).collect())
        .set_action(LinuxSeccompAction::ScmpActAllow);
    entry
}

fn errno(names: &str, number: i32) -> LinuxSyscall {
    let mut entry = allow(names);
    entry.set_action(LinuxSeccompAction::ScmpActErrno).set_errno_ret(u32::try_from(number).ok());
    entry
}

/// With a condition on the first argument.
fn first(mut entry: LinuxSyscall, op: LinuxSeccompOperator, value: u64, value_two: u64) -> LinuxSyscall {
    let arg =
        LinuxSeccompArgBuilder::default().index(0_usize).op(op).value(value).value_two(value_two).build();
    let arg = arg.expect("each field of the builder has a default");
    entry.set_args(Some(vec![arg]));
    entry
}
