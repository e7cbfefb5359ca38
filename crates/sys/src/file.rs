//! Opening below a directory, memory files, execution. openat2(2), memfd_create(2), mmap(2), execve(2).

use crate::call::{Errno, call, nr};
use crate::fd::{Descriptor, Fd};
use core::ffi::CStr;

/// Flags of open(2) that the callers here need.
pub mod open {
    /// A reference to the place, without opening what is there.
    pub const PATH: u64 = 0o10_000_000;
    /// For reading.
    pub const RDONLY: u64 = 0;
    /// For writing.
    pub const WRONLY: u64 = 1;
    /// For both.
    pub const RDWR: u64 = 2;
    /// Made if absent.
    pub const CREAT: u64 = 0o100;
    /// Must be absent.
    pub const EXCL: u64 = 0o200;
    /// Each write goes to the end.
    pub const APPEND: u64 = 0o2_000;
    /// Does not become the controlling terminal.
    pub const NOCTTY: u64 = 0o400;
    /// Does not wait for a FIFO's other end.
    pub const NONBLOCK: u64 = 0o4_000;
    /// Must be a directory.
    #[cfg(target_arch = "x86_64")]
    pub const DIRECTORY: u64 = 0o200_000;
    /// Must be a directory.
    #[cfg(target_arch = "aarch64")]
    pub const DIRECTORY: u64 = 0o40_000;
    /// A link in the last place is an error, or is what is opened with [`PATH`].
    #[cfg(target_arch = "x86_64")]
    pub const NOFOLLOW: u64 = 0o400_000;
    /// A link in the last place is an error, or is what is opened with [`PATH`].
    #[cfg(target_arch = "aarch64")]
    pub const NOFOLLOW: u64 = 0o100_000;
}

/// How openat2(2) may resolve a path, `RESOLVE_*`.
pub mod resolve {
    /// Crossing into another mount is an error.
    pub const NO_XDEV: u64 = 0x01;
    /// The links of /proc that lead elsewhere are an error.
    pub const NO_MAGICLINKS: u64 = 0x02;
    /// Any symbolic link is an error.
    pub const NO_SYMLINKS: u64 = 0x04;
    /// Leaving the directory is an error.
    pub const BENEATH: u64 = 0x08;
    /// The directory is the root of the walk: `..` and absolute links stay inside.
    pub const IN_ROOT: u64 = 0x10;
}

/// Opens `path` below `dir`, resolved as `resolve` says. Always close-on-exec. `mode` counts with [`open::CREAT`] only.
///
/// # Errors
/// As openat2(2): EXDEV and ELOOP for what `resolve` forbids; EAGAIN when the tree moved under the walk, tried again
/// here a bounded number of times.
pub fn openat2(dir: impl Descriptor, path: &CStr, flags: u64, resolve: u64, mode: u32) -> Result<Fd, Errno> {
    #[repr(C)]
    struct How {
        flags: u64,
        mode: u64,
        resolve: u64,
    }
    const O_CLOEXEC: u64 = 0o2_000_000;
    let how = How { flags: flags | O_CLOEXEC, mode: u64::from(mode), resolve };
    let args = [
        dir.raw() as usize,
        path.as_ptr() as usize,
        core::ptr::from_ref(&how) as usize,
        size_of::<How>(),
        0,
        0,
    ];
    let mut tries = 0;
    loop {
        // SAFETY: `path` is a C string and `how` a whole open_how of the size given.
        match unsafe { call(nr::OPENAT2, args) } {
            Err(Errno::EAGAIN) if tries < 128 => tries += 1,
            answer => return answer.map(Fd::from_call),
        }
    }
}

/// A new memory file that can be sealed; executable only if `executable` (`MFD_EXEC`, 6.3, left out before).
///
/// # Errors
/// As memfd_create(2): EACCES where `vm.memfd_noexec` is 2.
pub fn memfd(name: &CStr, executable: bool) -> Result<Fd, Errno> {
    const MFD_CLOEXEC: usize = 1;
    const MFD_ALLOW_SEALING: usize = 2;
    const MFD_NOEXEC_SEAL: usize = 8;
    const MFD_EXEC: usize = 16;
    let kind = if executable { MFD_EXEC } else { MFD_NOEXEC_SEAL };
    let make = |flags: usize| {
        // SAFETY: `name` is a C string.
        unsafe { call(nr::MEMFD_CREATE, [name.as_ptr() as usize, flags, 0, 0, 0, 0]) }.map(Fd::from_call)
    };
    match make(MFD_CLOEXEC | MFD_ALLOW_SEALING | kind) {
        Err(Errno::EINVAL) => make(MFD_CLOEXEC | MFD_ALLOW_SEALING),
        answer => answer,
    }
}

const F_ADD_SEALS: usize = 1033;
const F_GET_SEALS: usize = 1034;
/// `F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE`: nothing about the file can change any more.
const ALL_SEALS: usize = 0xf;

/// Seals a memory file against every change.
///
/// # Errors
/// As fcntl(2), `F_ADD_SEALS`: EBUSY while it is mapped for writing.
pub fn seal(file: impl Descriptor) -> Result<(), Errno> {
    // SAFETY: fcntl with F_ADD_SEALS takes numbers only.
    unsafe { call(nr::FCNTL, [file.raw() as usize, F_ADD_SEALS, ALL_SEALS, 0, 0, 0]) }.map(drop)
}

