//! A blob as it is read: hashed, inflated, hashed again, and bounded, a piece at a time.

use super::{Digest, Limits, Options, refuse, too_large};
use crate::off::off;
use crate::{At, Code, Error, Result, Stage};
use flate2::{Decompress, FlushDecompress, Status};
use sha2::{Digest as _, Sha256};
use std::io::{ErrorKind, Read};

/// Bytes of a piece. Large enough that most files of a layer are one write, small enough to stay in the cache.
pub(super) const PIECE: usize = 256 * 1024;

/// The ratio of inflated to compressed counts from here on: a small archive of zeros is nobody's bomb.
const RATIO_FROM: u64 = 64 << 20;

/// What a blob turned out to be.
#[derive(Debug)]
pub(super) struct Sums {
    pub blob_digest: Digest,
    pub blob_bytes: u64,
    pub diff_id: Digest,
    pub bytes: u64,
}

enum Form {
    Unknown,
    Plain,
    /// Inside a member, or between two: after one member only another may follow (RFC 1952, 2.2).
    Gzip(Option<Box<Decompress>>),
}

/// Reads a blob and gives its inflated bytes.
pub(super) struct Inflate<R> {
    blob: R,
    form: Form,
    room: Box<[u8]>,
    start: usize,
    end: usize,
    blob_hash: Sha256,
    diff_hash: Sha256,
    blob_bytes: u64,
    bytes: u64,
    most_bytes: u64,
    ratio: u64,
    expected_digest: Option<Digest>,
    expected_size: Option<u64>,
    expected_diff_id: Option<Digest>,
}

impl<R: Read> Inflate<R> {
    /// `free` is what the destination's file system may still take, in bytes.
    pub fn new(blob: R, options: &Options<'_>, free: u64) -> Self {
        let Limits { inflated_bytes, ratio, .. } = options.limits;
        Self {
            blob,
            form: Form::Unknown,
            room: vec![0; PIECE].into_boxed_slice(),
            start: 0,
            end: 0,
            blob_hash: Sha256::new(),
            diff_hash: Sha256::new(),
            blob_bytes: 0,
            bytes: 0,
            most_bytes: inflated_bytes.min(free),
            ratio,
            expected_digest: options.expected_digest,
            expected_size: options.expected_size,
            expected_diff_id: options.expected_diff_id,
        }
    }

    /// Fills `piece`, which must be [`PIECE`] long, with the next inflated bytes and answers how many; 0 is the end.
    pub fn next(&mut self, piece: &mut [u8]) -> Result<usize> {
        if matches!(self.form, Form::Unknown) {
            self.form = self.recognise()?;
        }
        let mut filled = 0;
        while filled < piece.len() {
            if self.start == self.end && !self.read()? {
                break;
            }
            filled += self.take(&mut piece[filled..])?;
        }
        if filled == 0
            && let Form::Gzip(Some(_)) = self.form
        {
            return Err(refuse(b"", "the gzip stream ends too early"));
        }
        self.bytes += filled as u64;
        if !matches!(self.form, Form::Plain) {
            self.diff_hash.update(&piece[..filled]);
        }
        self.check_limits()?;
        Ok(filled)
    }

    /// Reads what is left, and compares the digests.
    pub fn finish(mut self) -> Result<Sums> {
        let wrong = |what: &str, expected: String, found: String| {
            let message = format!("{what} is {found}");
            Err(Error::new(Code::Digest, Stage::UNPACK, expected, message))
        };
        let short = self.expected_size.filter(|size| *size != self.blob_bytes);
        if let Some(size) = short.filter(|_| !off("verify")) {
            return wrong("the blob's size", format!("{size} bytes"), format!("{} bytes", self.blob_bytes));
        }
        let blob_digest = Digest::from(<[u8; 32]>::from(self.blob_hash.finalize_reset()));
        let diff_id = match self.form {
            Form::Gzip(_) => Digest::from(<[u8; 32]>::from(self.diff_hash.finalize_reset())),
            _ => blob_digest,
        };
        let differs = |expected: Option<Digest>, found| expected.filter(|e| *e != found && !off("verify"));
        if let Some(expected) = differs(self.expected_digest, blob_digest) {
            return wrong("the blob's digest", expected.to_string(), blob_digest.to_string());
        }
        if let Some(expected) = differs(self.expected_diff_id, diff_id) {
            return wrong("the digest of the inflated layer", expected.to_string(), diff_id.to_string());
        }
        Ok(Sums { blob_digest, blob_bytes: self.blob_bytes, diff_id, bytes: self.bytes })
    }

