//! The few ioctls: a link up, a terminal's size, its other end, its session. netdevice(7), ioctl_tty(2).

use crate::call::{Errno, call, nr};
use crate::fd::{Descriptor, Fd};

/// Sets the flags of a network interface to up and running (`SIOCSIFFLAGS`); `socket` is any socket of its namespace.
///
/// # Errors
/// As netdevice(7): ENODEV for a name that is not there.
pub fn set_link_up(socket: impl Descriptor, name: &core::ffi::CStr) -> Result<(), Errno> {
    const SIOCSIFFLAGS: usize = 0x8914;
    const IFF_UP_RUNNING: u16 = 0x1 | 0x40;
    #[repr(C)]
    struct Request {
        name: [u8; 16],
        flags: u16,
        rest: [u8; 22],
    }
    let mut request = Request { name: [0; 16], flags: IFF_UP_RUNNING, rest: [0; 22] };
    for (place, byte) in request.name.iter_mut().take(15).zip(name.to_bytes()) {
        *place = *byte;
    }
    // SAFETY: the request is a whole ifreq.
    unsafe {
        call(
            nr::IOCTL,
            [socket.raw() as usize, SIOCSIFFLAGS, core::ptr::from_mut(&mut request) as usize, 0, 0, 0],
        )
    }
    .map(drop)
}

/// Whether it is a terminal: whether it answers `TCGETS`.
#[must_use]
pub fn is_terminal(file: impl Descriptor) -> bool {
    const TCGETS: usize = 0x5401;
    // More than a struct termios of any architecture.
    let mut room = [0u64; 32];
    let argument = room.as_mut_ptr() as usize;
    // SAFETY: the room is larger than what the kernel writes, and outlives the call.
    unsafe { call(nr::IOCTL, [file.raw() as usize, TCGETS, argument, 0, 0, 0]) }.is_ok()
}

/// Columns and rows of a terminal (`TIOCSWINSZ`).
///
/// # Errors
/// As ioctl_tty(2): ENOTTY for what is no terminal.
pub fn set_window_size(terminal: impl Descriptor, columns: u16, rows: u16) -> Result<(), Errno> {
    const TIOCSWINSZ: usize = 0x5414;
    let size = [rows, columns, 0, 0];
    // SAFETY: the size is a whole winsize.
    unsafe { call(nr::IOCTL, [terminal.raw() as usize, TIOCSWINSZ, size.as_ptr() as usize, 0, 0, 0]) }
        .map(drop)
}

/// Unlocks a new pseudo terminal's other end (`TIOCSPTLCK` with 0).
///
/// # Errors
/// As ioctl_tty(2).
pub fn unlock_terminal(master: impl Descriptor) -> Result<(), Errno> {
    const TIOCSPTLCK: usize = 0x4004_5431;
    let unlocked = 0i32;
    let argument = core::ptr::from_ref(&unlocked) as usize;
    // SAFETY: the argument is an int that outlives the call.
    unsafe { call(nr::IOCTL, [master.raw() as usize, TIOCSPTLCK, argument, 0, 0, 0]) }.map(drop)
}

/// The other end of a pseudo terminal, opened without a path (`TIOCGPTPEER`).
///
/// # Errors
/// As ioctl_tty(2): EIO if it is no master.
pub fn terminal_peer(master: impl Descriptor) -> Result<Fd, Errno> {
    const TIOCGPTPEER: usize = 0x5441;
    const O_RDWR_NOCTTY_CLOEXEC: usize = 0o2_000_000 | 0o400 | 2;
    // SAFETY: TIOCGPTPEER takes open flags by value.
    unsafe { call(nr::IOCTL, [master.raw() as usize, TIOCGPTPEER, O_RDWR_NOCTTY_CLOEXEC, 0, 0, 0]) }
        .map(Fd::from_call)
}

/// Makes a terminal the controlling one of the caller's session (`TIOCSCTTY`), never taking another session's.
///
/// # Errors
/// As ioctl_tty(2): EPERM unless the caller leads a session without one.
pub fn take_terminal(terminal: impl Descriptor) -> Result<(), Errno> {
    const TIOCSCTTY: usize = 0x540e;
    // SAFETY: TIOCSCTTY takes a number.
    unsafe { call(nr::IOCTL, [terminal.raw() as usize, TIOCSCTTY, 0, 0, 0, 0]) }.map(drop)
}