/// A sealed memory file, mapped for reading. It cannot change under its reader: that is what the seals are for.
#[derive(Debug)]
pub struct Sealed {
    start: *const u8,
    length: usize,
}

impl Sealed {
    /// Maps the first `length` bytes of `file`.
    ///
    /// # Errors
    /// EPERM if the file lacks one of the seals; else as mmap(2). A `length` of 0 is EINVAL.
    pub fn map(file: impl Descriptor, length: usize) -> Result<Self, Errno> {
        const PROT_READ: usize = 1;
        const MAP_PRIVATE: usize = 2;
        const MAP_POPULATE: usize = 0x8000;
        let fd = file.raw() as usize;
        // SAFETY: fcntl with F_GET_SEALS takes numbers only.
        let seals = unsafe { call(nr::FCNTL, [fd, F_GET_SEALS, 0, 0, 0, 0]) }?;
        if seals & ALL_SEALS != ALL_SEALS {
            return Err(Errno::EPERM);
        }
        // SAFETY: a new mapping at an address that the kernel chooses touches nothing that exists.
        let start = unsafe { call(nr::MMAP, [0, length, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0]) }?;
        Ok(Self { start: start as *const u8, length })
    }
}

impl core::ops::Deref for Sealed {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the mapping is `length` bytes, readable, and the seals forbid that it shrinks or changes.
        unsafe { core::slice::from_raw_parts(self.start, self.length) }
    }
}

impl Drop for Sealed {
    fn drop(&mut self) {
        // SAFETY: we own the mapping, and its slices borrow from us.
        let _ = unsafe { call(nr::MUNMAP, [self.start as usize, self.length, 0, 0, 0, 0]) };
    }
}

/// A null-terminated array of C strings, as execve takes argv and envp.
#[derive(Debug)]
pub struct Words<'a, 'b>(&'b [Option<&'a CStr>]);

impl<'a, 'b> Words<'a, 'b> {
    /// Takes a slice whose last entry, and no other, is `None`.
    #[must_use]
    pub fn new(words: &'b [Option<&'a CStr>]) -> Option<Self> {
        let (last, rest) = words.split_last()?;
        (last.is_none() && rest.iter().all(Option::is_some)).then_some(Self(words))
    }
}

/// Replaces the program by the one at `path`. `room` is where the two arrays of pointers are written: as long as both
/// together. Returns only with an error.
///
/// # Errors
/// As execve(2); E2BIG if `room` is too small.
pub fn execve(path: &CStr, argv: &Words<'_, '_>, envp: &Words<'_, '_>, room: &mut [usize]) -> Errno {
    let Some((argv, envp)) = pointers(argv, envp, room) else { return Errno::E2BIG };
    // SAFETY: `path` is a C string, and both arrays end with null and hold C strings that outlive the call.
    match unsafe { call(nr::EXECVE, [path.as_ptr() as usize, argv, envp, 0, 0, 0]) } {
        Ok(_) => Errno::EINVAL,
        Err(errno) => errno,
    }
}

/// Replaces the program by the one that `file` is, with no path on the way (`AT_EMPTY_PATH`). Returns only with an error.
///
/// # Errors
/// As execveat(2); E2BIG if `room` is too small.
pub fn execveat(
    file: impl Descriptor,
    argv: &Words<'_, '_>,
    envp: &Words<'_, '_>,
    room: &mut [usize],
) -> Errno {
    const AT_EMPTY_PATH: usize = 0x1000;
    let Some((argv, envp)) = pointers(argv, envp, room) else { return Errno::E2BIG };
    let args = [file.raw() as usize, c"".as_ptr() as usize, argv, envp, AT_EMPTY_PATH, 0];
    // SAFETY: the path is a C string, and both arrays end with null and hold C strings that outlive the call.
    match unsafe { call(nr::EXECVEAT, args) } {
        Ok(_) => Errno::EINVAL,
        Err(errno) => errno,
    }
}

/// Writes both arrays of pointers into `room`; where they begin.
fn pointers(argv: &Words<'_, '_>, envp: &Words<'_, '_>, room: &mut [usize]) -> Option<(usize, usize)> {
    let (argv_room, envp_room) = room.split_at_mut_checked(argv.0.len())?;
    if envp.0.len() > envp_room.len() {
        return None;
    }
    for (place, word) in argv_room.iter_mut().zip(argv.0).chain(envp_room.iter_mut().zip(envp.0)) {
        *place = word.map_or(0, |word| word.as_ptr() as usize);
    }
    Some((argv_room.as_ptr() as usize, envp_room.as_ptr() as usize))
}

/// Writes all of `bytes`.
///
/// # Errors
/// As write(2). EINTR is tried again.
pub fn write_all(fd: impl Descriptor, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        // SAFETY: the bytes are borrowed and as many as we say.
        match unsafe { call(nr::WRITE, [fd.raw() as usize, bytes.as_ptr() as usize, bytes.len(), 0, 0, 0]) } {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Reads into `room` until it is full or the file ends; answers what was read.
///
/// # Errors
/// As read(2). EINTR is tried again.
pub fn read_into(fd: impl Descriptor, room: &mut [u8]) -> Result<&mut [u8], Errno> {
    let mut filled = 0;
    while let Some(rest) = room.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        // SAFETY: the rest of the room is ours and as long as we say.
        match unsafe { call(nr::READ, [fd.raw() as usize, rest.as_mut_ptr() as usize, rest.len(), 0, 0, 0]) }
        {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(room.get_mut(..filled).unwrap_or_default())
}
