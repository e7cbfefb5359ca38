//! Odd archives, unpacked by Caisson, by GNU tar and by Python's tarfile: what each makes of them is the table of
//! docs/archives.md, held against what is seen here.

use super::build::{Header, Tar, gzip, record, zstd};
use super::{Scratch, open_directory, options, snapshot};
use crate::archive::unpack;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A tree without what depends on who unpacks: kind, permissions, links, time, target, content.
type Tree = BTreeMap<PathBuf, String>;

fn tree(root: &Path) -> Tree {
    let plain = |line: String| {
        let words: Vec<&str> = line.split(" user.").next().unwrap_or_default().split(' ').collect();
        let kind = &words[0][..words[0].len() - 4];
        // Of a directory the time is of who touched it last; of a link Python sets none.
        match kind {
            "4" => words[0].to_owned(),
            "12" => {
                let time = words.iter().position(|word| *word == "mtime").unwrap_or_default();
                format!("{kind} {}", words[time + 2..].join(" "))
            }
            _ => format!("{} {}", words[0], words[2..].join(" ")),
        }
    };
    let mut lines: Tree = snapshot(root).into_iter().map(|(path, line)| (path, plain(line))).collect();
    lines.remove(Path::new(""));
    lines
}

/// What GNU tar makes of a file; nothing if it fails.
fn by_tar(file: &Path, into: &Path) -> Option<Tree> {
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--same-permissions", "--file"]).arg(file).arg("--directory").arg(into);
    let status = tar.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    status.success().then(|| tree(into))
}

/// Has Python unpack `files/N` into `python/N`, each; whether it could. One process for all, since its start is long.
fn by_python(place: &Path, count: usize) -> Vec<bool> {
    const SCRIPT: &str = "import os, sys, tarfile
trusting = {'filter': 'fully_trusted'} if hasattr(tarfile, 'fully_trusted_filter') else {}
for number in range(int(sys.argv[1])):
    os.makedirs(f'python/{number}')
    try:
        with tarfile.open(f'files/{number}') as archive: archive.extractall(f'python/{number}', **trusting)
        print('read')
    except Exception: print('failed')";
    let mut python = Command::new("/usr/bin/python3");
    python.args(["-c", SCRIPT, &count.to_string()]).current_dir(place);
    let said = python.output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    String::from_utf8(said.stdout).unwrap().lines().map(|line| line == "read").collect()
}

/// What the three make of archives, in the words of the table.
fn verdicts(archives: &[(&str, Vec<u8>)]) -> Vec<[&'static str; 3]> {
    let scratch = Scratch::new();
    let place = scratch.path.join("store");
    let files = scratch.directory("files");
    for (number, (_, archive)) in archives.iter().enumerate() {
        fs::write(files.join(number.to_string()), archive).unwrap();
    }
    let python = by_python(&place, archives.len());
    let one = |(number, (_, archive)): (usize, &(&str, Vec<u8>))| {
        let directory = |name: &str| scratch.directory(&format!("{name}-{number}"));
        let (mine, tars) = (directory("ours"), directory("tar"));
        let ours = unpack(&archive[..], &open_directory(&mine), &options()).ok().map(|_| tree(&mine));
        let other = |theirs: Option<Tree>| match (&ours, theirs) {
            (_, None) => "refuses",
            (Some(ours), Some(theirs)) if *ours == theirs => "the same",
            (Some(_), Some(_)) => "another",
            (None, Some(_)) => "reads",
        };
        let theirs = python[number].then(|| tree(&place.join(format!("python/{number}"))));
        let tars = by_tar(&files.join(number.to_string()), &tars);
        [if ours.is_some() { "reads" } else { "refuses" }, other(tars), other(theirs)]
    };
    archives.iter().enumerate().map(one).collect()
}

/// A header of the oldest form.
fn old(name: &[u8], kind: u8, data: &[u8]) -> Tar {
    Tar::new().entry(Header::new(name, kind, data.len() as u64).put(257, &[0; 8]), data)
}

fn after(first: Tar) -> Tar {
    first.file("last", "last")
}

