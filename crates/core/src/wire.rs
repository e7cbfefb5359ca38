//! Values as bytes, for the plan in its sealed file and for the messages between owner, shim and init.
//!
//! Little-endian, a u32 length before everything of variable size, each length checked against what is left before
//! anything is allocated. Both ends are built together: a build id in front of a plan says so, and there is no
//! reading of older forms.

use crate::error::{Code, Error, Result, Stage};
use std::ffi::CString;

/// A value that can be written and read back.
pub trait Wire: Sized {
    /// Appends the value.
    fn put(&self, out: &mut Vec<u8>);
    /// Reads a value.
    ///
    /// # Errors
    /// [`Code::RuntimeMismatch`] for bytes that no writer of this build made.
    fn take(reader: &mut Reader<'_>) -> Result<Self>;

    /// The value alone, as bytes.
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        self.put(&mut out);
        out
    }

    /// The value that these bytes are, all of them.
    ///
    /// # Errors
    /// As [`Wire::take`], and for bytes left over.
    fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader(bytes);
        let value = Self::take(&mut reader)?;
        if reader.0.is_empty() { Ok(value) } else { Err(malformed("bytes left over")) }
    }
}

/// What is left to read.
#[derive(Debug)]
pub struct Reader<'a>(&'a [u8]);

/// Bytes that no writer of this build made.
pub(crate) fn malformed(what: &str) -> Error {
    Error::new(Code::RuntimeMismatch, Stage::CHANNEL, "message", format!("malformed: {what}"))
}

impl<'a> Reader<'a> {
    fn bytes(&mut self, length: usize) -> Result<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(length).ok_or_else(|| malformed("ends early"))?;
        self.0 = tail;
        Ok(head)
    }

    fn counted(&mut self) -> Result<&'a [u8]> {
        let length = u32::take(self)?;
        self.bytes(length as usize)
    }
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Wire for $number {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn take(reader: &mut Reader<'_>) -> Result<Self> {
                let bytes = reader.bytes(size_of::<Self>())?;
                Ok(Self::from_le_bytes(bytes.try_into().map_err(|_| malformed("number"))?))
            }
        }
    )*};
}
numbers!(u8, u16, u32, u64, i32, i64);

impl Wire for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self> {
        match u8::take(reader)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(malformed("flag")),
        }
    }
}

fn put_counted(bytes: &[u8], out: &mut Vec<u8>) {
    // Nothing here comes near 4 GiB: specs and messages are bounded where they enter.
    u32::try_from(bytes.len()).unwrap_or(u32::MAX).put(out);
    out.extend_from_slice(bytes);
}

/// Bytes without a meaning of their own: a filter, a file's content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl Wire for Bytes {
    fn put(&self, out: &mut Vec<u8>) {
        put_counted(&self.0, out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self> {
        Ok(Self(reader.counted()?.to_vec()))
    }
}

impl Wire for String {
    fn put(&self, out: &mut Vec<u8>) {
        put_counted(self.as_bytes(), out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self> {
        Self::from_utf8(reader.counted()?.to_vec()).map_err(|_| malformed("text"))
    }
}

impl Wire for CString {
    fn put(&self, out: &mut Vec<u8>) {
        put_counted(self.as_bytes(), out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self> {
        Self::new(reader.counted()?).map_err(|_| malformed("NUL in a string"))
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        u32::try_from(self.len()).unwrap_or(u32::MAX).put(out);
        for value in self {
            value.put(out);
        }
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self> {
        let count = u32::take(reader)? as usize;
        // Every value takes a byte at least, so a count that lies cannot make us reserve more than was sent.
        if count > reader.0.len() {
            return Err(malformed("count"));
        }
        (0..count).map(|_| T::take(reader)).collect()
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self> {
        Ok(if bool::take(reader)? { Some(T::take(reader)?) } else { None })
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self> {
        Ok((A::take(reader)?, B::take(reader)?))
    }
}

/// Declares a struct or an enum together with its bytes: fields in order, a variant's number first.
macro_rules! wire {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$field_meta:meta])* pub $field:ident: $type:ty),* $(,)? }) => {
        $(#[$meta])* pub struct $name { $($(#[$field_meta])* pub $field: $type),* }
        impl $crate::wire::Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                $($crate::wire::Wire::put(&self.$field, out);)*
            }
            fn take(reader: &mut $crate::wire::Reader<'_>) -> $crate::error::Result<Self> {
                Ok(Self { $($field: $crate::wire::Wire::take(reader)?),* })
            }
        }
    };
    ($(#[$meta:meta])* pub enum $name:ident {
        $($(#[$variant_meta:meta])* $number:literal $variant:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty),* $(,)? }),* $(,)?
    }) => {
        #[allow(missing_docs, reason = "a variant's doc names its fields")]
        #[allow(clippy::large_enum_variant, reason = "a message lives for one packet; a box would cost more than it saves")]
        $(#[$meta])* pub enum $name { $($(#[$variant_meta])* $variant { $($(#[$field_meta])* $field: $type),* }),* }
        impl $crate::wire::Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$variant { $($field),* } => {
                        out.push($number);
                        $($crate::wire::Wire::put($field, out);)*
                    })*
                }
            }
            fn take(reader: &mut $crate::wire::Reader<'_>) -> $crate::error::Result<Self> {
                match <u8 as $crate::wire::Wire>::take(reader)? {
                    $($number => Ok(Self::$variant { $($field: $crate::wire::Wire::take(reader)?),* }),)*
                    _ => Err($crate::wire::malformed("variant")),
                }
            }
        }
    };
}
pub(crate) use wire;

/// What a caller gave, or an image, comes back in an error: not more of it than every message has room for.
fn bounded(text: &str) -> String {
    const MOST: usize = 1024;
    let end = (0..=text.len().min(MOST)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    if end < text.len() { format!("{}…", text.get(..end).unwrap_or_default()) } else { text.to_owned() }
}

impl Wire for Error {
    fn put(&self, out: &mut Vec<u8>) {
        self.code.as_str().to_owned().put(out);
        self.stage.as_str().to_owned().put(out);
        self.errno.put(out);
        bounded(&self.subject).put(out);
        bounded(&self.message).put(out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self> {
        Ok(Self {
            code: Code::of(&String::take(reader)?).ok_or_else(|| malformed("code"))?,
            stage: Stage::of(&String::take(reader)?).ok_or_else(|| malformed("stage"))?,
            errno: Wire::take(reader)?,
            subject: String::take(reader)?,
            message: String::take(reader)?,
        })
    }
}
