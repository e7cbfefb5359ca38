//! Two thousand damaged archives beside a bait: no panic, no way out, nothing that cannot be removed, no long wait.
//! The seed is fixed, so what fails once fails always.

use super::build::{Header, Tar, gzip, zstd};
use super::{Scratch, open_directory, options};
use crate::Code;
use crate::archive::{Limits, Options, remove_tree, unpack};
use std::ffi::CString;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::{Duration, Instant};

/// xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % most as u64) as usize
    }

    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }
}

/// Of each kind of entry one, and links to the bait for entries that others are turned into.
fn by_hand() -> Vec<u8> {
    let sparse: [(&str, &[u8]); 4] = [
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"a/sparse"),
        ("GNU.sparse.realsize", b"9000"),
    ];
    let mut map = b"2\n0\n512\n8998\n2\n".to_vec();
    map.resize(1024, b'-');
    map[14..512].fill(0);
    map.extend_from_slice(b"de");
    Tar::new()
        .symlink("out", "../../bait")
        .directory("a/")
        .symlink("a/up", "../out")
        .file("a/f", "content")
        .link("a/hard", "a/f")
        .file("a/.wh.gone", "")
        .directory("a/o/")
        .file("a/o/.wh..wh..opq", "")
        .pax(&[("path", b"a/by-pax"), ("mtime", b"1.5"), ("SCHILY.xattr.user.note", b"x\ny")])
        .file("x", "pax")
        .extension(b'L', &[b"a/", &[b'n'; 150][..], b"\0"].concat())
        .file("x", "long")
        .extension(b'K', &[b"../", &[b't'; 150][..], b"\0"].concat())
        .symlink("a/long-target", "x")
        .pax(&sparse)
        .entry(&Header::new(b"fake", b'0', map.len() as u64), &map)
        .node("a/pipe", b'6', 0, 0)
        .node("a/null", b'3', 1, 3)
        .file("a/b/c/deep", &"deep ".repeat(300))
        .end()
}

/// The same tree as GNU tar packs it.
fn by_tar(scratch: &Scratch) -> Vec<Vec<u8>> {
    let tree = scratch.directory("source");
    fs::create_dir_all(tree.join("a/b").join("long".repeat(30))).unwrap();
    fs::write(tree.join("a/f"), "content").unwrap();
    fs::write(tree.join("a/b").join("long".repeat(30)).join("f".repeat(90)), "long").unwrap();
    fs::hard_link(tree.join("a/f"), tree.join("hard")).unwrap();
    fs::write(tree.join("a/.wh.gone"), "").unwrap();
    symlink("../../bait", tree.join("out")).unwrap();
    let hole = fs::File::create(tree.join("a/sparse")).unwrap();
    hole.set_len(100_000).unwrap();
    let pack = |words: &[&str]| {
        let mut tar = Command::new("tar");
        tar.args(words).args(["--blocking-factor=2", "-cf-", "-C"]).arg(&tree).arg(".");
        tar.output().unwrap().stdout
    };
    vec![
        pack(&["--format=gnu", "--sparse"]),
        pack(&["--format=posix", "--sparse", "--xattrs"]),
        pack(&["--format=v7"]),
    ]
}

const NAMES: [&str; 14] = [
    "out",
    "out/f",
    "out/d/x",
    "out/new",
    "a/up/f",
    "out/.wh.victim",
    "out/.wh..wh..opq",
    "../../bait/f",
    "/bait/f",
    "a",
    "a/f",
    ".",
    "a/hard",
    "",
];
const NUMBERS: [&[u8]; 8] = [
    b"00000000000",
    b"77777777777",
    b"00000000001",
    b"00000001000",
    b"-1",
    b"\x80\0\0\0\0\0\0\0\0\0\x7f\xff",
    b"\xff\xff\xff\xff",
    b"9",
];

