//! zstd, frame after frame, skippable ones between them (RFC 8878, 3.1). zstd:chunked and eStargz' zstd keep their
//! tables of contents in skippable frames; for us they are only bytes of the blob.

use super::{refuse, too_large};
use crate::{Code, Error, Result, Stage};
use zstd_safe::zstd_sys::ZSTD_ErrorCode as Kind;
use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, get_error_name, is_error_kind};

/// A zstd stream: inside a frame, or between two.
pub(super) struct Zstd {
    context: DCtx<'static>,
    /// Whether a frame has begun and not ended.
    inside: bool,
    /// Whether a frame has ended: what does not begin one then is garbage behind the stream.
    ended: bool,
    window_log: u32,
}

impl Zstd {
    /// Whether these first bytes of a blob are of a frame, a skippable one perhaps.
    pub fn is_magic(start: &[u8]) -> bool {
        matches!(start, [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
    }

    /// Refuses frames that need a window of more than 2^`window_log` bytes, which is the memory that one takes.
    pub fn new(window_log: u32) -> Result<Self> {
        let internal = |reason: &str| Error::new(Code::Internal, Stage::UNPACK, "zstd", reason);
        let mut context = DCtx::try_create().ok_or_else(|| internal("out of memory"))?;
        let set = context.set_parameter(DParameter::WindowLogMax(window_log));
        set.map_err(|code| internal(get_error_name(code)))?;
        Ok(Self { context, inside: false, ended: false, window_log })
    }

    /// Whether the stream may end here.
    pub fn is_whole(&self) -> bool {
        !self.inside
    }

    /// Decompresses; answers how many bytes of `input` were taken and how many of `piece` made. With an empty `input`
    /// it gives what it still holds.
    ///
    /// # Errors
    /// [`Code::ImageLimit`] for a window that is too large, [`Code::Archive`] for a damaged stream, and for bytes
    /// behind it.
    pub fn take(&mut self, input: &[u8], piece: &mut [u8]) -> Result<(usize, usize)> {
        let mut from = InBuffer::around(input);
        let mut to = OutBuffer::around(piece);
        let answer = self.context.decompress_stream(&mut to, &mut from);
        let (taken, made) = (from.pos(), to.pos());
        match answer {
            Ok(0) => (self.inside, self.ended) = (false, true),
            Ok(_) => self.inside |= taken > 0,
            Err(code) => return Err(self.error(code)),
        }
        Ok((taken, made))
    }

    fn error(&self, code: usize) -> Error {
        let is = |kind| is_error_kind(code, kind);
        if is(Kind::ZSTD_error_frameParameter_windowTooLarge) {
            let message =
                format!("a zstd frame needs a window of more than {} bytes", 1u64 << self.window_log);
            return too_large("zstd_window_log", message);
        }
        if is(Kind::ZSTD_error_prefix_unknown) && self.ended && !self.inside {
            return refuse(b"", "there are bytes behind the zstd stream");
        }
        if is(Kind::ZSTD_error_dictionary_wrong) {
            return refuse(b"", "the zstd stream needs a dictionary");
        }
        if is(Kind::ZSTD_error_memory_allocation) {
            return Error::new(Code::Internal, Stage::UNPACK, "zstd", "out of memory");
        }
        refuse(b"", format!("the zstd stream is damaged ({})", get_error_name(code)))
    }
}
