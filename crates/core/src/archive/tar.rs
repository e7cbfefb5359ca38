//! Bytes to entries: the one tar reader of Caisson. ustar, GNU and PAX archives (pax(1), tar(5)).
//!
//! What two readers could read in two ways is refused, not guessed: a doubled record, a long name beside a PAX header,
//! a size on an entry that has no data. A PAX size wins everywhere, also for finding the next header (CVE-2025-62518).

use super::header::{BLOCK, Header, long, number, text};
use super::pax::{self, Pax};
use super::stream::Stream;
use super::{Limits, refuse, too_large};
use crate::Result;
use crate::off::off;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Symlink,
    Link,
    Fifo,
    Char,
    Block,
}

/// An entry, bounded and in range, but its names are still what the archive says.
#[derive(Debug)]
pub(super) struct Entry {
    pub name: Vec<u8>,
    pub kind: Kind,
    /// Permission bits, set-id and sticky bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Bytes of the file once written; 0 for all other kinds.
    pub size: u64,
    /// Seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
    /// The target of a link.
    pub target: Vec<u8>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the data goes, (offset, length) each, for a sparse file.
    pub sparse: Option<Vec<(u64, u64)>>,
}

/// Reads entries from a stream.
pub(super) struct Reader<S> {
    stream: S,
    pub(super) limits: Limits,
    entries: u64,
    /// Data of the current entry that was not taken yet, and the padding behind it.
    pub(super) data: u64,
    padding: u64,
    /// Whether an archive may stop without its end mark, since a digest tells that it is whole.
    may_stop: bool,
}

impl<S: Stream> Reader<S> {
    pub fn new(stream: S, limits: Limits, may_stop: bool) -> Self {
        Self { stream, limits, entries: 0, data: 0, padding: 0, may_stop }
    }

    /// Entries so far.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// The next entry; nothing at the end of the archive. Data that was not taken is skipped.
    pub fn next(&mut self) -> Result<Option<Entry>> {
        self.skip(self.data)?;
        // umoci's `insert` (0.4.7) neither pads its last file nor writes an end mark, and everybody unpacks that.
        let at_end = self.stream.fill()?.is_empty();
        if !at_end || !self.may_stop {
            self.skip(self.padding)?;
        }
        (self.data, self.padding) = (0, 0);
        let mut pax: Option<Pax> = None;
        let (mut long_name, mut long_target) = (None, None);
        let mut room = self.limits.header_bytes;
        loop {
            let Some(header) = self.header()? else {
                if pax.is_some() || long_name.is_some() || long_target.is_some() {
                    return Err(refuse(b"", "the archive ends between an entry's headers"));
                }
                return Ok(None);
            };
            let name = header.name();
            let fail = |reason: &'static str| refuse(&name, reason);
            let size = header.size().map_err(fail)?;
            match header.kind() {
                b'x' | b'g' | b'L' | b'K' if !off("limits") => {
                    room = room.checked_sub(size).ok_or_else(|| {
                        let message =
                            format!("its headers take more than {} bytes", self.limits.header_bytes);
                        too_large(super::show(&name), message)
                    })?;
                }
                _ => {}
            }
            let after_long = long_name.is_some() || long_target.is_some();
            match header.kind() {
                b'x' if pax.is_some() => return Err(fail("two PAX headers for one entry")),
                b'x' if after_long => return Err(fail("a GNU long name and a PAX header for one entry")),
                b'x' => pax = Some(Pax::parse(&self.body(&name, size)?).map_err(fail)?),
                b'g' if pax.is_some() || after_long => {
                    return Err(fail("a global header between an entry's headers"));
                }
                b'g' => {
                    self.count()?;
                    pax::check_global(&self.body(&name, size)?).map_err(fail)?;
                }
                b'L' | b'K' if pax.is_some() => {
                    return Err(fail("a GNU long name and a PAX header for one entry"));
                }
                kind @ (b'L' | b'K') => {
                    let place = if kind == b'L' { &mut long_name } else { &mut long_target };
                    if place.is_some() {
                        return Err(fail("two GNU long names for one entry"));
                    }
                    *place = Some(long(&self.body(&name, size)?).map_err(fail)?);
                }
                _ => {
                    self.count()?;
                    let pax = pax.unwrap_or_default();
                    return self.entry(&header, size, pax, long_name, long_target).map(Some);
                }
            }
        }
    }

    /// The next piece of the current entry's data, empty at its end. To be taken with [`Self::consume`].
    pub fn data(&mut self) -> Result<&[u8]> {
        if self.data == 0 {
            return Ok(&[]);
        }
        let piece = self.stream.fill()?;
        if piece.is_empty() {
            return Err(truncated());
        }
        let length = piece.len().min(usize::try_from(self.data).unwrap_or(usize::MAX));
        Ok(&piece[..length])
    }

    /// Takes bytes that [`Self::data`] gave.
    pub fn consume(&mut self, length: usize) {
        self.stream.consume(length);
        self.data -= length as u64;
    }

    fn count(&mut self) -> Result<()> {
        self.entries += 1;
        if self.entries > self.limits.entries && !off("limits") {
            return Err(too_large("entries", format!("more than {} entries", self.limits.entries)));
        }
        Ok(())
    }

