//! OCI layers to directories: one pass over the blob that hashes it, inflates it, hashes the layer, reads it as a tar
//! archive and makes the files. Everything in the archive is an attacker's word (security.md 1.D): it is bounded, it
//! cannot leave the directory, and it sets nothing that steers overlayfs or the host.

mod apply;
mod attributes;
mod digest;
mod header;
mod inflate;
mod level;
mod link;
mod lower;
mod path;
mod pax;
mod remove;
mod spool;
mod stream;
mod tar;

pub use digest::Digest;
pub use remove::remove_tree;
pub use spool::{spool, spool_layer};

use crate::error::Failure;
use crate::{At, Code, Error, Result, Stage};
use apply::Applier;
use caisson_sys::Fd;
use caisson_sys::file::{open, openat2};
use inflate::Inflate;
use nix::sys::statvfs::fstatvfs;
use std::io::Read;
use std::sync::mpsc;
use stream::{Handoff, WAITING, produce};
use tar::Reader;

/// What a layer may cost. Crossing one is [`Code::ImageLimit`], with the field's name as subject.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Entries in the archive. Default 2,000,000.
    pub entries: u64,
    /// Bytes of the inflated archive, and of a sparse file, and of copies for hard links to lower layers. Default
    /// 64 GiB; never more than 95 % of what the destination's file system had free at the start.
    pub inflated_bytes: u64,
    /// How many times its size a blob may inflate to, once that is more than 64 MiB. Default 1000.
    pub ratio: u64,
    /// Bytes of PAX and GNU headers of one entry; these hold its names and attributes. Default 1 MiB. One attribute's
    /// value is at most 64 KiB, which is the kernel's own bound.
    pub header_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 2_000_000, inflated_bytes: 64 << 30, ratio: 1000, header_bytes: 1 << 20 }
    }
}

/// Whose the files become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Owner {
    /// The ids in the archive, as the caller's user namespace maps them. Needs the right to chown.
    #[default]
    Archived,
    /// The caller's. Attributes that need more rights than the caller has are left out too.
    Caller,
}

/// How to unpack.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// What it may cost.
    pub limits: Limits,
    /// What the blob must hash to, as its descriptor says.
    pub expected_digest: Option<Digest>,
    /// Exactly how many bytes the blob must have, as its descriptor says.
    pub expected_size: Option<u64>,
    /// What the inflated archive must hash to, as the image's config says (`rootfs.diff_ids`).
    pub expected_diff_id: Option<Digest>,
    /// Whose the files become. Default: the archive's ids.
    pub owner: Owner,
    /// Whether opaque directories are marked for an overlay that is mounted with `userxattr`, as it is in a user
    /// namespace. Default: `trusted.overlay.opaque`, which needs CAP_SYS_ADMIN.
    pub userxattr: bool,
    /// Whether device nodes are made. Default: they are skipped and counted, as a container gets its devices elsewhere.
    pub devices: bool,
    /// The layers below this one, the topmost first. Files that a hard link names and this layer does not have are
    /// copied from there, and directories that it names only in passing look as they do there.
    pub lowers: Option<&'a dyn Lowers>,
}

/// The layers below one, asked for when they are needed for the first time: they may still be on their way.
pub trait Lowers: std::fmt::Debug + Sync {
    /// Their roots, the topmost first.
    ///
    /// # Errors
    /// Why there are none.
    fn roots(&self) -> Result<&[Fd]>;
}

/// What was unpacked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Entries of the archive.
    pub entries: u64,
    /// Bytes of the inflated archive.
    pub bytes: u64,
    /// Bytes of the blob.
    pub blob_bytes: u64,
    /// SHA-256 of the blob.
    pub blob_digest: Digest,
    /// SHA-256 of the inflated archive.
    pub diff_id: Digest,
    /// Whether the layer hides all lower ones (`.wh..wh..opq` in its root). overlayfs has no mark for this: leave the
    /// lower layers out of the mount.
    pub opaque_root: bool,
    /// Extended attributes that a layer may not set, or that could not be had here.
    pub skipped_xattrs: u64,
    /// Device nodes that were not made.
    pub skipped_devices: u64,
}

