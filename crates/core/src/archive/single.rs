//! Parts of unpacking alone, on one thread and from memory: what `examples/unpack-cost.rs` measures.

use super::apply::Applier;
use super::inflate::Inflate;
use super::stream::{PIECE, Source, Stream};
use super::tar::Reader;
use super::{Limits, On, Options, Report};
use crate::Result;
use caisson_sys::Fd;
use caisson_sys::file::{open, openat2};
use std::sync::atomic::AtomicBool;

/// Bytes that are all there.
struct Slice<'a>(&'a [u8]);

impl Stream for Slice<'_> {
    fn fill(&mut self) -> Result<&[u8]> {
        Ok(&self.0[..self.0.len().min(PIECE)])
    }

    fn consume(&mut self, length: usize) {
        self.0 = &self.0[length..];
    }
}

/// Inflates a blob; answers how many bytes come out.
///
/// # Errors
/// As [`super::unpack`].
pub fn inflate(blob: &[u8]) -> Result<u64> {
    let plain = AtomicBool::new(false);
    let mut inflate = Inflate::new(Slice(blob), &Options::default(), u64::MAX, &plain);
    let mut piece = vec![0; PIECE];
    while inflate.next(&mut piece)? > 0 {}
    Ok(inflate.bytes())
}

/// Reads an archive that is not compressed; answers how many entries it has.
///
/// # Errors
/// As [`super::unpack`].
pub fn parse(archive: &[u8]) -> Result<u64> {
    let mut reader = Reader::new(Slice(archive), Limits::default(), false);
    while reader.next()?.is_some() {}
    Ok(reader.entries())
}

/// Unpacks an archive that is not compressed. Nothing is hashed.
///
/// # Errors
/// As [`super::unpack`].
pub fn apply(archive: &[u8], destination: &Fd, options: &Options<'_>) -> Result<Report> {
    let root = openat2(destination, c".", open::RDONLY | open::DIRECTORY, 0, 0).on(b"./")?;
    let mut applier = Applier::new(root, options, options.limits.inflated_bytes)?;
    let mut reader = Reader::new(Slice(archive), options.limits, false);
    while let Some(mut entry) = reader.next()? {
        applier.apply(&mut entry, &mut reader)?;
    }
    applier.finish()
}
