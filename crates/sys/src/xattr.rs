//! Extended attributes of an open file. xattr(7), fsetxattr(2), fgetxattr(2), flistxattr(2), fremovexattr(2).
//!
//! All take a descriptor that was really opened: with one of `O_PATH` they answer EBADF.

use crate::call::{Errno, call, nr};
use crate::fd::Descriptor;
use core::ffi::CStr;

/// Sets the attribute `name`, whether it was there or not.
///
/// # Errors
/// As fsetxattr(2): EOPNOTSUPP where the file system or the kind of file has none, ENOSPC or E2BIG for one too large,
/// EPERM without the right to that name space.
pub fn set(file: impl Descriptor, name: &CStr, value: &[u8]) -> Result<(), Errno> {
    let args = [file.raw() as usize, name.as_ptr() as usize, value.as_ptr() as usize, value.len(), 0, 0];
    // SAFETY: `name` is a C string, and the value is borrowed and as long as we say.
    unsafe { call(nr::FSETXATTR, args) }.map(drop)
}

/// Reads the attribute `name` into `room`; answers what was read.
///
/// # Errors
/// As fgetxattr(2): ENODATA if there is none, ERANGE if `room` is too small.
pub fn get<'a>(file: impl Descriptor, name: &CStr, room: &'a mut [u8]) -> Result<&'a mut [u8], Errno> {
    if room.is_empty() {
        return Err(Errno::ERANGE); // A length of 0 would ask for the size only.
    }
    let args = [file.raw() as usize, name.as_ptr() as usize, room.as_mut_ptr() as usize, room.len(), 0, 0];
    // SAFETY: `name` is a C string, and the room is ours and as long as we say.
    let length = unsafe { call(nr::FGETXATTR, args) }?;
    Ok(room.get_mut(..length).unwrap_or_default())
}

/// Reads the names of all attributes into `room`, each with a NUL behind it; answers what was read.
///
/// # Errors
/// As flistxattr(2): ERANGE if `room` is too small.
pub fn list(file: impl Descriptor, room: &mut [u8]) -> Result<&mut [u8], Errno> {
    if room.is_empty() {
        return Err(Errno::ERANGE);
    }
    let args = [file.raw() as usize, room.as_mut_ptr() as usize, room.len(), 0, 0, 0];
    // SAFETY: the room is ours and as long as we say.
    let length = unsafe { call(nr::FLISTXATTR, args) }?;
    Ok(room.get_mut(..length).unwrap_or_default())
}

/// Removes the attribute `name`.
///
/// # Errors
/// As fremovexattr(2): ENODATA if there is none.
pub fn remove(file: impl Descriptor, name: &CStr) -> Result<(), Errno> {
    // SAFETY: `name` is a C string.
    unsafe { call(nr::FREMOVEXATTR, [file.raw() as usize, name.as_ptr() as usize, 0, 0, 0, 0]) }.map(drop)
}
