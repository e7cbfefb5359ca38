//! Entries to bytes: the one tar writer of the core. ustar, with a PAX header for what that cannot say (pax(1), tar(5)):
//! long names, large numbers, nanoseconds, attributes, the map of a sparse file in GNU's form 1.0.

use super::header::BLOCK;
use super::tar::{Entry, Kind};
use std::borrow::Cow;

/// Bytes of a name or a target in a ustar header.
const NAME: usize = 100;
/// The largest number of the fields of eight and of twelve bytes.
const MOST_ID: u32 = 0o7_777_777;
const MOST_SIZE: u64 = 0o77_777_777_777;

/// An entry that no header can say.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unsayable(pub &'static str);

/// The headers of an entry, and for a sparse file its map: all that stands before its data.
///
/// # Errors
/// [`Unsayable`] for an attribute whose name holds `=`, which ends a name in a PAX record.
pub(super) fn headers(entry: &Entry) -> Result<Vec<u8>, Unsayable> {
    let map = entry.sparse.as_deref().map(map);
    let size = match (&map, &entry.sparse) {
        (Some(map), Some(pieces)) => map.len() as u64 + pieces.iter().map(|(_, length)| length).sum::<u64>(),
        _ => entry.size,
    };
    let name = name_of(entry);
    let records = records(entry, &name, size)?;
    let mut out = Vec::with_capacity(BLOCK * 4);
    if !records.is_empty() {
        let length = records.len();
        let block = Plain {
            name: b"PaxHeaders/entry",
            kind: b'x',
            mode: 0o644,
            size: length as u64,
            ..Plain::default()
        };
        out.extend_from_slice(&block.sealed());
        out.extend_from_slice(&records);
        out.resize(out.len() + padding(length as u64), 0);
    }
    let plain = Plain {
        name: &name,
        kind: kind(entry.kind),
        mode: entry.mode,
        ids: (entry.uid, entry.gid),
        size,
        mtime: entry.mtime.0,
        target: &entry.target,
        device: entry.device,
    };
    out.extend_from_slice(&plain.sealed());
    out.extend_from_slice(&map.unwrap_or_default());
    Ok(out)
}

/// Bytes of nothing behind data of this length.
pub(super) const fn padding(length: u64) -> usize {
    (length.wrapping_neg() % BLOCK as u64) as usize
}

/// What ends an archive.
pub(super) const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// A directory's name ends in a slash.
fn name_of(entry: &Entry) -> Cow<'_, [u8]> {
    if entry.kind != Kind::Directory || entry.name.ends_with(b"/") {
        return Cow::Borrowed(&entry.name);
    }
    Cow::Owned([&entry.name[..], b"/"].concat())
}

const fn kind(kind: Kind) -> u8 {
    match kind {
        Kind::File => b'0',
        Kind::Link => b'1',
        Kind::Symlink => b'2',
        Kind::Char => b'3',
        Kind::Block => b'4',
        Kind::Directory => b'5',
        Kind::Fifo => b'6',
    }
}

fn records(entry: &Entry, name: &[u8], size: u64) -> Result<Vec<u8>, Unsayable> {
    let mut out = Vec::new();
    // What stands in a record; what fits a header is bytes.
    let is_text = |bytes: &[u8], recorded: bool| !recorded || std::str::from_utf8(bytes).is_ok();
    let target = entry.target.len() > NAME;
    if !is_text(name, entry.sparse.is_some() || name.len() > NAME) || !is_text(&entry.target, target) {
        record(b"hdrcharset", b"BINARY", &mut out);
    }
    if entry.sparse.is_some() {
        record(b"GNU.sparse.major", b"1", &mut out);
        record(b"GNU.sparse.minor", b"0", &mut out);
        record(b"GNU.sparse.name", name, &mut out);
        record(b"GNU.sparse.realsize", entry.size.to_string().as_bytes(), &mut out);
    } else if name.len() > NAME {
        record(b"path", name, &mut out);
    }
    if target {
        record(b"linkpath", &entry.target, &mut out);
    }
    if size > MOST_SIZE {
        record(b"size", size.to_string().as_bytes(), &mut out);
    }
    for (key, id) in [(b"uid", entry.uid), (b"gid", entry.gid)] {
        if id > MOST_ID {
            record(key, id.to_string().as_bytes(), &mut out);
        }
    }
    if let Some(time) = time(entry.mtime) {
        record(b"mtime", time.as_bytes(), &mut out);
    }
    for (key, value) in &entry.xattrs {
        if key.contains(&b'=') {
            return Err(Unsayable("an attribute whose name holds =, which no archive can say"));
        }
        record(&[b"SCHILY.xattr.", &key[..]].concat(), value, &mut out);
    }
    Ok(out)
}

/// A time that the header cannot say: with a fraction, before 1970, or late.
fn time((seconds, nanoseconds): (i64, u32)) -> Option<String> {
    match (seconds, nanoseconds) {
        (0.., 0) if seconds as u64 <= MOST_SIZE => None,
        (_, 0) => Some(seconds.to_string()),
        (0.., _) => Some(format!("{seconds}.{nanoseconds:09}")),
        // Half a second before -1 is -1.5, and the kernel's -2 and 500,000,000.
        _ => Some(format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanoseconds)),
    }
}

/// `%d %s=%s\n`, the number being the length of the whole record.
fn record(key: &[u8], value: &[u8], out: &mut Vec<u8>) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + digits(length) != length {
        length = rest + digits(length);
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn digits(number: usize) -> usize {
    number.to_string().len()
}

/// The map of a sparse file (GNU tar manual, "PAX Format, Version 1.0"): how many pieces, offset and length of each, a
/// number a line, in whole blocks.
fn map(pieces: &[(u64, u64)]) -> Vec<u8> {
    let mut text = format!("{}\n", pieces.len());
    for (offset, length) in pieces {
        text.push_str(&format!("{offset}\n{length}\n"));
    }
    let mut bytes = text.into_bytes();
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

/// The fields of a header block; what does not fit stands in the records before it.
#[derive(Default)]
struct Plain<'a> {
    name: &'a [u8],
    kind: u8,
    mode: u32,
    ids: (u32, u32),
    size: u64,
    mtime: i64,
    target: &'a [u8],
    device: (u32, u32),
}

impl Plain<'_> {
    fn sealed(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        let octal = |value: u64, width: usize| format!("{value:0width$o}\0", width = width - 1).into_bytes();
        put(0, &self.name[..self.name.len().min(NAME)]);
        put(100, &octal(u64::from(self.mode), 8));
        put(108, &octal(u64::from(self.ids.0.min(MOST_ID)), 8));
        put(116, &octal(u64::from(self.ids.1.min(MOST_ID)), 8));
        put(124, &octal(self.size.min(MOST_SIZE), 12));
        put(136, &octal(u64::try_from(self.mtime).unwrap_or(0).min(MOST_SIZE), 12));
        put(148, b"        ");
        put(156, &[self.kind]);
        put(157, &self.target[..self.target.len().min(NAME)]);
        put(257, b"ustar\x0000");
        // A number of the kernel's is smaller than these fields.
        put(329, &octal(u64::from(self.device.0), 8));
        put(337, &octal(u64::from(self.device.1), 8));
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }
}