    /// Moves bytes from the room to `piece`, and answers how many came out.
    fn take(&mut self, piece: &mut [u8]) -> Result<usize> {
        let input = &self.room[self.start..self.end];
        let Form::Gzip(member) = &mut self.form else {
            let length = input.len().min(piece.len());
            piece[..length].copy_from_slice(&input[..length]);
            self.start += length;
            return Ok(length);
        };
        let inflater = match member {
            Some(inflater) => inflater,
            None if input[0] == 0x1f => member.insert(Box::new(Decompress::new_gzip(15))),
            None => return Err(refuse(b"", "there are bytes behind the gzip stream")),
        };
        let (before_in, before_out) = (inflater.total_in(), inflater.total_out());
        let status = inflater.decompress(input, piece, FlushDecompress::None);
        let taken = (inflater.total_in() - before_in) as usize;
        let made = (inflater.total_out() - before_out) as usize;
        let stuck = taken == 0 && made == 0;
        self.start += taken;
        match status {
            Ok(Status::StreamEnd) => *member = None,
            Ok(_) if !stuck => {}
            _ => return Err(refuse(b"", "the gzip stream is damaged")),
        }
        Ok(made)
    }

    /// Reads from the blob into the empty room; false at its end.
    fn read(&mut self) -> Result<bool> {
        (self.start, self.end) = (0, 0);
        // Small reads of a pipe are gathered: hashing and inflating are faster on larger pieces.
        while self.end < 4096 {
            match self.blob.read(&mut self.room[self.end..]) {
                Ok(0) => break,
                Ok(length) => {
                    self.blob_hash.update(&self.room[self.end..self.end + length]);
                    self.end += length;
                    self.blob_bytes += length as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).at(Stage::UNPACK, "the blob"),
            }
        }
        if let Some(size) = self.expected_size.filter(|size| self.blob_bytes > *size && !off("verify")) {
            let message = "the blob is longer than its descriptor says";
            return Err(Error::new(Code::Digest, Stage::UNPACK, format!("{size} bytes"), message));
        }
        Ok(self.end > 0)
    }

    /// The compression, by the blob's first bytes: a media type is only somebody's word.
    fn recognise(&mut self) -> Result<Form> {
        self.read()?;
        let unsupported = |name: &str| {
            let message = "layers compressed this way are not supported yet; gzip and plain tar are";
            Err(Error::new(Code::Unsupported, Stage::UNPACK, name, message))
        };
        match &self.room[..self.end] {
            [] => Err(refuse(b"", "the blob is empty")),
            [0x1f, 0x8b, ..] => Ok(Form::Gzip(None)),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => unsupported("zstd"),
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => unsupported("zstd"),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => unsupported("xz"),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => unsupported("bzip2"),
            _ => Ok(Form::Plain),
        }
    }

    fn check_limits(&self) -> Result<()> {
        if off("limits") {
            return Ok(());
        }
        if self.bytes > self.most_bytes {
            let message = format!("the inflated layer is larger than {} bytes", self.most_bytes);
            return Err(too_large("inflated_bytes", message));
        }
        if self.bytes > RATIO_FROM && self.bytes / self.ratio > self.blob_bytes {
            let message = format!("the layer inflates to more than {} times its size", self.ratio);
            return Err(too_large("ratio", message));
        }
        Ok(())
    }
}
