//! A layer's bytes to its blob: hashed, compressed with gzip, hashed again and written, in one pass.

use super::Digest;
use caisson_sys::{Fd, file};
use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};
use sha2::{Digest as _, Sha256};
use std::io::{self, Write};

/// Where a layer's bytes go. What comes out depends on them alone: no name, no time in its header.
pub(super) struct Deflate {
    hash: Sha256,
    gzip: GzEncoder<Blob>,
}

/// What was written.
pub(super) struct Deflated {
    pub digest: Digest,
    /// Bytes of the blob.
    pub size: u64,
    pub diff_id: Digest,
}

impl Deflate {
    /// Writes the blob to `file`.
    pub fn new(file: Fd) -> Self {
        let blob = Blob { file, hash: Sha256::new(), size: 0 };
        let gzip = GzBuilder::new().mtime(0).write(blob, Compression::default());
        Self { hash: Sha256::new(), gzip }
    }

    /// The end of the layer.
    pub fn finish(self) -> io::Result<Deflated> {
        let blob = self.gzip.finish()?;
        let digest = |hash: Sha256| Digest::from(<[u8; 32]>::from(hash.finalize()));
        Ok(Deflated { digest: digest(blob.hash), size: blob.size, diff_id: digest(self.hash) })
    }
}

impl Write for Deflate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.gzip.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.gzip.flush()
    }
}

struct Blob {
    file: Fd,
    hash: Sha256,
    size: u64,
}

impl Write for Blob {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        file::write_all(&self.file, bytes).map_err(|errno| io::Error::from_raw_os_error(errno.raw()))?;
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