/// Unpacks one layer, plain or gzip, into the empty directory `destination`.
///
/// Reading and inflating run in a thread of their own. Nothing is undone on an error: the caller removes the directory
/// with [`remove_tree`], and marks it as a layer only after `Ok`. Nothing is synced.
///
/// # Errors
/// [`Code::Archive`] for an archive that is malformed or hostile, and for a file that could not be made (with the
/// errno), the entry as subject; [`Code::ImageLimit`] for one that crosses a limit; [`Code::Digest`] for wrong bytes or
/// a wrong size; [`Code::Unsupported`] for another compression.
pub fn unpack(blob: impl Read + Send, destination: &Fd, options: &Options<'_>) -> Result<Report> {
    let root = openat2(destination, c".", open::RDONLY | open::DIRECTORY, 0, 0).on(b"./")?;
    let free = fstatvfs(&root).on(b"./")?;
    // A file system without a size, as some tmpfs, says 0 for both.
    let room = match free.blocks() {
        0 => u64::MAX,
        _ => (free.blocks_available() as u64).saturating_mul(free.fragment_size() as u64) / 100 * 95,
    };
    let mut applier = Applier::new(root, options, options.limits.inflated_bytes.min(room))?;
    let inflate = Inflate::new(blob, options, room);
    let may_stop = options.expected_digest.is_some() || options.expected_diff_id.is_some();
    let (full_in, full_out) = mpsc::sync_channel(WAITING);
    let (empty_in, empty_out) = mpsc::channel();
    std::thread::scope(|scope| {
        let reading = std::thread::Builder::new()
            .name("inflate".to_owned())
            .spawn_scoped(scope, move || produce(inflate, &full_in, &empty_out))
            .at(Stage::UNPACK, "thread")?;
        let mut reader = Reader::new(Handoff::new(full_out, empty_in), options.limits, may_stop);
        while let Some(mut entry) = reader.next()? {
            applier.apply(&mut entry, &mut reader)?;
        }
        reader.drain()?;
        let entries = reader.entries();
        let Ok(Some(inflate)) = reading.join() else {
            return Err(Error::new(Code::Internal, Stage::UNPACK, "", "the reading thread ended early"));
        };
        let sums = inflate.finish()?;
        let report = applier.finish()?;
        let inflate::Sums { blob_digest, blob_bytes, diff_id, bytes } = sums;
        Ok(Report { entries, bytes, blob_bytes, blob_digest, diff_id, ..report })
    })
}

/// An archive that is refused.
fn refuse(entry: &[u8], reason: impl Into<String>) -> Error {
    Error::new(Code::Archive, Stage::UNPACK, show(entry), reason)
}

/// An archive that crosses a limit.
fn too_large(subject: impl Into<String>, message: String) -> Error {
    Error::new(Code::ImageLimit, Stage::UNPACK, subject, message)
}

/// A name as a person may see it: no control characters for the terminal, no more than a line or two.
fn show(name: &[u8]) -> String {
    const MOST: usize = 200;
    let text = String::from_utf8_lossy(&name[..name.len().min(MOST)]);
    let mut shown: String = text.escape_debug().collect();
    if name.len() > MOST {
        shown.push_str("...");
    }
    shown
}

/// The errno of a call that was made for an entry. As [`At`], but the name is only copied when there is an error.
trait On<T> {
    fn on(self, entry: &[u8]) -> Result<T>;
}

impl<T, E: Failure + std::fmt::Display> On<T> for Result<T, E> {
    fn on(self, entry: &[u8]) -> Result<T> {
        match self {
            Ok(value) => Ok(value),
            Err(error) => {
                Err(error).at(Stage::UNPACK, show(entry)).map_err(|error| error.with_code(Code::Archive))
            }
        }
    }
}

#[cfg(test)]
mod tests;
