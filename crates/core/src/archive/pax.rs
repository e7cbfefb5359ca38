//! The records of a PAX extended header (pax(1), "pax Extended Header"), and the ranges of the numbers in them.

use std::collections::HashSet;

/// Bytes of one attribute's value (security.md's bound; the kernel's own is the same).
const LONGEST_XATTR: usize = 64 * 1024;

/// What the records say. Of a record that is not here, no part of Caisson makes use.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub path: Option<Vec<u8>>,
    pub target: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub mtime: Option<(i64, u32)>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The real size of a sparse file in the form 1.0.
    pub sparse: Option<u64>,
}

impl Pax {
    /// Reads the records of one entry.
    ///
    /// # Errors
    /// The reason: a damaged record, one that stands twice, a value out of range, a record that changes what the entry
    /// is and is not known here.
    pub fn parse(body: &[u8]) -> Result<Self, &'static str> {
        let mut pax = Self::default();
        let mut seen = HashSet::new();
        let (mut major, mut minor, mut real, mut sparse_name) = (None, None, None, None);
        for record in Records(body) {
            let (key, value) = record?;
            if !seen.insert(key) {
                return Err("a PAX record that stands twice");
            }
            match key {
                b"path" => pax.path = Some(name(value)?),
                b"linkpath" => pax.target = Some(name(value)?),
                b"size" => pax.size = Some(size(decimal(value)?)?),
                b"uid" => pax.uid = Some(id(decimal(value)?)?),
                b"gid" => pax.gid = Some(id(decimal(value)?)?),
                b"mtime" => pax.mtime = Some(time(value)?),
                b"GNU.sparse.major" => major = Some(value),
                b"GNU.sparse.minor" => minor = Some(value),
                b"GNU.sparse.name" => sparse_name = Some(name(value)?),
                b"GNU.sparse.realsize" => real = Some(size(decimal(value)?)?),
                _ if key.starts_with(b"GNU.sparse.") => {
                    return Err("sparse files in an old PAX form are not supported");
                }
                b"hdrcharset" if !matches!(value, b"BINARY" | b"ISO-IR 10646 2000 UTF-8") => {
                    return Err("a PAX header in another character set");
                }
                _ => match key.strip_prefix(b"SCHILY.xattr.") {
                    Some(xattr) => {
                        if xattr.is_empty() || xattr.len() > 255 || xattr.contains(&0) {
                            return Err("a damaged name of an extended attribute");
                        }
                        if value.len() > LONGEST_XATTR {
                            return Err("an extended attribute longer than 64 KiB");
                        }
                        pax.xattrs.push((xattr.to_vec(), value.to_vec()));
                    }
                    None => ignorable(key)?,
                },
            }
        }
        match (major, minor, real) {
            (None, None, None) if sparse_name.is_none() => {}
            (Some(b"1"), Some(b"0"), Some(real)) => {
                pax.sparse = Some(real);
                pax.path = sparse_name.or(pax.path);
            }
            _ => return Err("sparse files in an old PAX form are not supported"),
        }
        Ok(pax)
    }
}

/// Checks a global header: a comment (git writes one) or anything that may be ignored, but nothing that would change
/// the entries behind it, since readers do not agree on that.
///
/// # Errors
/// The reason.
pub(super) fn check_global(body: &[u8]) -> Result<(), &'static str> {
    for record in Records(body) {
        let (key, _) = record?;
        let changes = key.starts_with(b"GNU.") || key.starts_with(b"SCHILY.xattr.");
        if changes || !key.contains(&b'.') && key != b"comment" {
            return Err("a global PAX record that would change the entries");
        }
        ignorable(key)?;
    }
    Ok(())
}

/// A record that may be ignored: a vendor's own (capitals and a dot, by pax(1)), or one of these.
fn ignorable(key: &[u8]) -> Result<(), &'static str> {
    let vendor = key.first().is_some_and(u8::is_ascii_uppercase) && key.contains(&b'.');
    match key {
        b"atime" | b"ctime" | b"comment" | b"uname" | b"gname" | b"hdrcharset" | b"charset" => Ok(()),
        _ if vendor => Ok(()),
        _ => Err("an unknown PAX record"),
    }
}

/// `%d %s=%s\n`, the number being the length of the whole record.
struct Records<'a>(&'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let record = self.record();
        if record.is_none() {
            self.0 = &[];
        }
        Some(record.ok_or("a damaged PAX record"))
    }
}

impl<'a> Records<'a> {
    fn record(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let space = self.0.iter().take(8).position(|byte| *byte == b' ')?;
        let length = usize::try_from(decimal(&self.0[..space]).ok()?).ok()?;
        let record = self.0.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=').filter(|at| *at > 0)?;
        self.0 = &self.0[length..];
        Some((&record[..equals], &record[equals + 1..]))
    }
}

/// A name: the record may not be empty, which would mean the header's own name to some readers only.
fn name(value: &[u8]) -> Result<Vec<u8>, &'static str> {
    if value.is_empty() || value.contains(&0) {
        return Err("a PAX name that is empty or holds a NUL");
    }
    Ok(value.to_vec())
}

/// Digits, at most twenty.
fn decimal(value: &[u8]) -> Result<i128, &'static str> {
    if value.is_empty() || value.len() > 20 || !value.iter().all(u8::is_ascii_digit) {
        return Err("a PAX number out of range");
    }
    Ok(value.iter().fold(0, |sum, digit| sum * 10 + i128::from(digit - b'0')))
}

/// A size in bytes, as the kernel counts them: below 2^63.
pub(super) fn size(value: i128) -> Result<u64, &'static str> {
    match i64::try_from(value) {
        Ok(size) => u64::try_from(size).map_err(|_| "a negative size"),
        Err(_) => Err("a size out of range"),
    }
}

/// A user or group id. 4294967295 is chown's "leave it", so it is none.
pub(super) fn id(value: i128) -> Result<u32, &'static str> {
    u32::try_from(value).ok().filter(|id| *id != u32::MAX).ok_or("a user or group id out of range")
}

/// Seconds, with a fraction perhaps, before 1970 perhaps: `-1.5` is half a second before `-1`.
fn time(value: &[u8]) -> Result<(i64, u32), &'static str> {
    const WRONG: &str = "a PAX time out of range";
    let (negative, value) = value.strip_prefix(b"-").map_or((false, value), |rest| (true, rest));
    let (whole, fraction) = match value.iter().position(|byte| *byte == b'.') {
        Some(dot) => (&value[..dot], &value[dot + 1..]),
        None => (value, &[][..]),
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(WRONG);
    }
    let seconds = i64::try_from(decimal(whole).map_err(|_| WRONG)?).map_err(|_| WRONG)?;
    let digits = fraction.iter().chain(std::iter::repeat(&b'0')).take(9);
    let nanoseconds = digits.fold(0u32, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    Ok(match (negative, nanoseconds) {
        (false, _) => (seconds, nanoseconds),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanoseconds),
    })
}
