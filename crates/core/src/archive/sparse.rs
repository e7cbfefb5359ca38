//! The maps of sparse files: which pieces of a file its data are. Two forms: GNU tar's 1.0 in PAX archives, and the
//! old one of GNU archives. The PAX forms 0.0 and 0.1 are refused (pax.rs).

use super::header::{BLOCK, Header, number};
use super::pax::size;
use super::refuse;
use super::stream::Stream;
use super::tar::{Entry, Kind, Reader};
use crate::Result;

/// Bytes of a piece in the old form: offset and length, twelve each.
const PIECE: usize = 24;

impl<S: Stream> Reader<S> {
    /// Reads the map at the head of a sparse file's data (GNU tar manual, "PAX Format, Version 1.0"): the number of
    /// pieces, then offset and length of each, a decimal number a line, padded to whole blocks.
    pub(super) fn sparse(&mut self, entry: &mut Entry, real: u64) -> Result<()> {
        let fail = |reason: &'static str| refuse(&entry.name, reason);
        if entry.kind != Kind::File {
            return Err(fail("a sparse entry that is no file"));
        }
        let mut room = self.limits.header_bytes / BLOCK as u64;
        let mut numbers: Vec<u64> = Vec::new();
        let mut digits: Option<u64> = None;
        let mut wanted = 1;
        while numbers.len() < wanted {
            room = room.checked_sub(1).ok_or_else(|| fail("a sparse map that is too long"))?;
            if self.data < BLOCK as u64 {
                return Err(fail("a sparse map longer than its file"));
            }
            let mut block = [0; BLOCK];
            self.read_exact(&mut block)?;
            self.data -= BLOCK as u64;
            for byte in block {
                if numbers.len() == wanted {
                    break;
                }
                match (byte, digits) {
                    (b'0'..=b'9', _) => {
                        let more = digits.unwrap_or(0).checked_mul(10);
                        let more = more.and_then(|value| value.checked_add(u64::from(byte - b'0')));
                        digits = Some(more.ok_or_else(|| fail("a number of the sparse map out of range"))?);
                    }
                    (b'\n', Some(value)) => {
                        if numbers.is_empty() {
                            // Each piece takes at least four bytes of the map.
                            let most = self.limits.header_bytes / 4;
                            let pieces = usize::try_from(value.min(most + 1)).unwrap_or(usize::MAX);
                            wanted = pieces.saturating_mul(2).saturating_add(1);
                        }
                        numbers.push(value);
                        digits = None;
                    }
                    _ => return Err(fail("a damaged sparse map")),
                }
            }
        }
        let map = numbers[1..].chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        self.set_map(entry, real, map)
    }

    /// Reads the map in the header and in the blocks behind it (GNU tar manual, "Old GNU Format"): four pieces at byte
    /// 386, whether more come at 482, the real size at 483; then 21 pieces a block, and at 504 whether more come.
    pub(super) fn old_sparse(&mut self, entry: &mut Entry, header: &Header) -> Result<()> {
        let fail = |reason: &'static str| refuse(&entry.name, reason);
        let real = number(&header.0[483..495]).and_then(size).map_err(fail)?;
        let mut map = Vec::new();
        let mut ended = add_pieces(&header.0[386..482], &mut map, false).map_err(fail)?;
        let mut more = header.0[482];
        let mut room = self.limits.header_bytes / BLOCK as u64;
        while more != 0 {
            room = room.checked_sub(1).ok_or_else(|| fail("a sparse map that is too long"))?;
            let mut block = [0; BLOCK];
            self.read_exact(&mut block)?;
            ended = add_pieces(&block[..504], &mut map, ended).map_err(fail)?;
            more = block[504];
        }
        self.set_map(entry, real, map)
    }

    /// Gives the entry its real size and its map, whose pieces must follow one another, be all of the data, and end where
    /// the file does. GNU tar begins each piece with a new block and ends the file with its last piece, others do
    /// neither: what they would see differently is refused, and written by nobody.
    fn set_map(&self, entry: &mut Entry, real: u64, map: Vec<(u64, u64)>) -> Result<()> {
        let fail = |reason: &'static str| refuse(&entry.name, reason);
        let mut end = 0u64;
        let mut sum = 0u64;
        for (offset, length) in &map {
            let after = offset.checked_add(*length).filter(|after| *offset >= end && *after <= real);
            end = after.ok_or_else(|| fail("pieces of a sparse file overlap or lie outside it"))?;
            if !sum.is_multiple_of(BLOCK as u64) && *length > 0 {
                return Err(fail("a piece of a sparse file that is no whole number of blocks"));
            }
            sum += length;
        }
        if sum != self.data {
            return Err(fail("a sparse map that does not fit its data"));
        }
        if end != real {
            return Err(fail("a sparse map that ends before its file"));
        }
        entry.size = real;
        entry.sparse = Some(map);
        Ok(())
    }
}

/// Adds pieces up to the first empty one; whether there was one, and behind it nothing may come: GNU tar stops there,
/// others do not.
fn add_pieces(field: &[u8], map: &mut Vec<(u64, u64)>, mut ended: bool) -> Result<bool, &'static str> {
    for piece in field.chunks_exact(PIECE) {
        if piece.iter().all(|byte| *byte == 0) {
            ended = true;
        } else if ended || piece[0] == 0 || piece[12] == 0 {
            return Err("a damaged sparse map");
        } else {
            map.push((size(number(&piece[..12])?)?, size(number(&piece[12..])?)?));
        }
    }
    Ok(ended)
}
