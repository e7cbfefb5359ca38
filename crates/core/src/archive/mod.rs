//! OCI layers to directories: one pass over the blob that hashes it, inflates it, hashes the layer, reads it as a tar
//! archive and makes the files. Everything in the archive is an attacker's word (security.md 1.D): it is bounded, it
//! cannot leave the directory, and it sets nothing that steers overlayfs or the host.

mod apply;
mod attributes;
mod blob;
mod compare;
mod deflate;
mod digest;
mod found;
mod gzip;
mod header;
mod inflate;
mod level;
mod link;
mod lower;
mod missing;
mod pack;
mod path;
mod pax;
mod remove;
#[doc(hidden)]
pub mod single;
mod sparse;
mod spool;
mod stream;
mod tar;
mod write;
mod zstd;

pub use compare::compare;
pub use digest::Digest;
pub use found::private_view;
pub use pack::{Form, Packing, pack};
pub use remove::remove_tree;
pub use spool::{pack_layer, spool, spool_layer};

use crate::error::Failure;
use crate::{At, Code, Error, Result, Stage};
use apply::Applier;
use blob::Blob;
use caisson_sys::Fd;
use caisson_sys::file::{open, openat2};
use inflate::Inflate;
use nix::sys::statvfs::fstatvfs;
use sha2::{Digest as _, Sha256};
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use stream::{Consumer, Producer, handoff};
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
    /// The largest window of a zstd frame, as the power of two of its bytes: what is kept in memory of what came out
    /// already. Default 27, which is 128 MiB and what `zstd --long` makes at most.
    pub zstd_window_log: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 2_000_000,
            inflated_bytes: 64 << 30,
            ratio: 1000,
            header_bytes: 1 << 20,
            zstd_window_log: 27,
        }
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

/// Unpacks one layer, plain, gzip or zstd, into the empty directory `destination`.
///
/// Reading (with the blob's hash), inflating, and the layer's hash run in threads of their own. Nothing is undone on an
/// error: the caller removes the directory with [`remove_tree`], and marks it as a layer only after `Ok`. Nothing is synced.
///
/// # Errors
/// [`Code::Archive`] for an archive that is malformed or hostile, and for a file that could not be made (with the
/// errno), the entry as subject; [`Code::ImageLimit`] for one that crosses a limit; [`Code::Digest`] for wrong bytes or
/// a wrong size; [`Code::Unsupported`] for another compression.
pub fn unpack(blob: impl Read + Send, destination: &Fd, options: &Options<'_>) -> Result<Report> {
    let root = openat2(destination, c".", open::RDONLY | open::DIRECTORY, 0, 0).on(b"./")?;
    let room = free_bytes(&root)?;
    let mut applier = Applier::new(root, options, options.limits.inflated_bytes.min(room))?;
    let (sums, entries) = stream(blob, options, room, |reader| {
        while let Some(mut entry) = reader.next()? {
            applier.apply(&mut entry, reader)?;
        }
        reader.drain()?;
        Ok(reader.entries())
    })?;
    let Sums { blob_digest, blob_bytes, diff_id, bytes } = sums;
    Ok(Report { entries, bytes, blob_bytes, blob_digest, diff_id, ..applier.finish()? })
}

/// What a directory's file system may still take, without its last part. One without a size, as some tmpfs, says 0.
fn free_bytes(directory: &Fd) -> Result<u64> {
    let free = fstatvfs(directory).on(b"./")?;
    Ok(match free.blocks() {
        0 => u64::MAX,
        _ => (free.blocks_available() as u64).saturating_mul(free.fragment_size() as u64) / 100 * 95,
    })
}

/// Reads a layer to its end and holds it against what `options` expects of it; nothing is made.
///
/// # Errors
/// As [`unpack`], but for what is in the archive.
pub fn verify(blob: impl Read + Send, options: &Options<'_>) -> Result<()> {
    stream(blob, options, u64::MAX, Reader::drain).map(drop)
}

/// What a blob turned out to be.
struct Sums {
    blob_digest: Digest,
    blob_bytes: u64,
    diff_id: Digest,
    bytes: u64,
}

/// Gives a layer's inflated bytes to `take`, which takes all of them, and compares the digests.
fn stream<T>(
    blob: impl Read + Send,
    options: &Options<'_>,
    room: u64,
    take: impl FnOnce(&mut Reader<Consumer>) -> Result<T>,
) -> Result<(Sums, T)> {
    let may_stop = options.expected_digest.is_some() || options.expected_diff_id.is_some();
    let plain = &AtomicBool::new(false);
    let ((blob_in, blob_out), (inflated_in, inflated_out), (layer_in, layer_out)) =
        (handoff(), handoff(), handoff());
    let (blob, inflate) = (Blob::new(blob, options), Inflate::new(blob_out, options, room, plain));
    std::thread::scope(|scope| {
        let reading = thread(scope, "read", move || blob_in.run(blob))?;
        let inflating = thread(scope, "inflate", move || inflated_in.run(inflate))?;
        let hashing = thread(scope, "hash", move || hash(&inflated_out, &layer_in, plain))?;
        let taken = take(&mut Reader::new(layer_out, options.limits, may_stop))?;
        let ended = (reading.join(), inflating.join(), hashing.join());
        let (Ok(Some(blob)), Ok(Some(inflate)), Ok(Some(layer))) = ended else {
            return Err(Error::new(Code::Internal, Stage::UNPACK, "", "a reading thread ended early"));
        };
        let (blob_digest, blob_bytes) = blob.finish()?;
        let diff_id = if plain.load(Ordering::Relaxed) { blob_digest } else { layer };
        blob::check("the digest of the inflated layer", options.expected_diff_id, diff_id)?;
        Ok((Sums { blob_digest, blob_bytes, diff_id, bytes: inflate.bytes() }, taken))
    })
}

/// The digest of the bytes that pass; nothing if nobody takes them any more.
fn hash(from: &Consumer, to: &Producer, plain: &AtomicBool) -> Option<Digest> {
    let mut hash = Sha256::new();
    let whole = to.pass(from, |bytes| {
        if !plain.load(Ordering::Relaxed) {
            hash.update(bytes);
        }
    });
    whole.then(|| Digest::from(<[u8; 32]>::from(hash.finalize())))
}

/// Starts one of the threads of an unpacking. What it takes is dropped when it ends, by which its neighbours end too.
/// Reading, inflating, hashing and making files each keep a processor busy, so together they take the time of the slowest,
/// or of half of all where there are two processors.
fn thread<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>> {
    std::thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, work).at(Stage::UNPACK, "thread")
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
