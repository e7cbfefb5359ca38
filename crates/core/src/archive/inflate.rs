//! A blob as it is read: hashed, inflated, hashed again, and bounded, a piece at a time.

use super::gzip::Gzip;
use super::zstd::Zstd;
use super::{Digest, Limits, Options, refuse, too_large};
use crate::off::off;
use crate::{At, Code, Error, Result, Stage};
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
    Gzip(Gzip),
    Zstd(Zstd),
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
    window_log: u32,
    expected_digest: Option<Digest>,
    expected_size: Option<u64>,
    expected_diff_id: Option<Digest>,
}

impl<R: Read> Inflate<R> {
    /// `free` is what the destination's file system may still take, in bytes.
    pub fn new(blob: R, options: &Options<'_>, free: u64) -> Self {
        let Limits { inflated_bytes, ratio, zstd_window_log, .. } = options.limits;
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
            window_log: zstd_window_log,
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
            let more = self.start < self.end || self.read()?;
            if !more && self.is_whole() {
                break;
            }
            let (taken, made) = self.take(&mut piece[filled..])?;
            if !more && made == 0 {
                return Err(refuse(b"", "the compressed stream ends too early"));
            }
            self.start += taken;
            filled += made;
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
            Form::Unknown | Form::Plain => blob_digest,
            _ => Digest::from(<[u8; 32]>::from(self.diff_hash.finalize_reset())),
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

    /// Whether the blob may end here.
    fn is_whole(&self) -> bool {
        match &self.form {
            Form::Unknown | Form::Plain => true,
            Form::Gzip(gzip) => gzip.is_whole(),
            Form::Zstd(zstd) => zstd.is_whole(),
        }
    }

    /// Moves bytes from the room to `piece`; answers how many were taken and how many came out.
    fn take(&mut self, piece: &mut [u8]) -> Result<(usize, usize)> {
        let input = &self.room[self.start..self.end];
        match &mut self.form {
            // A decoder that ends within a member has no more to give without input.
            Form::Gzip(_) if input.is_empty() => Ok((0, 0)),
            Form::Gzip(gzip) => gzip.take(input, piece),
            Form::Zstd(zstd) => zstd.take(input, piece),
            Form::Unknown | Form::Plain => {
                let length = input.len().min(piece.len());
                piece[..length].copy_from_slice(&input[..length]);
                Ok((length, length))
            }
        }
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
            let message = "layers compressed this way are not supported; gzip, zstd and plain tar are";
            Err(Error::new(Code::Unsupported, Stage::UNPACK, name, message))
        };
        match &self.room[..self.end] {
            [] => Err(refuse(b"", "the blob is empty")),
            [0x1f, 0x8b, ..] => Ok(Form::Gzip(Gzip::default())),
            start if Zstd::is_magic(start) => Zstd::new(self.window_log).map(Form::Zstd),
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
