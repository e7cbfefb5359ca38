//! The newer mount API: every mount is a descriptor before it has a place.
//! fsopen(2), fsconfig(2), fsmount(2), open_tree(2), move_mount(2), mount_setattr(2), pivot_root(2).

use crate::call::{Errno, call, nr};
use crate::fd::{Descriptor, Fd};
use core::ffi::CStr;

const AT_EMPTY_PATH: usize = 0x1000;
const AT_RECURSIVE: usize = 0x8000;
const CLOEXEC: usize = 0o2_000_000;

/// Attributes of a mount, `MOUNT_ATTR_*`, as fsmount and mount_setattr take them.
pub mod attr {
    /// No writing through this mount.
    pub const RDONLY: u64 = 0x1;
    /// Set-user-id and file capabilities have no effect.
    pub const NOSUID: u64 = 0x2;
    /// Device nodes cannot be opened.
    pub const NODEV: u64 = 0x4;
    /// No program can be executed.
    pub const NOEXEC: u64 = 0x8;
    /// The field of the access-time settings; to be cleared when one is set.
    pub const ATIME: u64 = 0x70;
    /// Access times are not written.
    pub const NOATIME: u64 = 0x10;
    /// Access times are always written.
    pub const STRICTATIME: u64 = 0x20;
    /// Access times of directories are not written.
    pub const NODIRATIME: u64 = 0x80;
    /// Symbolic links are not followed.
    pub const NOSYMFOLLOW: u64 = 0x20_0000;
}

/// How a mount takes part in the events of its peers, `MS_*` of mount(2).
pub mod propagation {
    /// No events in either direction.
    pub const PRIVATE: u64 = 1 << 18;
    /// Events come in, none go out.
    pub const SLAVE: u64 = 1 << 19;
    /// Events in both directions.
    pub const SHARED: u64 = 1 << 20;
    /// Private, and cannot be bound.
    pub const UNBINDABLE: u64 = 1 << 17;
}

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Change {
    /// Attributes to set.
    pub set: u64,
    /// Attributes to clear first.
    pub clear: u64,
    /// Propagation to give, 0 for none.
    pub propagation: u64,
    /// The user namespace of an idmapped mount; 0 for none.
    pub userns_fd: u64,
}

/// A file system being configured.
#[derive(Debug)]
pub struct Context(Fd);

/// Begins a new file system of type `name`.
///
/// # Errors
/// As fsopen(2): ENODEV for a type that this kernel does not have, EPERM without CAP_SYS_ADMIN.
pub fn fsopen(name: &CStr) -> Result<Context, Errno> {
    const FSOPEN_CLOEXEC: usize = 1;
    // SAFETY: `name` is a C string that outlives the call.
    unsafe { call(nr::FSOPEN, [name.as_ptr() as usize, FSOPEN_CLOEXEC, 0, 0, 0, 0]) }
        .map(|raw| Context(Fd::from_call(raw)))
}

impl Context {
    fn config(
        &self,
        command: usize,
        key: *const core::ffi::c_char,
        value: usize,
        aux: usize,
    ) -> Result<(), Errno> {
        // SAFETY: key and value are null or C strings borrowed by the callers below for the length of the call.
        unsafe { call(nr::FSCONFIG, [self.0.raw() as usize, command, key as usize, value, aux, 0]) }.map(drop)
    }

    /// Sets a key to a string (`FSCONFIG_SET_STRING`).
    ///
    /// # Errors
    /// As fsconfig(2): EINVAL for a key or value that the file system does not know.
    pub fn string(&self, key: &CStr, value: &CStr) -> Result<(), Errno> {
        self.config(1, key.as_ptr(), value.as_ptr() as usize, 0)
    }

    /// Sets a key without a value (`FSCONFIG_SET_FLAG`).
    ///
    /// # Errors
    /// As fsconfig(2).
    pub fn flag(&self, key: &CStr) -> Result<(), Errno> {
        self.config(0, key.as_ptr(), 0, 0)
    }

    /// Sets a key to an open descriptor (`FSCONFIG_SET_FD`).
    ///
    /// # Errors
    /// As fsconfig(2).
    pub fn descriptor(&self, key: &CStr, fd: impl Descriptor) -> Result<(), Errno> {
        self.config(5, key.as_ptr(), 0, fd.raw() as usize)
    }

    /// Makes the file system and a detached mount of it, with the attributes of [`attr`].
    ///
    /// # Errors
    /// As fsconfig(2) with `FSCONFIG_CMD_CREATE`, and fsmount(2).
    pub fn mount(self, attributes: u64) -> Result<Fd, Errno> {
        const FSMOUNT_CLOEXEC: usize = 1;
        self.config(6, core::ptr::null(), 0, 0)?;
        // SAFETY: fsmount takes numbers only.
        unsafe { call(nr::FSMOUNT, [self.0.raw() as usize, FSMOUNT_CLOEXEC, attributes as usize, 0, 0, 0]) }
            .map(Fd::from_call)
    }

