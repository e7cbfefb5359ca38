//! The system call instruction, and its answer.

use core::fmt;

/// An errno, as the kernel returned it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(i32);

impl Errno {
    /// No such file or directory.
    pub const ENOENT: Self = Self(2);
    /// Interrupted by a signal.
    pub const EINTR: Self = Self(4);
    /// Try again.
    pub const EAGAIN: Self = Self(11);
    /// The arguments are too long.
    pub const E2BIG: Self = Self(7);
    /// Out of memory; also where nobody can be born any more.
    pub const ENOMEM: Self = Self(12);
    /// Permission denied.
    pub const EACCES: Self = Self(13);
    /// Operation not permitted.
    pub const EPERM: Self = Self(1);
    /// Device or resource busy.
    pub const EBUSY: Self = Self(16);
    /// File exists.
    pub const EEXIST: Self = Self(17);
    /// Invalid argument.
    pub const EINVAL: Self = Self(22);
    /// Not a directory.
    pub const ENOTDIR: Self = Self(20);
    /// Is a directory.
    pub const EISDIR: Self = Self(21);
    /// File name too long.
    pub const ENAMETOOLONG: Self = Self(36);
    /// Not implemented by this kernel.
    pub const ENOSYS: Self = Self(38);
    /// Too many symbolic links, or one where none may be.
    pub const ELOOP: Self = Self(40);
    /// The directory is not empty.
    pub const ENOTEMPTY: Self = Self(39);
    /// No such extended attribute.
    pub const ENODATA: Self = Self(61);
    /// The room given is too small.
    pub const ERANGE: Self = Self(34);
    /// Not supported by this file system.
    pub const EOPNOTSUPP: Self = Self(95);
    /// Another file system.
    pub const EXDEV: Self = Self(18);
    /// No child processes.
    pub const ECHILD: Self = Self(10);
    /// No space left: of a device, or of a count that has a limit.
    pub const ENOSPC: Self = Self(28);
    /// The other end was closed before it had read all.
    pub const ECONNRESET: Self = Self(104);
    /// Nobody listens there.
    pub const ECONNREFUSED: Self = Self(111);
    /// No such process.
    pub const ESRCH: Self = Self(3);

    /// An errno by its number.
    #[must_use]
    pub const fn from_raw(raw: i32) -> Self {
        Self(raw)
    }

    /// The number.
    #[must_use]
    pub const fn raw(self) -> i32 {
        self.0
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Errno({})", self.0)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "errno {}", self.0)
    }
}
#[cfg(target_arch = "x86_64")]
mod arch {
    use core::arch::asm;

    /// Numbers of the table of x86-64, <https://man7.org/linux/man-pages/man2/syscalls.2.html>.
    pub mod nr {
        pub const READ: usize = 0;
        pub const WRITE: usize = 1;
        pub const CLOSE: usize = 3;
        pub const MMAP: usize = 9;
        pub const MUNMAP: usize = 11;
        pub const RT_SIGACTION: usize = 13;
        pub const RT_SIGPROCMASK: usize = 14;
        pub const IOCTL: usize = 16;
        pub const SENDMSG: usize = 46;
        pub const RECVMSG: usize = 47;
        pub const CLONE: usize = 56;
        pub const EXECVE: usize = 59;
        pub const KILL: usize = 62;
        pub const FCNTL: usize = 72;
        pub const GETPPID: usize = 110;
        pub const SETSID: usize = 112;
        pub const SETGROUPS: usize = 116;
        pub const SETRESUID: usize = 117;
        pub const SETRESGID: usize = 119;
        pub const CAPGET: usize = 125;
        pub const CAPSET: usize = 126;
        pub const PIVOT_ROOT: usize = 155;
        pub const PRCTL: usize = 157;
        pub const MOUNT: usize = 165;
        pub const UMOUNT2: usize = 166;
        pub const SETHOSTNAME: usize = 170;
        pub const SETDOMAINNAME: usize = 171;
        pub const FSETXATTR: usize = 190;
        pub const FGETXATTR: usize = 193;
        pub const FLISTXATTR: usize = 196;
        pub const FREMOVEXATTR: usize = 199;
        pub const EXIT_GROUP: usize = 231;
        pub const WAITID: usize = 247;
        pub const KEYCTL: usize = 250;
        pub const UNSHARE: usize = 272;
        pub const EXECVEAT: usize = 322;
        pub const DUP3: usize = 292;
        pub const PRLIMIT64: usize = 302;
        pub const SETNS: usize = 308;
        pub const SECCOMP: usize = 317;
        pub const MEMFD_CREATE: usize = 319;
        pub const BPF: usize = 321;
    }

