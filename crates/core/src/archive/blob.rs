//! A blob as it is read: hashed, and compared with what its descriptor says.

use super::stream::Source;
use super::{Digest, Options};
use crate::off::off;
use crate::{At, Code, Error, Result, Stage};
use sha2::{Digest as _, Sha256};
use std::io::{ErrorKind, Read};

/// Reads a blob.
pub(super) struct Blob<R> {
    blob: R,
    hash: Sha256,
    bytes: u64,
    expected_digest: Option<Digest>,
    expected_size: Option<u64>,
}

impl<R: Read> Blob<R> {
    pub fn new(blob: R, options: &Options<'_>) -> Self {
        let (expected_digest, expected_size) = (options.expected_digest, options.expected_size);
        Self { blob, hash: Sha256::new(), bytes: 0, expected_digest, expected_size }
    }

    /// The digest and the size, in bytes, of a blob that was read to its end.
    ///
    /// # Errors
    /// [`Code::Digest`] if one is not what was expected.
    pub fn finish(self) -> Result<(Digest, u64)> {
        let short = self.expected_size.filter(|size| *size != self.bytes && !off("verify"));
        if let Some(size) = short {
            return Err(wrong("the blob's size", format!("{size} bytes"), &format!("{} bytes", self.bytes)));
        }
        let digest = Digest::from(<[u8; 32]>::from(self.hash.finalize()));
        check("the blob's digest", self.expected_digest, digest)?;
        Ok((digest, self.bytes))
    }
}

impl<R: Read> Source for Blob<R> {
    fn next(&mut self, piece: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        // Small reads of a pipe are gathered: hashing and inflating are faster on larger pieces.
        while filled < 4096 {
            match self.blob.read(&mut piece[filled..]) {
                Ok(0) => break,
                Ok(length) => filled += length,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).at(Stage::UNPACK, "the blob"),
            }
        }
        self.hash.update(&piece[..filled]);
        self.bytes += filled as u64;
        if let Some(size) = self.expected_size.filter(|size| self.bytes > *size && !off("verify")) {
            let message = "the blob is longer than its descriptor says";
            return Err(Error::new(Code::Digest, Stage::UNPACK, format!("{size} bytes"), message));
        }
        Ok(filled)
    }
}

/// Compares a digest with what was expected, if anything was.
pub(super) fn check(what: &str, expected: Option<Digest>, found: Digest) -> Result<()> {
    match expected.filter(|expected| *expected != found && !off("verify")) {
        Some(expected) => Err(wrong(what, expected.to_string(), &found.to_string())),
        None => Ok(()),
    }
}

fn wrong(what: &str, expected: String, found: &str) -> Error {
    Error::new(Code::Digest, Stage::UNPACK, expected, format!("{what} is {found}"))
}
