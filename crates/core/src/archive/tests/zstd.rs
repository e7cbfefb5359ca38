//! zstd blobs: frames, skippable frames, windows, truncation, and the hostile ones (security.md row D7).

use super::build::{Header, Tar, zstd, zstd_with};
use super::{Scratch, open_directory, options, refused};
use crate::Code;
use crate::archive::{Limits, Options, unpack};
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

fn skippable(nibble: u8, body: &[u8]) -> Vec<u8> {
    [&[0x50 | nibble, 0x2a, 0x4d, 0x18][..], &(body.len() as u32).to_le_bytes(), body].concat()
}

/// A frame of one stored block, with the window descriptor that is given (RFC 8878, 3.1.1).
fn stored(window: u8, data: &[u8]) -> Vec<u8> {
    let block = (data.len() as u32) << 3 | 1;
    [&[0x28, 0xb5, 0x2f, 0xfd, 0, window][..], &block.to_le_bytes()[..3], data].concat()
}

fn archive() -> Vec<u8> {
    Tar::new().file("f", "x").file("g", &"yz".repeat(400)).end()
}

#[test]
fn frames_one_after_another_are_one_stream() {
    let archive = archive();
    let diff_id = super::sha256(&archive);
    let parts = [&archive[..300], b"", &archive[300..700], &archive[700..]].map(zstd);
    let mut chunked = skippable(0, b"");
    for part in &parts {
        chunked.extend_from_slice(part);
        chunked.extend(skippable(15, &[7; 5000]));
        chunked.extend(skippable(3, b""));
    }
    for (what, blob) in [
        ("one frame", zstd(&archive)),
        ("frames", parts.concat()),
        ("skippable frames", chunked),
        ("stored", stored(0x88, &archive)),
    ] {
        let scratch = Scratch::new();
        let report = scratch.unpack(&blob).unwrap();
        assert_eq!((report.diff_id, report.bytes), (diff_id, archive.len() as u64), "{what}");
        assert_eq!(
            (report.blob_digest, report.blob_bytes),
            (super::sha256(&blob), blob.len() as u64),
            "{what}"
        );
        assert_eq!((scratch.read("f"), scratch.names().len()), ("x".to_owned(), 2), "{what}");
    }
}

/// Blocks of 128 KiB and pieces of twice that, ending together and just not together, with a checksum and without.
#[test]
fn ends_at_every_size_around_a_block() {
    for size in [128 << 10, 256 << 10, 384 << 10, 512 << 10] {
        for more in [-1024i64, -512, 0, 512, 1024] {
            let length = (size + more - 1536) as usize;
            let mut seed = 1u32;
            let noise = |_| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (seed >> 26) as u8 + b' '
            };
            let data: Vec<u8> = (0..length).map(noise).collect();
            let archive = Tar::new().entry(&Header::new(b"f", b'0', length as u64), &data).end();
            let blob = zstd_with(&archive, more > 0);
            let report = Scratch::new().unpack(&blob).unwrap();
            assert_eq!(report.diff_id, super::sha256(&archive), "{size} {more}");
        }
    }
}

#[test]
fn windows_are_bounded() {
    let too_large = |blob: &[u8], limits: Limits| {
        let error = Scratch::new().unpack_with(blob, &Options { limits, ..options() }).expect_err("window");
        assert_eq!((error.code, error.subject.as_str()), (Code::ImageLimit, "zstd_window_log"), "{error}");
    };
    // 2^27 is the most; the next larger that can be said is an eighth more.
    for window in [0x89, 0x90, 0xa0, 0xff] {
        too_large(&stored(window, &archive()), Limits::default());
    }
    too_large(&stored(0x50, &archive()), Limits { zstd_window_log: 19, ..Limits::default() });
    // A single segment of a TiB: the content is the window.
    let single = [&[0x28, 0xb5, 0x2f, 0xfd, 0xe0][..], &(1u64 << 40).to_le_bytes(), &[1, 0, 0]].concat();
    too_large(&single, Limits::default());
    let second = [zstd(&archive()), stored(0x90, b"x")].concat();
    too_large(&second, Limits::default());
}

/// Cut anywhere, a blob is refused, and never as something that it is not.
#[test]
fn d7_truncated_at_every_byte() {
    let archive = archive();
    let blob =
        [skippable(1, b"front"), zstd(&archive[..512]), skippable(2, b"between"), zstd(&archive[512..])]
            .concat();
    let scratch = Scratch::new();
    for end in 0..blob.len() {
        let layer = open_directory(&scratch.directory(&format!("cut{end}")));
        let error = unpack(&blob[..end], &layer, &options()).expect_err("truncated");
        assert_eq!(error.code, Code::Archive, "{end}: {error}");
        let known = ["too early", "the archive is truncated", "the blob is empty"];
        // Less than a magic is no zstd yet, but no archive either.
        assert!(known.iter().any(|words| error.message.contains(words)), "{end}: {error}");
    }
    unpack(&blob[..], &open_directory(&scratch.layer()), &options()).unwrap();
}

#[test]
fn d7_hostile_streams_are_refused() {
    let packed = zstd(&archive());
    let mut flipped = packed.clone();
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    let mut reserved = stored(0x50, &archive());
    reserved[4] |= 8;
    let dictionary = [&[0x28, 0xb5, 0x2f, 0xfd, 1, 0x50, 9][..], &[1, 0, 0]].concat();
    for (what, blob) in [
        ("damaged", flipped),
        ("damaged", reserved),
        ("dictionary", dictionary),
        ("behind", [&packed[..], b"tail"].concat()),
        ("behind", [&packed[..], &[0; 512]].concat()),
        ("behind", [&packed[..], b"x"].concat()),
        ("behind", [&packed[..], &super::build::gzip(b"")].concat()),
        ("behind", [skippable(0, b"only"), archive()].concat()),
        ("too early", [&packed[..], &[0x28]].concat()),
        ("too early", [&[0x50, 0x2a, 0x4d, 0x18][..], &[0xff; 4], b"long"].concat()),
        ("archive is truncated", skippable(0, b"only")),
    ] {
        refused(&Scratch::new(), &blob, Code::Archive, what);
    }
}

/// zstd packs zeros ten times as well as gzip can: 80 MiB of them meet the default ratio.
#[test]
fn d7_a_bomb_by_ratio() {
    let mut archive = Header::new(b"zeros", b'0', 80 << 20).sealed().to_vec();
    archive.resize((80 << 20) + 512 + 1024, 0);
    let scratch = Scratch::new();
    let error = scratch.unpack(&zstd(&archive)).expect_err("bomb");
    assert_eq!((error.code, error.subject.as_str()), (Code::ImageLimit, "ratio"));
    let written = fs::metadata(scratch.layer().join("zeros")).unwrap().len();
    assert!(written < 68 << 20, "{written}");
}

/// Blobs of the program itself: its best level with its largest window, many threads, no content size.
#[test]
fn blobs_of_the_zstd_program() {
    if Command::new("zstd").arg("--version").output().is_err() {
        return;
    }
    let archive = archive();
    for options in [&["-19", "--long=27"][..], &["--ultra", "-22"], &["-T2", "-1", "--no-check"]] {
        let mut program =
            Command::new("zstd").args(options).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        program.stdin.take().unwrap().write_all(&archive).unwrap();
        let blob = program.wait_with_output().unwrap().stdout;
        assert_eq!(Scratch::new().unpack(&blob).unwrap().diff_id, super::sha256(&archive), "{options:?}");
    }
}
