//! A header block: its fields as text and numbers, and whether it can be trusted to be one (tar(5)).

use super::pax;

/// Everything in an archive is a multiple of it.
pub(super) const BLOCK: usize = 512;

/// A header block.
pub(super) struct Header(pub [u8; BLOCK]);

impl Header {
    /// The checksum, and what the magic promises about the last fields.
    pub fn check(&self) -> Result<(), &'static str> {
        let block = &self.0;
        let stated = number(&block[148..156])?;
        let sum = |value: fn(u8) -> i128| {
            block
                .iter()
                .enumerate()
                .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { value(*byte) })
                .sum::<i128>()
        };
        // Some old writers summed signed bytes.
        if stated != sum(i128::from) && stated != sum(|byte| i128::from(byte as i8)) {
            return Err("the header's checksum is wrong");
        }
        match (self.is_ustar(), self.is_gnu()) {
            (true, _) if &block[508..512] == b"tar\0" => Err("star archives are not supported"),
            (_, true) => {
                // Access and change time may stand here; anything else is of forms that are not supported.
                number(&block[345..357])?;
                number(&block[357..369])?;
                let zero = |field: &[u8]| field.iter().all(|byte| *byte == 0);
                // Where a sparse file has its map: sparse.rs.
                let map = &block[386..495];
                let clear =
                    zero(&block[369..386]) && zero(&block[495..500]) && (zero(map) || self.kind() == b'S');
                if clear { Ok(()) } else { Err("fields of a GNU form that is not supported") }
            }
            (false, false) if !matches!(self.kind(), 0 | b'0'..=b'2' | b'5') => {
                Err("a header without magic, of a type that needs one")
            }
            _ => Ok(()),
        }
    }

    fn is_ustar(&self) -> bool {
        &self.0[257..263] == b"ustar\0"
    }

    pub fn is_gnu(&self) -> bool {
        &self.0[257..263] == b"ustar "
    }

    pub fn kind(&self) -> u8 {
        self.0[156]
    }

    /// The name as it stands in the header.
    pub fn name(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        if !self.is_ustar() || self.0[345] == 0 {
            return name;
        }
        let mut whole = text(&self.0[345..500]);
        whole.push(b'/');
        whole.extend_from_slice(&name);
        whole
    }

    pub fn size(&self) -> Result<u64, &'static str> {
        pax::size(number(&self.0[124..136])?)
    }
}

/// A field of text: up to its first NUL, or all of it.
pub(super) fn text(field: &[u8]) -> Vec<u8> {
    field.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
}

/// The text of a GNU long name, which ends with a NUL.
pub(super) fn long(body: &[u8]) -> Result<Vec<u8>, &'static str> {
    let name = text(body);
    if name.is_empty() || body[name.len()..].iter().any(|byte| *byte != 0) {
        return Err("a damaged GNU long name");
    }
    Ok(name)
}

/// A field of a number: octal digits between blanks and NULs, or base 256 (the first bit set; two's complement).
pub(super) fn number(field: &[u8]) -> Result<i128, &'static str> {
    match field {
        [first @ (0x80 | 0xff), rest @ ..] => {
            let start = if *first == 0xff { -1 } else { 0 };
            Ok(rest.iter().fold(start, |value: i128, byte| value << 8 | i128::from(*byte)))
        }
        [0x81..=0xfe, ..] => Err("a number out of range"),
        _ => {
            let digits = field.trim_ascii_start();
            let length = digits.iter().take_while(|byte| matches!(byte, b'0'..=b'7')).count();
            if digits[length..].iter().any(|byte| !matches!(byte, 0 | b' ')) {
                return Err("a damaged number");
            }
            Ok(digits[..length].iter().fold(0, |value, digit| value << 3 | i128::from(digit - b'0')))
        }
    }
}