/// An entry of a kind that needs GNU's magic.
fn gnu(kind: u8, data: &[u8]) -> Tar {
    Tar::new().entry(Header::new(b"f", kind, data.len() as u64).gnu(), data)
}

/// As many bytes as the pieces have in all.
fn data(numbers: &[&str]) -> Vec<u8> {
    vec![b'z'; numbers.chunks(2).map(|pair| pair[1].parse::<usize>().unwrap()).sum()]
}

/// A sparse file in the PAX form 0.0, 0.1 or 1.0: a block, a hole, two bytes.
fn pax_sparse(form: &str, numbers: &[&str]) -> Tar {
    let name: &[u8] = b"sparse";
    let (size, count): (&[u8], &[u8]) = (b"9000", b"2");
    let pieces = || numbers.chunks(2).map(|pair| (pair[0].as_bytes(), pair[1].as_bytes()));
    if form == "1.0" {
        let records =
            [("GNU.sparse.major", &b"1"[..]), ("GNU.sparse.minor", b"0"), ("GNU.sparse.name", name)];
        let mut map = format!("{}\n{}\n", numbers.len() / 2, numbers.join("\n")).into_bytes();
        map.resize(512, 0);
        map.extend_from_slice(&data(numbers));
        return Tar::new()
            .pax(&[&records[..], &[("GNU.sparse.realsize", size)]].concat())
            .entry(&Header::new(b"GNUSparseFile.0/sparse", b'0', map.len() as u64), &map);
    }
    let mut body = [record("GNU.sparse.size", size), record("GNU.sparse.numblocks", count)].concat();
    if form == "0.0" {
        for (offset, length) in pieces() {
            body.extend(record("GNU.sparse.offset", offset));
            body.extend(record("GNU.sparse.numbytes", length));
        }
    } else {
        body.extend(record("GNU.sparse.map", numbers.join(",").as_bytes()));
    }
    Tar::new()
        .extension(b'x', &body)
        .entry(&Header::new(name, b'0', data(numbers).len() as u64), &data(numbers))
}

/// A sparse file of GNU's old form.
fn old_sparse(pieces: &[(u64, u64)]) -> Tar {
    let length = pieces.iter().map(|(_, length)| *length).sum();
    let mut header = Header::new(b"sparse", b'S', length);
    header.gnu().octal(483, 12, 9000);
    for (at, (offset, length)) in pieces.iter().enumerate() {
        header.octal(386 + at * 24, 12, *offset).octal(398 + at * 24, 12, *length);
    }
    Tar::new().entry(&header, &vec![b'z'; length as usize])
}

/// A file whose size is written like this.
fn sized(field: &[u8]) -> Tar {
    Tar::new().entry(Header::new(b"f", b'0', 0).put(124, field), b"abcde")
}

/// The archive whose header at `at` is no header.
fn damaged(archive: Tar, at: usize) -> Tar {
    let mut bytes = archive.0;
    bytes[at] ^= 1;
    Tar(bytes)
}

fn skippable(body: &[u8]) -> Vec<u8> {
    [&[0x50, 0x2a, 0x4d, 0x18][..], &(body.len() as u32).to_le_bytes(), body].concat()
}

/// gzip with every field that its header may have (RFC 1952, 2.3).
fn gzip_with_fields(bytes: &[u8]) -> Vec<u8> {
    let plain = gzip(bytes);
    let mut head = plain[..10].to_vec();
    // FEXTRA, FNAME, FCOMMENT; a sum of the header is known to few.
    head[3] = 0b1_1100;
    [&head[..], &[4, 0], b"CA\0\0", b"name\0", b"comment\0", &plain[10..]].concat()
}

fn plain() -> Tar {
    Tar::new().directory("d/").file("d/f", "content").symlink("l", "d/f").link("h", "d/f")
}

fn packed(blob: &[u8], program: &str) -> Vec<u8> {
    let mut child =
        Command::new(program).arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(blob).unwrap();
    child.wait_with_output().unwrap().stdout
}

