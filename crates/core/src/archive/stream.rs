//! Bytes on their way from the inflater to the tar reader.

use super::inflate::{Inflate, PIECE};
use crate::Result;
use std::io::Read;
use std::sync::mpsc::{Receiver, Sender, SyncSender};

/// A source of bytes that can be looked at before they are taken.
pub(super) trait Stream {
    /// The bytes at hand, more read first if there are none; empty at the end.
    fn fill(&mut self) -> Result<&[u8]>;

    /// Takes `length` of the bytes that `fill` gave.
    fn consume(&mut self, length: usize);
}

/// Pieces that wait between the two threads. Bounds memory, and how far reading runs ahead of writing.
pub(super) const WAITING: usize = 4;

/// A piece and how many of its bytes count.
pub(super) type Piece = (Box<[u8]>, usize);

/// The reading thread: inflates piece after piece until the end, an error, or until nobody takes them any more.
/// Inflating and making files each keep a processor busy, so together they take the time of the slower one.
pub(super) fn produce<R: Read>(
    mut inflate: Inflate<R>,
    full: &SyncSender<Result<Piece>>,
    empty: &Receiver<Box<[u8]>>,
) -> Option<Inflate<R>> {
    loop {
        let mut piece = empty.try_recv().unwrap_or_else(|_| vec![0; PIECE].into_boxed_slice());
        let (answer, more) = match inflate.next(&mut piece) {
            Ok(0) => return Some(inflate),
            Ok(length) => (Ok((piece, length)), true),
            Err(error) => (Err(error), false),
        };
        if full.send(answer).is_err() || !more {
            return None;
        }
    }
}

/// The other end of [`produce`].
pub(super) struct Handoff {
    full: Receiver<Result<Piece>>,
    empty: Sender<Box<[u8]>>,
    piece: Piece,
    start: usize,
}

impl Handoff {
    pub fn new(full: Receiver<Result<Piece>>, empty: Sender<Box<[u8]>>) -> Self {
        Self { full, empty, piece: (Box::default(), 0), start: 0 }
    }
}

impl Stream for Handoff {
    fn fill(&mut self) -> Result<&[u8]> {
        if self.start == self.piece.1 {
            let next = self.full.recv().unwrap_or(Ok((Box::default(), 0)))?;
            let (used, _) = std::mem::replace(&mut self.piece, next);
            self.start = 0;
            if !used.is_empty() {
                // The reader may have ended already; then the piece is just dropped.
                let _ = self.empty.send(used);
            }
        }
        Ok(&self.piece.0[self.start..self.piece.1])
    }

    fn consume(&mut self, length: usize) {
        self.start += length;
    }
}