    fn entry(
        &mut self,
        header: &Header,
        size: u64,
        mut pax: Pax,
        long_name: Option<Vec<u8>>,
        long_target: Option<Vec<u8>>,
    ) -> Result<Entry> {
        let sparse = pax.sparse.take();
        let name = long_name.or(pax.path).unwrap_or_else(|| header.name());
        let fail = |reason: &'static str| refuse(&name, reason);
        let size = pax.size.unwrap_or(size);
        let kind = match header.kind() {
            0 if name.ends_with(b"/") => Kind::Directory,
            b'0' if name.ends_with(b"/") => return Err(fail("a file whose name ends in a slash")),
            0 | b'0' | b'7' => Kind::File,
            b'1' => Kind::Link,
            b'2' => Kind::Symlink,
            b'3' => Kind::Char,
            b'4' => Kind::Block,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            b'S' if !header.is_gnu() || pax.size.is_some() || sparse.is_some() => {
                return Err(fail("a sparse file of the old GNU form in an archive of another"));
            }
            b'S' => Kind::File,
            b'D' | b'M' | b'N' | b'V' => {
                return Err(fail("GNU incremental and multi-volume archives are not supported"));
            }
            _ => return Err(fail("an entry of an unknown type")),
        };
        if kind != Kind::File && size != 0 {
            // Readers do not agree on whether such data is there.
            return Err(fail("an entry without data that has a size"));
        }
        self.data = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
        let id = |pax: Option<u32>, start: usize| match pax {
            Some(id) => Ok(id),
            None => pax::id(number(&header.0[start..start + 8])?),
        };
        let word = |start: usize| {
            u32::try_from(number(&header.0[start..start + 8])?).map_err(|_| "a device number out of range")
        };
        let is_device = matches!(kind, Kind::Char | Kind::Block);
        let device = if is_device { (word(329).map_err(fail)?, word(337).map_err(fail)?) } else { (0, 0) };
        let mode = number(&header.0[100..108]).map_err(fail)?;
        let mtime = match pax.mtime {
            Some(time) => time,
            None => {
                let seconds = number(&header.0[136..148]).map_err(fail)?;
                (i64::try_from(seconds).map_err(|_| fail("a time out of range"))?, 0)
            }
        };
        let target = match kind {
            Kind::Link | Kind::Symlink => {
                long_target.or(pax.target).unwrap_or_else(|| text(&header.0[157..257]))
            }
            _ => Vec::new(),
        };
        let (uid, gid) = (id(pax.uid, 108).map_err(fail)?, id(pax.gid, 116).map_err(fail)?);
        let mode = (mode & 0o7777) as u32;
        let xattrs = pax.xattrs;
        let mut entry =
            Entry { name, kind, mode, uid, gid, size, mtime, target, device, xattrs, sparse: None };
        if header.kind() == b'S' {
            self.old_sparse(&mut entry, header)?;
        } else if let Some(real) = sparse {
            self.sparse(&mut entry, real)?;
        }
        Ok(entry)
    }

    /// The next header block, its checksum verified; nothing at the end of the archive.
    fn header(&mut self) -> Result<Option<Header>> {
        let mut block = [0; BLOCK];
        let mut zeros = 0;
        loop {
            let at_end = self.stream.fill()?.is_empty();
            if at_end && (self.may_stop || off("verify")) {
                return Ok(None);
            }
            self.read_exact(&mut block)?;
            if block != [0; BLOCK] {
                break;
            }
            zeros += 1;
            if zeros == 2 {
                return Ok(None);
            }
        }
        if zeros == 1 {
            return Err(refuse(b"", "a lone block of zeros between entries"));
        }
        let header = Header(block);
        header.check().map_err(|reason| refuse(&header.name(), reason))?;
        Ok(Some(header))
    }

    /// The data of an extension header.
    fn body(&mut self, name: &[u8], size: u64) -> Result<Vec<u8>> {
        let size = usize::try_from(size).map_err(|_| refuse(name, "a header out of range"))?;
        let mut bytes = vec![0; size.next_multiple_of(BLOCK)];
        self.read_exact(&mut bytes)?;
        bytes.truncate(size);
        Ok(bytes)
    }

    pub(super) fn read_exact(&mut self, mut place: &mut [u8]) -> Result<()> {
        while !place.is_empty() {
            let piece = self.stream.fill()?;
            if piece.is_empty() {
                return Err(truncated());
            }
            let length = piece.len().min(place.len());
            place[..length].copy_from_slice(&piece[..length]);
            place = &mut place[length..];
            self.stream.consume(length);
        }
        Ok(())
    }

    fn skip(&mut self, mut length: u64) -> Result<()> {
        while length > 0 {
            let piece = self.stream.fill()?;
            if piece.is_empty() {
                return Err(truncated());
            }
            let taken = piece.len().min(usize::try_from(length).unwrap_or(usize::MAX));
            self.stream.consume(taken);
            length -= taken as u64;
        }
        Ok(())
    }

    /// Reads the stream to its end: what stands behind the end mark is nobody's entry, but the digests cover it.
    pub fn drain(&mut self) -> Result<()> {
        loop {
            match self.stream.fill()?.len() {
                0 => return Ok(()),
                length => self.stream.consume(length),
            }
        }
    }
}

fn truncated() -> crate::Error {
    refuse(b"", "the archive is truncated")
}
