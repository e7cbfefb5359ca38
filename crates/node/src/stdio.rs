//! The three descriptors of a payload: pipes, /dev/null, or what the caller has.

use crate::held::{hold, with};
use caisson_core::{At, Code, Error, Result, Stage};
use caisson_sys::fd::{Number, duplicate};
use caisson_sys::{Cwd, Fd, file};
use napi::bindgen_prelude::Buffer;
use napi_derive::napi;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{SFlag, fstat};
use nix::sys::termios::{OutputFlags, SetArg, tcgetattr, tcsetattr};

/// `/dev/null`, in the words of the JavaScript side.
const IGNORE: i32 = -1;

/// A pipe, for a payload's stdin, stdout or stderr: the reading and the writing end, both held.
///
/// # Errors
/// EMFILE.
#[napi(catch_unwind)]
pub fn pipe() -> napi::Result<Vec<i32>> {
    let ends = nix::unistd::pipe2(OFlag::O_CLOEXEC);
    let (read, write) = ends.map_err(|errno| napi::Error::from_reason(format!("pipe: {errno}")))?;
    Ok(vec![hold(read.into()), hold(write.into())])
}

/// Lets a pipe that is held have as much as an ordinary user's may: 1 MiB. What cannot be had is left.
#[napi(catch_unwind)]
pub fn widen(pipe: i32) {
    let _ = with(pipe, |pipe| fcntl(pipe, FcntlArg::F_SETPIPE_SZ(MOST as i32)));
}

/// Whether a descriptor is a terminal: isatty(3), without loading node:tty.
#[napi(catch_unwind)]
#[must_use]
pub fn is_terminal(number: i32) -> bool {
    number >= 0 && caisson_sys::ioctl::is_terminal(Number(number))
}

/// Lets a terminal at stdin pass output on as it is. Node's raw mode does not: it still makes CR LF of each LF, which the
/// container's own terminal did already, and LF alone means down. Node's way back undoes this, too.
#[napi(catch_unwind)]
pub fn raw_output() {
    let stdin = std::io::stdin();
    if let Ok(mut mode) = tcgetattr(&stdin) {
        mode.output_flags.remove(OutputFlags::OPOST);
        let _ = tcsetattr(&stdin, SetArg::TCSADRAIN, &mode);
    }
}

/// The most that [`drain`] reads at a time: what a pipe can hold (/proc/sys/fs/pipe-max-size).
const MOST: usize = 1 << 20;

/// What was in a pipe.
#[napi(object)]
pub struct Drained {
    /// Its content, if it had any.
    pub bytes: Option<Buffer>,
    /// Whether nobody can write to it any more.
    pub ended: bool,
}

/// Reads what is in a pipe that is held, without waiting: at most 1 MiB.
#[napi(catch_unwind)]
#[must_use]
pub fn drain(pipe: i32) -> Drained {
    let mut bytes = Vec::new();
    let ended = with(pipe, |pipe| read_all(pipe, &mut bytes)).is_some_and(|answer| answer.unwrap_or(false));
    Drained { bytes: (!bytes.is_empty()).then(|| bytes.into()), ended }
}

fn read_all(pipe: &Fd, bytes: &mut Vec<u8>) -> nix::Result<bool> {
    let flags = OFlag::from_bits_truncate(fcntl(pipe, FcntlArg::F_GETFL)?);
    fcntl(pipe, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    let mut room = [0; 1 << 14];
    while bytes.len() < MOST {
        match nix::unistd::read(pipe, &mut room)? {
            0 => return Ok(true),
            count => bytes.extend_from_slice(room.get(..count).unwrap_or_default()),
        }
    }
    Ok(false)
}

/// Opens what stdin, stdout and stderr are to be. Those whose bit is in `own` are pipes that Caisson made.
pub(crate) fn open(wanted: &[i32], own: u8) -> Result<Vec<Fd>> {
    let one = |(index, number): (usize, &i32)| {
        let name = ["stdin", "stdout", "stderr"].get(index).copied().unwrap_or("stdio");
        match *number {
            IGNORE => null().at(Stage::TERMINAL, name),
            number if own >> index & 1 == 1 => duplicate(Number(number), 3).at(Stage::TERMINAL, name),
            number => given(number, name),
        }
    };
    wanted.iter().enumerate().map(one).collect()
}

/// Whether a descriptor of the caller's can be a payload's own; else it is relayed.
#[napi(catch_unwind)]
#[must_use]
pub fn can_be_handed_in(number: i32) -> bool {
    given(number, "stdio").is_ok()
}

fn null() -> nix::Result<Fd> {
    let raw = |errno: caisson_sys::Errno| nix::errno::Errno::from_raw(errno.raw());
    let null = file::openat2(Cwd, c"/dev/null", file::open::RDWR, 0, 0).map_err(raw)?;
    let stat = fstat(&null)?;
    let is_null = stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFCHR.bits()
        && stat.st_rdev == nix::sys::stat::makedev(1, 3);
    if is_null { Ok(null) } else { Err(nix::errno::Errno::ENODEV) }
}

/// A descriptor of the caller's, for the payload itself. A terminal is never handed in (TIOCSTI and kin). One that Node
/// has made non-blocking is opened anew: the flag is on the open file, and the payload would see it.
fn given(number: i32, name: &str) -> Result<Fd> {
    let refuse = |message: &str| Error::new(Code::InvalidSpec, Stage::TERMINAL, name, message);
    let file = duplicate(Number(number), 3).at(Stage::TERMINAL, name)?;
    if nix::unistd::isatty(&file).unwrap_or(false) {
        return Err(refuse("is a terminal: those are relayed or made by Caisson, never handed in"));
    }
    let kind = fstat(&file).at(Stage::TERMINAL, name)?.st_mode & SFlag::S_IFMT.bits();
    if kind == SFlag::S_IFDIR.bits() {
        return Err(refuse("is a directory, which would lead out of the container"));
    }
    let flags = OFlag::from_bits_truncate(fcntl(&file, FcntlArg::F_GETFL).at(Stage::TERMINAL, name)?);
    if !flags.contains(OFlag::O_NONBLOCK) {
        return Ok(file);
    }
    if kind == SFlag::S_IFSOCK.bits() {
        return Err(refuse("is a non-blocking socket, which cannot be opened anew: use 'pipe'"));
    }
    let path = format!("/proc/self/fd/{number}");
    let path = std::ffi::CString::new(path).map_err(|_| refuse("is no descriptor"))?;
    let access = u64::from((flags & OFlag::O_ACCMODE).bits().unsigned_abs());
    file::openat2(Cwd, &path, access | file::open::NOCTTY, 0, 0).at(Stage::TERMINAL, name)
}
