//! Bytes on their way from one thread to the next: from the blob to the inflater, from there to the tar reader.

use crate::Result;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

/// Bytes of a piece. Large enough that most files of a layer are one write, small enough to stay in the cache.
pub(super) const PIECE: usize = 256 * 1024;

/// Pieces that wait between two threads. Bounds memory, and how far reading runs ahead of writing.
const WAITING: usize = 4;

/// Something that makes bytes.
pub(super) trait Source {
    /// Fills `piece`, which must be [`PIECE`] long, with the next bytes and answers how many; 0 is the end.
    fn next(&mut self, piece: &mut [u8]) -> Result<usize>;
}

/// A source of bytes that can be looked at before they are taken.
pub(super) trait Stream {
    /// The bytes at hand, more read first if there are none; empty at the end.
    fn fill(&mut self) -> Result<&[u8]>;

    /// Takes `length` of the bytes that `fill` gave.
    fn consume(&mut self, length: usize);
}

/// A piece and how many of its bytes count.
type Piece = (Box<[u8]>, usize);

/// Where the thread that makes bytes puts them.
pub(super) struct Producer {
    full: SyncSender<Result<Piece>>,
    empty: Receiver<Box<[u8]>>,
}

/// Where the thread that needs them gets them.
pub(super) struct Consumer {
    full: Receiver<Result<Piece>>,
    empty: Sender<Box<[u8]>>,
    piece: Piece,
    start: usize,
}

/// The two ends of a way from one thread to another.
pub(super) fn handoff() -> (Producer, Consumer) {
    let (full_in, full_out) = sync_channel(WAITING);
    let (empty_in, empty_out) = channel();
    let consumer = Consumer { full: full_out, empty: empty_in, piece: (Box::default(), 0), start: 0 };
    (Producer { full: full_in, empty: empty_out }, consumer)
}

impl Producer {
    /// A thread's work: piece after piece until the end, an error, or until nobody takes them any more. Gives the
    /// source back if it came to its end.
    pub fn run<S: Source>(&self, mut source: S) -> Option<S> {
        loop {
            let mut piece = self.empty.try_recv().unwrap_or_else(|_| vec![0; PIECE].into_boxed_slice());
            let (answer, more) = match source.next(&mut piece) {
                Ok(0) => return Some(source),
                Ok(length) => (Ok((piece, length)), true),
                Err(error) => (Err(error), false),
            };
            if self.full.send(answer).is_err() || !more {
                return None;
            }
        }
    }
}

impl Producer {
    /// A thread's work: hands pieces on as they come, each looked at on its way. False if nobody takes them any more.
    pub fn pass(&self, from: &Consumer, mut look: impl FnMut(&[u8])) -> bool {
        while let Ok(piece) = from.full.recv() {
            if let Ok((bytes, length)) = &piece {
                look(&bytes[..*length]);
            }
            if self.full.send(piece).is_err() {
                return false;
            }
            while let Ok(empty) = self.empty.try_recv() {
                let _ = from.empty.send(empty);
            }
        }
        true
    }
}

impl Stream for Consumer {
    fn fill(&mut self) -> Result<&[u8]> {
        if self.start == self.piece.1 {
            let next = self.full.recv().unwrap_or(Ok((Box::default(), 0)))?;
            let (used, _) = std::mem::replace(&mut self.piece, next);
            self.start = 0;
            if !used.is_empty() {
                // The producer may have ended already; then the piece is just dropped.
                let _ = self.empty.send(used);
            }
        }
        Ok(&self.piece.0[self.start..self.piece.1])
    }

    fn consume(&mut self, length: usize) {
        self.start += length;
    }
}