/// Headers and numbers.
fn headers() -> Vec<(&'static str, Tar)> {
    let base256 = |value: i128| {
        let mut header = Header::new(b"f", b'0', 0);
        header.gnu().binary(124, 12, value);
        Tar::new().entry(&header, b"abcde")
    };
    let time = |value: i128| Tar::new().entry(Header::new(b"f", b'0', 1).gnu().binary(136, 12, value), b"x");
    let signed = || {
        let mut block = Header::new("\u{e9}t\u{e9}".as_bytes(), b'0', 1).sealed();
        let sum: i32 =
            (0..512).map(|at| if (148..156).contains(&at) { 32 } else { i32::from(block[at] as i8) }).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let mut bytes = block.to_vec();
        bytes.push(b'x');
        bytes.resize(1024, 0);
        Tar(bytes)
    };
    vec![
        ("ustar: a directory, a file, both kinds of links", plain()),
        (
            "the form before ustar",
            Tar([old(b"f", 0, b"abc").0, old(b"d/", 0, b"").0, old(b"g", b'0', b"").0].concat()),
        ),
        ("a name in two parts", Tar::new().entry(Header::new(b"name", b'0', 3).put(345, b"a/b"), b"abc")),
        ("a name that fills its field", Tar::new().entry(&Header::new(&[b'n'; 100], b'0', 3), b"abc")),
        ("`./` before names", Tar::new().directory("./").directory("./d/").file("./d/f", "x")),
        ("a name twice: the last counts", Tar::new().file("f", "first").file("f", "second")),
        ("a file of type 7, contiguous", Tar::new().entry(&Header::new(b"f", b'7', 3), b"abc")),
        ("a size in base 256", base256(5)),
        ("a negative size in base 256", base256(-5)),
        ("a size beyond 2⁶³ in base 256", base256(1 << 64)),
        ("a time before 1970 in base 256", time(-100)),
        ("a size with blanks around it", sized(b"         5 \0")),
        ("a size without an end", sized(b"000000000005")),
        ("a size with letters behind it", sized(b"00000005xyz\0")),
        ("a size of nothing", Tar::new().entry(Header::new(b"f", b'0', 0).put(124, &[0; 12]), b"")),
        ("a checksum of signed bytes", signed()),
        ("a wrong checksum, the first header’s", damaged(after(plain()), 100)),
        ("a wrong checksum, another header’s", damaged(after(Tar::new().file("f", "x")), 1024 + 100)),
        ("a file whose name ends in a slash", after(Tar::new().entry(&Header::new(b"f/", b'0', 0), b""))),
        ("an unknown type", after(Tar::new().entry(&Header::new(b"f", b'Z', 3), b"abc"))),
        (
            "a symbolic link with a size",
            after(Tar::new().entry(Header::new(b"l", b'2', 3).put(157, b"x"), b"")),
        ),
        (
            "a directory with a size, and no data",
            after(Tar::new().entry(&Header::new(b"d/", b'5', 512), b"")),
        ),
        ("a hard link to nothing", after(Tar::new().link("h", "nothing"))),
        ("a star archive", after(Tar::new().entry(Header::new(b"f", b'0', 3).put(508, b"tar\0"), b"abc"))),
    ]
}

