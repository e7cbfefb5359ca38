//! Who a process is and what it may do: ids by the raw calls (libc's signal every thread), capabilities,
//! no_new_privs, the system call filter. credentials(7), capabilities(7), prctl(2), seccomp(2).

use crate::call::{Errno, call, nr};

fn prctl(option: usize, a: usize, b: usize) -> Result<usize, Errno> {
    // SAFETY: every option used in this file but PR_SET_NAME takes numbers only, and that one is given a buffer.
    unsafe { call(nr::PRCTL, [option, a, b, 0, 0, 0]) }
}

/// Whether others of the same user may trace this process, read its memory and open its /proc files.
///
/// # Errors
/// As prctl(2), `PR_SET_DUMPABLE`.
pub fn set_dumpable(dumpable: bool) -> Result<(), Errno> {
    prctl(4, usize::from(dumpable), 0).map(drop)
}

/// The name that ps shows, at most 15 bytes.
///
/// # Errors
/// As prctl(2), `PR_SET_NAME`.
pub fn set_name(name: &core::ffi::CStr) -> Result<(), Errno> {
    let mut room = [0u8; 16];
    for (place, byte) in room.iter_mut().take(15).zip(name.to_bytes()) {
        *place = *byte;
    }
    prctl(15, room.as_ptr() as usize, 0).map(drop)
}

/// The signal that this process gets when the thread that made it ends. Lost at a change of ids and at a set-id exec. It
/// does not come for a parent that has ended already: compare [`crate::process::parent`] after this.
///
/// # Errors
/// As prctl(2), `PR_SET_PDEATHSIG`.
pub fn set_parent_death_signal(signal: i32) -> Result<(), Errno> {
    prctl(1, signal as usize, 0).map(drop)
}

/// Makes this process the one to which orphans among its descendants go; kept over an exec, not inherited.
///
/// # Errors
/// As prctl(2), `PR_SET_CHILD_SUBREAPER`.
pub fn set_subreaper() -> Result<(), Errno> {
    prctl(36, 1, 0).map(drop)
}

/// Keeps the permitted capabilities over a change of user id, until the next exec.
///
/// # Errors
/// As prctl(2), `PR_SET_KEEPCAPS`.
pub fn keep_capabilities() -> Result<(), Errno> {
    prctl(8, 1, 0).map(drop)
}

/// No exec of this process or its descendants gains a privilege any more.
///
/// # Errors
/// As prctl(2), `PR_SET_NO_NEW_PRIVS`.
pub fn set_no_new_privileges() -> Result<(), Errno> {
    prctl(38, 1, 0).map(drop)
}

/// Whether [`set_no_new_privileges`] is in force.
///
/// # Errors
/// As prctl(2), `PR_GET_NO_NEW_PRIVS`.
pub fn no_new_privileges() -> Result<bool, Errno> {
    prctl(39, 0, 0).map(|answer| answer == 1)
}

/// How many capabilities this kernel has: numbers from 0 to 63 that are not known are EINVAL.
#[must_use]
pub fn is_bounding(capability: u32) -> Option<bool> {
    prctl(23, capability as usize, 0).ok().map(|answer| answer == 1)
}

/// The bounding set, as far as the kernel knows capabilities.
#[must_use]
pub fn bounding() -> u64 {
    (0..64).map_while(|number| is_bounding(number).map(|held| u64::from(held) << number)).sum()
}