    /// The kernel's own words about the last error of this context, if it left any.
    pub fn complaint<'a>(&self, room: &'a mut [u8]) -> &'a [u8] {
        // SAFETY: the buffer is ours and as long as we say.
        let read = unsafe {
            call(nr::READ, [self.0.raw() as usize, room.as_mut_ptr() as usize, room.len(), 0, 0, 0])
        };
        let text = room.get(..read.unwrap_or(0)).unwrap_or_default();
        // The kernel marks each line with a letter and a blank: "e overlay: …".
        text.strip_prefix(b"e ").unwrap_or(text)
    }
}

/// A detached copy of the mount at `path` below `dir`, with the mounts below it if `recursive`.
///
/// # Errors
/// As open_tree(2) with `OPEN_TREE_CLONE`.
pub fn clone_tree(dir: impl Descriptor, path: &CStr, recursive: bool) -> Result<Fd, Errno> {
    const OPEN_TREE_CLONE: usize = 1;
    let flags = OPEN_TREE_CLONE | CLOEXEC | AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: `path` is a C string that outlives the call.
    unsafe { call(nr::OPEN_TREE, [dir.raw() as usize, path.as_ptr() as usize, flags, 0, 0, 0]) }
        .map(Fd::from_call)
}

/// Attaches the detached mount `mount` on what `target` refers to, by descriptors alone.
///
/// # Errors
/// As move_mount(2).
pub fn attach(mount: impl Descriptor, target: impl Descriptor) -> Result<(), Errno> {
    attach_at(mount, target, c"")
}

/// Attaches the detached mount `mount` at `path` below `dir`; a link in the last place is not followed.
///
/// # Errors
/// As move_mount(2).
pub fn attach_at(mount: impl Descriptor, dir: impl Descriptor, path: &CStr) -> Result<(), Errno> {
    const F_EMPTY_PATH: usize = 0x4;
    const T_EMPTY_PATH: usize = 0x40;
    let (from, empty) = (mount.raw() as usize, c"".as_ptr() as usize);
    let flags = F_EMPTY_PATH | T_EMPTY_PATH;
    // SAFETY: both paths are C strings that outlive the call.
    unsafe { call(nr::MOVE_MOUNT, [from, empty, dir.raw() as usize, path.as_ptr() as usize, flags, 0]) }
        .map(drop)
}

/// Changes attributes or propagation of the mount that `mount` refers to, and of all below it if `recursive`.
///
/// # Errors
/// As mount_setattr(2).
pub fn set_attributes(mount: impl Descriptor, change: &Change, recursive: bool) -> Result<(), Errno> {
    let flags = AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    let (fd, size) = (mount.raw() as usize, size_of::<Change>());
    // SAFETY: the path is a C string and `change` is a whole mount_attr of the size given.
    unsafe {
        call(
            nr::MOUNT_SETATTR,
            [fd, c"".as_ptr() as usize, flags, core::ptr::from_ref(change) as usize, size, 0],
        )
    }
    .map(drop)
}

/// Gives the mount at `path` and all below it another propagation, `MS_REC | kind` of mount(2).
///
/// # Errors
/// As mount(2).
pub fn set_propagation(path: &CStr, kind: u64) -> Result<(), Errno> {
    const MS_REC: u64 = 1 << 14;
    // SAFETY: `path` is a C string; with a propagation flag the other pointers are not read.
    unsafe { call(nr::MOUNT, [0, path.as_ptr() as usize, 0, (MS_REC | kind) as usize, 0, 0]) }.map(drop)
}

/// pivot_root(2) with `.` for both: the working directory becomes the root, and the old root lies on top of it until
/// [`detach`] takes it away.
///
/// # Errors
/// As pivot_root(2).
pub fn pivot_root_here() -> Result<(), Errno> {
    let here = c".".as_ptr() as usize;
    // SAFETY: both paths are C strings.
    unsafe { call(nr::PIVOT_ROOT, [here, here, 0, 0, 0, 0]) }.map(drop)
}

/// Takes away the mount at `path` and all below it, at once for everyone who looks (`MNT_DETACH`).
///
/// # Errors
/// As umount2(2).
pub fn detach(path: &CStr) -> Result<(), Errno> {
    const MNT_DETACH: usize = 2;
    // SAFETY: `path` is a C string.
    unsafe { call(nr::UMOUNT2, [path.as_ptr() as usize, MNT_DETACH, 0, 0, 0, 0]) }.map(drop)
}