/// PAX, GNU's extensions, sparse files.
fn extensions() -> Vec<(&'static str, Tar)> {
    let inner = Tar::new().file("smuggled", "evil").end();
    let size = inner.len().to_string();
    let pax = |records: &[(&str, &[u8])]| after(Tar::new().pax(records).file("f", "x"));
    let global = |records: &[u8]| after(Tar::new().extension(b'g', records).file("f", "x"));
    vec![
        ("PAX: names, a time with a fraction", pax(&[("path", b"p"), ("mtime", b"1234567890.5")])),
        ("PAX: a target", after(Tar::new().pax(&[("linkpath", b"r")]).symlink("l", "x"))),
        (
            "PAX: a size beside the header’s 0: an archive in the archive",
            after(Tar::new().pax(&[("size", size.as_bytes())]).entry(&Header::new(b"f", b'0', 0), &inner)),
        ),
        ("PAX: a time before 1970", pax(&[("mtime", b"-1.5")])),
        ("PAX: a record of a vendor’s", pax(&[("VENDOR.word", b"x")])),
        ("PAX: an unknown record", pax(&[("word", b"x")])),
        ("PAX: a record twice", pax(&[("path", b"one"), ("path", b"two")])),
        ("PAX: a record of a wrong length", after(Tar::new().extension(b'x', b"99 path=p\n").file("f", "x"))),
        ("PAX: an empty name", pax(&[("path", b"")])),
        ("PAX: a negative size", pax(&[("size", b"-1")])),
        ("PAX: a size with letters", pax(&[("size", b"1x")])),
        (
            "PAX: names in another character set",
            pax(&[("hdrcharset", b"ISO-IR 8859 1 1998"), ("path", b"p")]),
        ),
        (
            "PAX: two headers for one entry",
            after(Tar::new().pax(&[("path", b"one")]).pax(&[("path", b"two")]).file("f", "x")),
        ),
        ("PAX: a header and nothing behind it", Tar::new().file("f", "x").pax(&[("path", b"p")])),
        ("PAX, global: a comment", global(&record("comment", b"by git"))),
        ("PAX, global: a time", global(&record("mtime", b"5"))),
        ("PAX, global: a name", global(&record("path", b"p"))),
        (
            "GNU: a long name and a long target",
            after(
                Tar::new()
                    .extension(b'L', b"long name\0")
                    .extension(b'K', b"long target\0")
                    .symlink("l", "x"),
            ),
        ),
        ("GNU: a long name without its NUL", after(Tar::new().extension(b'L', b"long name").file("f", "x"))),
        (
            "GNU: two long names for one entry",
            after(Tar::new().extension(b'L', b"one\0").extension(b'L', b"two\0").file("f", "x")),
        ),
        (
            "a GNU long name and a PAX name for one entry",
            after(Tar::new().extension(b'L', b"gnu\0").pax(&[("path", b"pax")]).file("f", "x")),
        ),
        ("GNU: a volume’s label", after(gnu(b'V', b""))),
        ("GNU: a part of a file of another volume", after(gnu(b'M', b"abc"))),
        ("GNU: a directory with a list of its files", after(gnu(b'D', b"Yf\0\0"))),
        ("sparse, the old form", after(old_sparse(&[(0, 512), (8998, 2)]))),
        ("sparse, the old form: pieces that overlap", after(old_sparse(&[(0, 512), (1, 2)]))),
        ("sparse, the old form: pieces beyond its end", after(old_sparse(&[(0, 512), (9000, 2)]))),
        ("sparse, the old form: a piece that ends within a block", after(old_sparse(&[(0, 3), (8998, 2)]))),
        (
            "sparse, PAX 1.0: a piece that ends within a block",
            after(pax_sparse("1.0", &["0", "3", "8998", "2"])),
        ),
        (
            "sparse, the old form: a hole at the end that no piece says",
            after(old_sparse(&[(0, 512), (8000, 2)])),
        ),
        (
            "sparse, PAX 1.0: a hole at the end that no piece says",
            after(pax_sparse("1.0", &["0", "512", "8000", "2"])),
        ),
        ("sparse, PAX 0.0", after(pax_sparse("0.0", &["0", "512", "8998", "2"]))),
        ("sparse, PAX 0.1", after(pax_sparse("0.1", &["0", "512", "8998", "2"]))),
        ("sparse, PAX 1.0", after(pax_sparse("1.0", &["0", "512", "8998", "2"]))),
        ("sparse, PAX 1.0: pieces that overlap", after(pax_sparse("1.0", &["0", "512", "1", "2"]))),
        ("sparse, PAX 1.0: pieces out of order", after(pax_sparse("1.0", &["8488", "512", "0", "2"]))),
    ]
}

