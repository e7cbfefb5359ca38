//! Archives of images to numbered files: one pass over the archive that writes each regular file's bytes below a private
//! directory, under a number, and hashes them. What an entry is called becomes a word of a table and never a path
//! (security.md D14): which names mean something is decided by who reads the table.

use super::deflate::{Deflate, Deflated};
use super::tar::{Entry, Kind, Reader};
use super::{Digest, Limits, On, Options, Packing, free_bytes, pack, refuse, too_large};
use crate::{At, Code, Error, Result, Stage};
use caisson_sys::Fd;
use caisson_sys::file::{open, openat2, resolve, write_all};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::ffi::CString;
use std::io::Read;

/// The table: an array of one object an entry, written last.
const TABLE: &str = "table.json";
/// Bytes of a name or a link's target; longer ones are nothing that an image's documents could mean.
const NAME_BYTES: usize = 4096;
/// Bytes of all of them together.
const NAMES_BYTES: usize = 16 << 20;

/// What an archive of images may cost: many images of many layers, but no more names than a directory bears. Its size is
/// bounded by the file system alone; each layer's is when it is unpacked.
fn limits() -> Limits {
    Limits { entries: 65_536, inflated_bytes: u64::MAX, ..Limits::default() }
}

/// Writes the regular files of an archive, plain, gzip or zstd, into the empty `directory`, as `0`, `1` and so on, and then
/// `table.json`: `{name, file, size, digest}` of a file, `{name, link, hard}` of a symbolic or hard link, in the
/// archive's order. Directories, devices and FIFOs are left out, as are names that are no UTF-8 or longer than 4 KiB.
///
/// Nothing is synced, and nothing undone on an error.
///
/// # Errors
/// [`Code::Archive`] for an archive that is malformed or truncated, and for a file that could not be written (with the
/// errno); [`Code::ImageLimit`] for more than 65,536 entries, 16 MiB of names, or more bytes than there is room for;
/// [`Code::Unsupported`] for another compression.
pub fn spool(source: impl Read + Send, directory: &Fd) -> Result<()> {
    let limits = limits();
    let room = free_bytes(directory)?;
    // No digest tells whether it is whole: its end mark must.
    let (_, table) = super::stream(source, &Options { limits, ..Options::default() }, room, |reader| {
        let mut table = Table::default();
        while let Some(entry) = reader.next()? {
            table.take(entry, reader, directory)?;
        }
        reader.drain()?;
        Ok(Value::Array(table.rows))
    })?;
    write_table(directory, &table)
}

/// Writes a layer's blob, plain, gzip or zstd, into the empty `directory` as `0`, and then `table.json` with its one row:
/// `{file, size, digest, diffId}`. That it is an archive is seen when it is unpacked.
///
/// # Errors
/// As [`spool`]; [`Code::ImageLimit`] for what inflates to more than a layer may ([`Limits`]).
pub fn spool_layer(source: impl Read + Send, directory: &Fd) -> Result<()> {
    let kept = Kept { source, file: create(directory, "0")? };
    let (sums, ()) = super::stream(kept, &Options::default(), free_bytes(directory)?, Reader::drain)?;
    let (digest, diff_id) = (sums.blob_digest.to_string(), sums.diff_id.to_string());
    let row = json!({ "name": "", "file": 0, "size": sums.blob_bytes, "digest": digest, "diffId": diff_id });
    write_table(directory, &Value::Array(vec![row]))
}

/// Writes the tree at `root` as a layer's blob, with gzip, into the empty `directory`: the same two files as
/// [`spool_layer`].
///
/// # Errors
/// As [`super::pack()`].
pub fn pack_layer(root: &Fd, directory: &Fd, packing: &Packing) -> Result<()> {
    let mut blob = Deflate::new(create(directory, "0")?);
    pack(root, &mut blob, packing)?;
    let ended = blob.finish().at(Stage::PACK, "the layer");
    let Deflated { digest, size, diff_id } = ended.map_err(|error| error.with_code(Code::Archive))?;
    let (digest, diff_id) = (digest.to_string(), diff_id.to_string());
    let row = json!({ "name": "", "file": 0, "size": size, "digest": digest, "diffId": diff_id });
    write_table(directory, &Value::Array(vec![row]))
}

/// A source whose bytes are kept.
struct Kept<R> {
    source: R,
    file: Fd,
}

impl<R: Read> Read for Kept<R> {
    fn read(&mut self, room: &mut [u8]) -> std::io::Result<usize> {
        let length = self.source.read(room)?;
        write_all(&self.file, &room[..length])
            .map_err(|errno| std::io::Error::from_raw_os_error(errno.raw()))?;
        Ok(length)
    }
}

fn write_table(directory: &Fd, table: &Value) -> Result<()> {
    let bytes = serde_json::to_vec(table)
        .map_err(|error| Error::new(Code::Internal, Stage::UNPACK, TABLE, error.to_string()))?;
    let file = create(directory, TABLE)?;
    write_all(&file, &bytes).on(TABLE.as_bytes())
}

fn create(directory: &Fd, name: &str) -> Result<Fd> {
    let c_name = CString::new(name).map_err(|_| Error::invalid("name", "holds a NUL byte"))?;
    let flags = open::WRONLY | open::CREAT | open::EXCL;
    openat2(directory, &c_name, flags, resolve::BENEATH | resolve::NO_SYMLINKS, 0o600).on(name.as_bytes())
}

/// What was read so far.
#[derive(Debug, Default)]
struct Table {
    rows: Vec<Value>,
    files: u64,
    names: usize,
}

impl Table {
    fn take<S: super::stream::Stream>(
        &mut self,
        entry: Entry,
        data: &mut Reader<S>,
        directory: &Fd,
    ) -> Result<()> {
        let is_known = |bytes: &[u8]| bytes.len() <= NAME_BYTES && !bytes.contains(&0);
        if !is_known(&entry.name) || !is_known(&entry.target) {
            return Ok(());
        }
        let (Ok(name), Ok(target)) = (String::from_utf8(entry.name), String::from_utf8(entry.target)) else {
            return Ok(());
        };
        self.names += name.len() + target.len();
        if self.names > NAMES_BYTES {
            return Err(too_large("names", format!("its names take more than {NAMES_BYTES} bytes")));
        }
        match entry.kind {
            Kind::File if entry.sparse.is_some() => {
                return Err(refuse(name.as_bytes(), "a sparse file in an archive of images"));
            }
            Kind::File => {
                let number = self.files;
                self.files += 1;
                let digest = write(&create(directory, &number.to_string())?, &name, data)?;
                let digest = digest.to_string();
                self.rows.push(json!({ "name": name, "file": number, "size": entry.size, "digest": digest }));
            }
            Kind::Link | Kind::Symlink => {
                let hard = entry.kind == Kind::Link;
                self.rows.push(json!({ "name": name, "link": target, "hard": hard }));
            }
            Kind::Directory | Kind::Fifo | Kind::Char | Kind::Block => {}
        }
        Ok(())
    }
}

/// Writes the data of the current entry.
fn write<S: super::stream::Stream>(file: &Fd, name: &str, data: &mut Reader<S>) -> Result<Digest> {
    let mut hash = Sha256::new();
    loop {
        let piece = data.data()?;
        let length = piece.len();
        if length == 0 {
            return Ok(Digest::from(<[u8; 32]>::from(hash.finalize())));
        }
        hash.update(piece);
        write_all(file, piece).on(name.as_bytes())?;
        data.consume(length);
    }
}
