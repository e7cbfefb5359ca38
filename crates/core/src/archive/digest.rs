//! A content digest: the name of a blob, and what its bytes must hash to.

use crate::{Code, Error, Result, Stage};
use std::fmt;

/// A SHA-256 digest. Written `sha256:` and 64 lower-case hex digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// Reads `sha256:<64 lower-case hex digits>`, and nothing else: a digest becomes a file name, so its text has one
    /// form only (OCI image spec, descriptor.md).
    ///
    /// # Errors
    /// [`Code::Digest`] for another algorithm, upper case, another length.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || {
            let shown = super::show(text.as_bytes());
            Error::new(
                Code::Digest,
                Stage::UNPACK,
                shown,
                "not of the form sha256:<64 lower-case hex digits>",
            )
        };
        let hex = text.strip_prefix("sha256:").filter(|hex| hex.len() == 64).ok_or_else(wrong)?;
        let mut bytes = [0; 32];
        for (place, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let digit = |byte: u8| match byte {
                b'0'..=b'9' => Some(byte - b'0'),
                b'a'..=b'f' => Some(byte - b'a' + 10),
                _ => None,
            };
            let (high, low) = (digit(pair[0]).ok_or_else(wrong)?, digit(pair[1]).ok_or_else(wrong)?);
            *place = high << 4 | low;
        }
        Ok(Self(bytes))
    }
}

impl From<[u8; 32]> for Digest {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
