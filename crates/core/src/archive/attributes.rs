//! Which extended attributes a layer may set. overlayfs reads orders from its own (`trusted.overlay.*`,
//! `user.overlay.*`: redirect, metacopy, opaque), and labels belong to the host, so this is a list of what may pass.

use super::On;
use crate::Result;
use crate::off::off;
use caisson_sys::{Descriptor, Errno, xattr};
use std::ffi::{CStr, CString};

/// An ACL that new entries of a directory would inherit, also those that are still to be unpacked.
pub(super) const DEFAULT_ACL: &CStr = c"system.posix_acl_default";
/// The ACL of an entry; chmod changes its mask.
pub(super) const ACCESS_ACL: &CStr = c"system.posix_acl_access";
const CAPABILITY: &CStr = c"security.capability";

/// Where the owner stands that an archive gives, `UID:GID`, of a file that could not be given to it.
pub(super) const OWNER: &CStr = c"user.caisson.owner";

/// Keeps the true owner of what is the caller's instead. Where there are no such attributes it is lost.
pub(super) fn keep_owner(file: impl Descriptor, (uid, gid): (u32, u32), name: &[u8]) -> Result<()> {
    if (uid, gid) == (0, 0) {
        return Ok(());
    }
    match xattr::set(file, OWNER, format!("{uid}:{gid}").as_bytes()) {
        Err(Errno::EOPNOTSUPP | Errno::ENOSPC) => Ok(()),
        answer => answer.on(name),
    }
}

/// The owner that stands beside a file of a layer below ([`keep_owner`]); none: it is the file's own.
pub(super) fn kept_owner(file: impl Descriptor) -> Option<(u32, u32)> {
    // Two numbers of ten digits.
    let mut room = [0; 21];
    let (uid, gid) = std::str::from_utf8(xattr::get(file, OWNER, &mut room).ok()?).ok()?.split_once(':')?;
    Some((uid.parse().ok()?, gid.parse().ok()?))
}

/// Attributes of an entry: those set at once, and the ACLs, which wait.
#[derive(Debug, Default)]
pub(super) struct Attributes {
    plain: Vec<(CString, Vec<u8>)>,
    acls: Vec<(CString, Vec<u8>)>,
    /// How many were left out.
    pub refused: u64,
}

impl Attributes {
    /// Keeps what is allowed.
    pub fn choose(given: Vec<(Vec<u8>, Vec<u8>)>) -> Self {
        let mut chosen = Self::default();
        for (name, value) in given {
            match CString::new(name) {
                Ok(name) if !is_allowed(name.to_bytes(), &value) && !off("xattr") => chosen.refused += 1,
                Ok(name) if *name == *DEFAULT_ACL || *name == *ACCESS_ACL => chosen.acls.push((name, value)),
                Ok(name) => chosen.plain.push((name, value)),
                Err(_) => chosen.refused += 1,
            }
        }
        chosen
    }

    /// Sets what is to be set at once; answers the ACLs for later.
    pub fn apply_plain(&mut self, file: impl Descriptor, name: &[u8], lenient: bool) -> Result<Acls> {
        self.refused += set_all(&file, &self.plain, name, lenient)?;
        Ok(Acls(std::mem::take(&mut self.acls)))
    }
}

/// ACLs, which wait: of a directory that is still being filled, of a file that has not got its mode.
#[derive(Debug, Default)]
pub(super) struct Acls(Vec<(CString, Vec<u8>)>);

impl Acls {
    /// Sets them; answers how many could not be had here.
    pub fn apply(&self, file: impl Descriptor, name: &[u8], lenient: bool) -> Result<u64> {
        set_all(&file, &self.0, name, lenient)
    }

    /// Takes the default ACL off a directory that gets further entries, to be set again afterwards.
    pub fn take_default(&mut self, directory: impl Descriptor, name: &[u8]) -> Result<()> {
        let mut room = vec![0; 64 * 1024];
        match xattr::get(&directory, DEFAULT_ACL, &mut room) {
            Ok(value) => self.0.push((DEFAULT_ACL.to_owned(), value.to_vec())),
            Err(Errno::ENODATA | Errno::EOPNOTSUPP) => return Ok(()),
            Err(errno) => return Err(errno).on(name),
        }
        xattr::remove(&directory, DEFAULT_ACL).on(name)
    }

    /// Whether children of the directory will inherit from it.
    pub fn has_default(&self) -> bool {
        self.0.iter().any(|(name, _)| **name == *DEFAULT_ACL)
    }
}

/// The attributes that an existing file has and a layer may have.
pub(super) fn read(file: impl Descriptor, name: &[u8]) -> Result<Attributes> {
    Room::default().read(file).map(Attributes::choose).on(name)
}

/// Name and value.
type Attribute = (Vec<u8>, Vec<u8>);

/// Where attributes are read into.
pub(super) struct Room {
    names: Vec<u8>,
    value: Vec<u8>,
}

impl Default for Room {
    fn default() -> Self {
        Self { names: vec![0; 64 * 1024], value: vec![0; 64 * 1024] }
    }
}

impl Room {
    /// All attributes of a file that can be read; none where there are none to be had.
    ///
    /// # Errors
    /// As flistxattr(2).
    pub fn read(&mut self, file: impl Descriptor) -> Result<Vec<Attribute>, Errno> {
        let names = match xattr::list(&file, &mut self.names) {
            Ok(names) => names,
            Err(Errno::EOPNOTSUPP) => return Ok(Vec::new()),
            Err(errno) => return Err(errno),
        };
        let keys = names
            .split_inclusive(|byte| *byte == 0)
            .map(CStr::from_bytes_with_nul)
            .filter_map(std::result::Result::ok);
        let mut found = Vec::new();
        for key in keys {
            // Listed and gone, or not for us to read: then it is not for a layer either.
            if let Ok(value) = xattr::get(&file, key, &mut self.value) {
                found.push((key.to_bytes().to_vec(), value.to_vec()));
            }
        }
        Ok(found)
    }
}

/// Whether a layer may have this attribute.
pub(super) fn is_allowed(name: &[u8], value: &[u8]) -> bool {
    if name == CAPABILITY.to_bytes() {
        // Version 2: no user namespace in it. Version 3 would name a user of the host (capabilities(7)).
        return value.len() == 20 && value[..4] == [value[0] & 1, 0, 0, 2];
    }
    name == DEFAULT_ACL.to_bytes()
        || name == ACCESS_ACL.to_bytes()
        || name.starts_with(b"user.")
            && name.len() > 5
            && !name.starts_with(b"user.overlay.")
            && !name.starts_with(b"user.caisson.")
}

/// Sets attributes; answers how many could not be had here: a file system without them, and with `lenient` also a
/// caller without the right to set them.
fn set_all(file: &impl Descriptor, list: &[(CString, Vec<u8>)], entry: &[u8], lenient: bool) -> Result<u64> {
    let mut refused = 0;
    for (name, value) in list {
        match xattr::set(file, name, value) {
            Ok(()) => {}
            Err(Errno::EOPNOTSUPP) => refused += 1,
            Err(Errno::EPERM) if lenient => refused += 1,
            Err(errno) => return Err(errno).on(entry),
        }
    }
    Ok(refused)
}
