//! gzip, member after member (RFC 1952).

use super::refuse;
use crate::Result;
use flate2::{Decompress, FlushDecompress, Status};

/// A gzip stream: inside a member, or between two. After one member only another may follow (RFC 1952, 2.2).
#[derive(Default)]
pub(super) struct Gzip(Option<Box<Decompress>>);

impl Gzip {
    /// Whether the stream may end here.
    pub fn is_whole(&self) -> bool {
        self.0.is_none()
    }

    /// Inflates; answers how many bytes of `input`, which may not be empty, were taken and how many of `piece` made.
    ///
    /// # Errors
    /// [`crate::Code::Archive`] for a damaged stream, and for bytes behind it.
    pub fn take(&mut self, input: &[u8], piece: &mut [u8]) -> Result<(usize, usize)> {
        let inflater = match &mut self.0 {
            Some(inflater) => inflater,
            empty if input[0] == 0x1f => empty.insert(Box::new(Decompress::new_gzip(15))),
            None => return Err(refuse(b"", "there are bytes behind the gzip stream")),
        };
        let (before_in, before_out) = (inflater.total_in(), inflater.total_out());
        let status = inflater.decompress(input, piece, FlushDecompress::None);
        let taken = (inflater.total_in() - before_in) as usize;
        let made = (inflater.total_out() - before_out) as usize;
        let stuck = taken == 0 && made == 0;
        match status {
            Ok(Status::StreamEnd) => self.0 = None,
            Ok(_) if !stuck => {}
            _ => return Err(refuse(b"", "the gzip stream is damaged")),
        }
        Ok((taken, made))
    }
}
