//! The bytes of a blob inflated and bounded, a piece at a time.

use super::gzip::Gzip;
use super::stream::{Source, Stream};
use super::zstd::Zstd;
use super::{Limits, Options, refuse, too_large};
use crate::off::off;
use crate::{Code, Error, Result, Stage};
use std::sync::atomic::{AtomicBool, Ordering};

/// The ratio of inflated to compressed counts from here on: a small archive of zeros is nobody's bomb.
const RATIO_FROM: u64 = 64 << 20;

/// How a blob is compressed.
enum Form {
    Unknown,
    Plain,
    Gzip(Gzip),
    Zstd(Zstd),
}

/// Inflates a stream.
pub(super) struct Inflate<'a, S> {
    blob: S,
    form: Form,
    /// Bytes of the blob that were taken, and bytes that were made of them.
    taken: u64,
    made: u64,
    most: u64,
    ratio: u64,
    window_log: u32,
    /// Told before the first byte is given: whether the blob is not compressed, so that its digest is the layer's too.
    plain: &'a AtomicBool,
}

impl<'a, S: Stream> Inflate<'a, S> {
    /// `free` is what the destination's file system may still take, in bytes.
    pub fn new(blob: S, options: &Options<'_>, free: u64, plain: &'a AtomicBool) -> Self {
        let Limits { inflated_bytes, ratio, zstd_window_log, .. } = options.limits;
        Self {
            blob,
            form: Form::Unknown,
            taken: 0,
            made: 0,
            most: inflated_bytes.min(free),
            ratio,
            window_log: zstd_window_log,
            plain,
        }
    }

    /// How many bytes came out.
    pub fn bytes(&self) -> u64 {
        self.made
    }

    /// Moves bytes from the blob to `piece`; answers how many came out, and whether there was anything to take.
    fn take(&mut self, piece: &mut [u8]) -> Result<(usize, bool)> {
        let input = self.blob.fill()?;
        let (taken, made) = match &mut self.form {
            // A decoder that ends within a member has no more to give without input.
            Form::Gzip(_) if input.is_empty() => (0, 0),
            Form::Gzip(gzip) => gzip.take(input, piece)?,
            Form::Zstd(zstd) if input.is_empty() && zstd.is_whole() => (0, 0),
            Form::Zstd(zstd) => zstd.take(input, piece)?,
            Form::Unknown | Form::Plain => {
                let length = input.len().min(piece.len());
                piece[..length].copy_from_slice(&input[..length]);
                (length, length)
            }
        };
        let more = !input.is_empty();
        self.taken += taken as u64;
        self.blob.consume(taken);
        Ok((made, more))
    }

    /// Whether the blob may end here.
    fn is_whole(&self) -> bool {
        match &self.form {
            Form::Unknown | Form::Plain => true,
            Form::Gzip(gzip) => gzip.is_whole(),
            Form::Zstd(zstd) => zstd.is_whole(),
        }
    }

    /// The compression, by the blob's first bytes: a media type is only somebody's word.
    fn recognise(&mut self) -> Result<Form> {
        let unsupported = |name: &str| {
            let message = "layers compressed this way are not supported; gzip, zstd and plain tar are";
            Err(Error::new(Code::Unsupported, Stage::UNPACK, name, message))
        };
        match self.blob.fill()? {
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
        if self.made > self.most {
            let message = format!("the inflated layer is larger than {} bytes", self.most);
            return Err(too_large("inflated_bytes", message));
        }
        if self.made > RATIO_FROM && self.made / self.ratio > self.taken {
            let message = format!("the layer inflates to more than {} times its size", self.ratio);
            return Err(too_large("ratio", message));
        }
        Ok(())
    }
}

impl<S: Stream> Source for Inflate<'_, S> {
    fn next(&mut self, piece: &mut [u8]) -> Result<usize> {
        if matches!(self.form, Form::Unknown) {
            self.form = self.recognise()?;
            self.plain.store(matches!(self.form, Form::Plain), Ordering::Relaxed);
        }
        let mut filled = 0;
        while filled < piece.len() {
            let (made, more) = self.take(&mut piece[filled..])?;
            filled += made;
            if !more && made == 0 {
                if !self.is_whole() {
                    return Err(refuse(b"", "the compressed stream ends too early"));
                }
                break;
            }
        }
        self.made += filled as u64;
        self.check_limits()?;
        Ok(filled)
    }
}