    /// # Safety
    /// The arguments must be what this system call wants: pointers valid for what it reads and writes.
    #[inline]
    pub unsafe fn syscall6(n: usize, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> isize {
        let answer: isize;
        // SAFETY: the kernel keeps all registers but rax, rcx and r11; memory effects are the caller's promise.
        unsafe {
            asm!("syscall", inlateout("rax") n as isize => answer, in("rdi") a, in("rsi") b, in("rdx") c,
                in("r10") d, in("r8") e, in("r9") f, out("rcx") _, out("r11") _, options(nostack));
        }
        answer
    }
}

#[cfg(target_arch = "aarch64")]
mod arch {
    use core::arch::asm;

    /// Numbers of the generic table, asm-generic/unistd.h.
    pub mod nr {
        pub const FSETXATTR: usize = 7;
        pub const FGETXATTR: usize = 10;
        pub const FLISTXATTR: usize = 13;
        pub const FREMOVEXATTR: usize = 16;
        pub const READ: usize = 63;
        pub const WRITE: usize = 64;
        pub const CLOSE: usize = 57;
        pub const MMAP: usize = 222;
        pub const MUNMAP: usize = 215;
        pub const RT_SIGACTION: usize = 134;
        pub const RT_SIGPROCMASK: usize = 135;
        pub const IOCTL: usize = 29;
        pub const SENDMSG: usize = 211;
        pub const RECVMSG: usize = 212;
        pub const CLONE: usize = 220;
        pub const EXECVE: usize = 221;
        pub const KILL: usize = 129;
        pub const EXECVEAT: usize = 281;
        pub const FCNTL: usize = 25;
        pub const GETPPID: usize = 173;
        pub const SETSID: usize = 157;
        pub const SETGROUPS: usize = 159;
        pub const SETRESUID: usize = 147;
        pub const SETRESGID: usize = 149;
        pub const CAPGET: usize = 90;
        pub const CAPSET: usize = 91;
        pub const PIVOT_ROOT: usize = 41;
        pub const PRCTL: usize = 167;
        pub const MOUNT: usize = 40;
        pub const UMOUNT2: usize = 39;
        pub const SETHOSTNAME: usize = 161;
        pub const SETDOMAINNAME: usize = 162;
        pub const EXIT_GROUP: usize = 94;
        pub const WAITID: usize = 95;
        pub const KEYCTL: usize = 219;
        pub const UNSHARE: usize = 97;
        pub const DUP3: usize = 24;
        pub const PRLIMIT64: usize = 261;
        pub const SETNS: usize = 268;
        pub const SECCOMP: usize = 277;
        pub const MEMFD_CREATE: usize = 279;
        pub const BPF: usize = 280;
    }

    /// # Safety
    /// The arguments must be what this system call wants: pointers valid for what it reads and writes.
    #[inline]
    pub unsafe fn syscall6(n: usize, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> isize {
        let answer: isize;
        // SAFETY: the kernel keeps all registers but x0; memory effects are the caller's promise.
        unsafe {
            asm!("svc 0", in("x8") n, inlateout("x0") a as isize => answer, in("x1") b, in("x2") c,
                in("x3") d, in("x4") e, in("x5") f, options(nostack));
        }
        answer
    }
}

pub mod nr {
    //! Numbers: the architecture's own, and those that are the same everywhere (all since 424).
    pub use super::arch::nr::*;
    pub const PIDFD_SEND_SIGNAL: usize = 424;
    pub const OPEN_TREE: usize = 428;
    pub const MOVE_MOUNT: usize = 429;
    pub const FSOPEN: usize = 430;
    pub const FSCONFIG: usize = 431;
    pub const FSMOUNT: usize = 432;
    pub const PIDFD_OPEN: usize = 434;
    pub const CLONE3: usize = 435;
    pub const CLOSE_RANGE: usize = 436;
    pub const OPENAT2: usize = 437;
    pub const MOUNT_SETATTR: usize = 442;
}

/// One system call with its answer read as the kernel means it: -4095..-1 is an errno.
///
/// # Safety
/// The arguments must be what system call `n` wants: pointers valid for what it reads and writes.
#[inline]
pub unsafe fn call(n: usize, args: [usize; 6]) -> Result<usize, Errno> {
    let [a, b, c, d, e, f] = args;
    // SAFETY: the caller's promise, handed on.
    let answer = unsafe { arch::syscall6(n, a, b, c, d, e, f) };
    match answer {
        -4095..=-1 => Err(Errno((-answer) as i32)),
        _ => Ok(answer.cast_unsigned()),
    }
}

/// Ends the process at once: no destructor, no exit handler.
pub fn exit(status: i32) -> ! {
    loop {
        // SAFETY: exit_group takes a number and does not return.
        let _ = unsafe { call(nr::EXIT_GROUP, [status.cast_unsigned() as usize, 0, 0, 0, 0, 0]) };
    }
}