/// Takes every capability that is not in `keep` out of the bounding set.
///
/// # Errors
/// As prctl(2), `PR_CAPBSET_DROP`: EPERM without CAP_SETPCAP.
pub fn limit_bounding(keep: u64) -> Result<(), Errno> {
    for number in 0..64u32 {
        if keep >> number & 1 == 1 {
            continue;
        }
        match prctl(24, number as usize, 0) {
            Ok(_) => {}
            Err(Errno::EINVAL) => return Ok(()),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// The three sets of a thread, a bit a capability.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// What is in force.
    pub effective: u64,
    /// What may be brought in force.
    pub permitted: u64,
    /// What a program with inheritable file capabilities is given.
    pub inheritable: u64,
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}
const CAP_VERSION_3: u32 = 0x2008_0522;

/// Sets the three sets of this thread.
///
/// # Errors
/// As capset(2): EPERM for what is not permitted now.
pub fn set_capabilities(sets: Capabilities) -> Result<(), Errno> {
    let header = CapHeader { version: CAP_VERSION_3, pid: 0 };
    let low = |set: u64| set as u32;
    let high = |set: u64| (set >> 32) as u32;
    let data = [
        low(sets.effective),
        low(sets.permitted),
        low(sets.inheritable),
        high(sets.effective),
        high(sets.permitted),
        high(sets.inheritable),
    ];
    // SAFETY: version 3 takes a header and two sets of three words.
    unsafe { call(nr::CAPSET, [core::ptr::from_ref(&header) as usize, data.as_ptr() as usize, 0, 0, 0, 0]) }
        .map(drop)
}

/// The three sets of this thread.
///
/// # Errors
/// As capget(2).
pub fn capabilities() -> Result<Capabilities, Errno> {
    let mut header = CapHeader { version: CAP_VERSION_3, pid: 0 };
    let mut data = [0u32; 6];
    // SAFETY: version 3 fills two sets of three words.
    unsafe {
        call(nr::CAPGET, [core::ptr::from_mut(&mut header) as usize, data.as_mut_ptr() as usize, 0, 0, 0, 0])
    }?;
    let [effective, permitted, inheritable, effective_high, permitted_high, inheritable_high] = data;
    let whole = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    Ok(Capabilities {
        effective: whole(effective, effective_high),
        permitted: whole(permitted, permitted_high),
        inheritable: whole(inheritable, inheritable_high),
    })
}

/// Makes `set` the ambient set; each must be permitted and inheritable.
///
/// # Errors
/// As prctl(2), `PR_CAP_AMBIENT_RAISE`.
pub fn set_ambient(set: u64) -> Result<(), Errno> {
    prctl(47, 4, 0)?;
    for number in (0..64u32).filter(|number| set >> number & 1 == 1) {
        prctl(47, 2, number as usize)?;
    }
    Ok(())
}

/// Real, effective and saved user id of this thread; a process that uses it must have one thread.
///
/// # Errors
/// As setresuid(2): EINVAL for an id without a mapping.
pub fn set_user(uid: u32) -> Result<(), Errno> {
    // SAFETY: setresuid takes numbers only.
    unsafe { call(nr::SETRESUID, [uid as usize, uid as usize, uid as usize, 0, 0, 0]) }.map(drop)
}

/// Real, effective and saved group id of this thread; a process that uses it must have one thread.
///
/// # Errors
/// As setresgid(2).
pub fn set_group(gid: u32) -> Result<(), Errno> {
    // SAFETY: setresgid takes numbers only.
    unsafe { call(nr::SETRESGID, [gid as usize, gid as usize, gid as usize, 0, 0, 0]) }.map(drop)
}

/// The supplementary groups of this thread.
///
/// # Errors
/// As setgroups(2): EPERM where the user namespace denies it.
pub fn set_groups(groups: &[u32]) -> Result<(), Errno> {
    // SAFETY: the list is borrowed and as long as we say.
    unsafe { call(nr::SETGROUPS, [groups.len(), groups.as_ptr() as usize, 0, 0, 0, 0]) }.map(drop)
}

/// Loads a system call filter: `program` is an array of `struct sock_filter` as bytes, `flags` are
/// `SECCOMP_FILTER_FLAG_*`. The kernel checks the program.
///
/// # Errors
/// As seccomp(2): EACCES without no_new_privs and without CAP_SYS_ADMIN; EINVAL for a bad program.
pub fn load_filter(program: &[u8], flags: u32) -> Result<(), Errno> {
    const SECCOMP_SET_MODE_FILTER: usize = 1;
    #[repr(C)]
    struct Program {
        instructions: u16,
        first: *const u8,
    }
    let whole = Program { instructions: (program.len() / 8) as u16, first: program.as_ptr() };
    let args = [SECCOMP_SET_MODE_FILTER, flags as usize, core::ptr::from_ref(&whole) as usize, 0, 0, 0];
    // SAFETY: the kernel copies `instructions` times 8 bytes from a borrowed slice that is at least as long.
    unsafe { call(nr::SECCOMP, args) }.map(drop)
}
