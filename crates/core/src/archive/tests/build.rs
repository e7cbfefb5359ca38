//! Archives block by block, so that they can also be wrong.

use flate2::{Compress, Compression, FlushCompress};

/// One header, its fields still raw.
#[derive(Clone)]
pub struct Header(pub [u8; 512]);

impl Header {
    pub fn new(name: &[u8], kind: u8, size: u64) -> Self {
        let mut header = Self([0; 512]);
        let mode = if kind == b'5' { 0o755 } else { 0o644 };
        header.put(0, &name[..name.len().min(100)]);
        header
            .octal(100, 8, mode)
            .octal(108, 8, 0)
            .octal(116, 8, 0)
            .octal(124, 12, size)
            .octal(136, 12, 1_000_000);
        header.put(156, &[kind]);
        header.put(257, b"ustar\x0000");
        header
    }

    pub fn put(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub fn octal(&mut self, at: usize, width: usize, value: u64) -> &mut Self {
        self.put(at, format!("{value:0width$o}\0", width = width - 1).as_bytes())
    }

    /// Base 256: a size over 8 GiB, a negative number.
    pub fn binary(&mut self, at: usize, width: usize, value: i128) -> &mut Self {
        let bytes = value.to_be_bytes();
        self.put(at, &bytes[16 - width..]);
        self.0[at] |= 0x80;
        self
    }

    pub fn gnu(&mut self) -> &mut Self {
        self.put(257, b"ustar  \0")
    }

    pub fn sealed(&self) -> [u8; 512] {
        let mut block = self.0;
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }
}

/// An archive in the making.
#[derive(Clone, Default)]
pub struct Tar(pub Vec<u8>);

impl Tar {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn entry(mut self, header: &Header, data: &[u8]) -> Self {
        self.0.extend_from_slice(&header.sealed());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, name: &str, data: &str) -> Self {
        self.entry(&Header::new(name.as_bytes(), b'0', data.len() as u64), data.as_bytes())
    }

    pub fn directory(self, name: &str) -> Self {
        self.entry(&Header::new(name.as_bytes(), b'5', 0), b"")
    }

    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(Header::new(name.as_bytes(), b'2', 0).put(157, target.as_bytes()), b"")
    }

    pub fn link(self, name: &str, target: &str) -> Self {
        self.entry(Header::new(name.as_bytes(), b'1', 0).put(157, target.as_bytes()), b"")
    }

    pub fn node(self, name: &str, kind: u8, major: u64, minor: u64) -> Self {
        let mut header = Header::new(name.as_bytes(), kind, 0);
        self.entry(header.octal(329, 8, major).octal(337, 8, minor), b"")
    }

    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        self.extension(b'x', &records.iter().flat_map(|(key, value)| record(key, value)).collect::<Vec<u8>>())
    }

    /// An `x`, `g`, `L` or `K` header with this body.
    pub fn extension(self, kind: u8, body: &[u8]) -> Self {
        let mut header = Header::new(b"extension", kind, body.len() as u64);
        if kind.is_ascii_uppercase() {
            header.gnu();
        }
        self.entry(&header, body)
    }

    /// With the end mark.
    pub fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

/// `%d %s=%s\n`
pub fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let digits = (1..).find(|digits| (rest + digits).to_string().len() == *digits).unwrap();
    [format!("{} {key}=", rest + digits).as_bytes(), value, b"\n"].concat()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 1024);
    let mut compress = Compress::new_gzip(Compression::fast(), 15);
    compress.compress_vec(bytes, &mut out, FlushCompress::Finish).unwrap();
    out
}

/// One frame, with its content's size and checksum.
pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd_with(bytes, true)
}

/// One frame, with its content's size.
pub fn zstd_with(bytes: &[u8], checksum: bool) -> Vec<u8> {
    let mut out = vec![0; zstd_safe::compress_bound(bytes.len())];
    let mut packer = zstd_safe::CCtx::create();
    packer.set_parameter(zstd_safe::CParameter::ChecksumFlag(checksum)).unwrap();
    let length = packer.compress2(&mut out[..], bytes).unwrap();
    out.truncate(length);
    out
}