/// Changes one field of a header, and makes its checksum right again.
fn edit(block: &mut [u8], random: &mut Random) {
    let mut header = Header(block.try_into().unwrap());
    let text = random.pick(&NAMES);
    let number = random.pick(&NUMBERS);
    match random.below(8) {
        0 | 1 => header.put(0, &[0; 100]).put(0, text.as_bytes()),
        2 => header.put(157, &[0; 100]).put(157, text.as_bytes()),
        3 => header.put(156, &[random.pick(b"0123456S7LKxgDMV\0")]),
        4 => header.put(124, &number[..number.len().min(12)]),
        5 => header.put(345, &[0; 155]).put(345, text.as_bytes()),
        6 => header.put(random.pick(&[100, 108, 116, 329, 337]), &number[..number.len().min(8)]),
        _ => header.put(257, random.pick(&[&b"ustar\x0000"[..], b"ustar  \0", &[0; 8]])),
    };
    block.copy_from_slice(&header.sealed());
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    let blocks = bytes.len() / 512;
    if blocks == 0 {
        return;
    }
    let (one, other) = (random.below(blocks) * 512, random.below(blocks) * 512);
    match random.below(10) {
        0 => {
            let at = random.below(bytes.len());
            bytes[at] ^= 1 << random.below(8);
        }
        1 => bytes.truncate(random.below(bytes.len())),
        2 => (0..512).for_each(|at| bytes.swap(one + at, other + at)),
        3 => bytes.extend_from_within(one..one + 512),
        4 => {
            let block = bytes[one..one + 512].to_vec();
            bytes.splice(other..other, block);
        }
        5 => drop(bytes.drain(one..one + 512)),
        _ => {
            // The next header: damage elsewhere is mostly a file's content.
            let headers = (0..blocks).map(|block| (one + block * 512) % (blocks * 512));
            let header = headers.into_iter().find(|at| &bytes[at + 257..at + 262] == b"ustar");
            edit(&mut bytes[header.unwrap_or(one)..][..512], random);
        }
    }
}

/// What became of the archives.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub unpacked: usize,
    pub refused: usize,
    /// The first that changed the bait.
    pub escaped: Option<usize>,
}

/// Unpacks `count` damaged archives, until one changes the bait.
pub(super) fn run(count: usize) -> Outcome {
    let scratch = Scratch::new();
    let mut seeds = by_tar(&scratch);
    seeds.extend([by_hand(), by_hand()]);
    let store = open_directory(&scratch.path.join("store"));
    let limits = Limits { inflated_bytes: 1 << 20, ..Limits::default() };
    let options = Options { limits, ..options() };
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut outcome = Outcome::default();
    for number in 0..count {
        let mut archive = seeds[random.below(seeds.len())].clone();
        let mut packed = match number % 5 {
            3 => gzip(&archive),
            4 => zstd(&archive),
            _ => Vec::new(),
        };
        for _ in 0..=random.below(4) {
            mutate(if packed.is_empty() { &mut archive } else { &mut packed }, &mut random);
        }
        let blob = match number % 5 {
            0 => archive,
            1 => gzip(&archive),
            2 => zstd(&archive),
            _ => packed,
        };
        let name = format!("m{number}");
        let layer = open_directory(&scratch.directory(&name));
        let start = Instant::now();
        match unpack(&blob[..], &layer, &options) {
            Ok(_) => outcome.unpacked += 1,
            // A panic of another thread would be one too.
            Err(error) if error.code == Code::Internal => panic!("{number}: {error}"),
            Err(_) => outcome.refused += 1,
        }
        remove_tree(&store, &CString::new(name.as_str()).unwrap()).unwrap();
        assert!(start.elapsed() < Duration::from_secs(10), "{number} took {:?}", start.elapsed());
        assert!(!scratch.path.join("store").join(&name).exists(), "{number} left something");
        if !scratch.bait_is_safe() {
            outcome.escaped = Some(number);
            break;
        }
    }
    let mut left: Vec<_> =
        fs::read_dir(scratch.path.join("store")).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["layer", "source"]);
    outcome
}

#[test]
fn two_thousand_damaged_archives() {
    let outcome = run(2000);
    assert_eq!(outcome.escaped, None, "{outcome:?}");
    // Both happen often, or the damage is all of one kind.
    assert!(outcome.unpacked > 200 && outcome.refused > 200, "{outcome:?}");
}