/// Ends, and what is around an archive.
fn streams() -> Vec<(&'static str, Vec<u8>)> {
    let whole = plain().file("noise", &"0123456789".repeat(500)).end();
    let open = &whole[..whole.len() - 1024];
    let with = |more: &[u8]| [&whole, more].concat();
    let gz = gzip(&whole);
    let zst = packed(&whole, "zstd");
    let mut wrong_sum = gz.clone();
    let at = wrong_sum.len() - 8;
    wrong_sum[at] ^= 1;
    let mut wrong_zstd = zst.clone();
    let at = wrong_zstd.len() - 1;
    wrong_zstd[at] ^= 1;
    vec![
        ("no end mark", open.to_vec()),
        ("one block of zeros as the end mark", [open, &[0; 512]].concat()),
        ("a lone block of zeros between two entries", [open, &[0; 512], &after(Tar::new()).end()].concat()),
        ("an archive behind the end mark", with(&after(Tar::new()).end())),
        ("junk behind the end mark", with(&[7; 1000])),
        ("cut in a file", open[..open.len() - 1000].to_vec()),
        ("cut in a header", open[..600].to_vec()),
        ("nothing", Vec::new()),
        ("text", b"#!/bin/sh\n".repeat(200)),
        ("gzip", gz.clone()),
        ("gzip with all fields of its header", gzip_with_fields(&whole)),
        ("gzip in several members", [gzip(&whole[..700]), gzip(b""), gzip(&whole[700..])].concat()),
        ("gzip, zeros behind it", [&gz[..], &[0; 512]].concat()),
        ("gzip, junk behind it", [&gz[..], b"junk"].concat()),
        ("gzip, cut", gz[..gz.len() - 20].to_vec()),
        ("gzip, cut in its sum", gz[..gz.len() - 4].to_vec()),
        ("gzip, a wrong sum", wrong_sum),
        ("zstd", zst.clone()),
        ("zstd in several frames", [zstd(&whole[..700]), zstd(b""), zstd(&whole[700..])].concat()),
        (
            "zstd, skippable frames before and behind",
            [skippable(b"x"), zst.clone(), skippable(&[0; 300])].concat(),
        ),
        ("zstd, junk behind it", [&zst[..], b"junk"].concat()),
        ("zstd, cut", zst[..zst.len() - 20].to_vec()),
        ("zstd, a wrong sum", wrong_zstd),
        ("xz", packed(&whole, "xz")),
        ("bzip2", packed(&whole, "bzip2")),
    ]
}

/// The rows of a table of three verdicts and a reason, by what they are about.
fn table() -> BTreeMap<String, [String; 4]> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/archives.md");
    let text = fs::read_to_string(path).unwrap();
    let cells = |line: &str| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
    let rows = text.lines().filter(|line| line.starts_with("| ")).map(cells);
    rows.filter_map(|row: Vec<String>| Some((row.first()?.clone(), row.get(1..5)?.to_vec().try_into().ok()?)))
        .collect()
}

#[test]
fn what_others_make_of_odd_archives_is_what_the_documentation_says() {
    let mut archives: Vec<(&str, Vec<u8>)> = Vec::new();
    archives.extend(headers().into_iter().chain(extensions()).map(|(what, tar)| (what, tar.end())));
    archives.extend(streams());
    let said = table();
    let mut wrong = String::new();
    for ((what, _), seen) in archives.iter().zip(verdicts(&archives)) {
        let row = said.get(*what).map(|row| [0, 1, 2].map(|at| row[at].as_str()));
        if row != Some(seen) {
            wrong += &format!("| {what} | {} |  |\n", seen.join(" | "));
        }
        // Whoever reads it otherwise than we do, there is a reason.
        let differs = seen[0] == "refuses" && seen[1..].contains(&"reads")
            || seen.contains(&"another")
            || seen[0] == "reads" && seen[1..].contains(&"refuses");
        assert!(!differs || said.get(*what).is_none_or(|row| row[3].len() > 5), "{what} has no reason");
    }
    assert!(wrong.is_empty(), "docs/archives.md says otherwise of these:\n{wrong}");
    for what in said.keys().filter(|what| !matches!(what.as_str(), "archive" | "---")) {
        assert!(
            archives.iter().any(|(name, _)| name == what),
            "docs/archives.md has a row that is not seen: {what}"
        );
    }
}
