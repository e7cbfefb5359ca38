//! The same archive read by others: GNU tar's tree and listing, Python's listing.

use super::build::{Header, Tar, record};
use super::{Scratch, is_root, snapshot};
use crate::Result;
use crate::archive::stream::Stream;
use crate::archive::tar::{Kind, Reader};
use crate::archive::{Limits, show};
use caisson_sys::file::{open, openat2};
use caisson_sys::{Cwd, xattr};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use std::ffi::CString;
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

/// A tree with one of everything.
pub(super) fn plant(root: &Path, long: bool) {
    fs::create_dir_all(root.join("a/b/c")).unwrap();
    for (name, mode) in [
        ("a/f", 0o644),
        ("a/b/empty", 0o600),
        ("a/b/c/suid", 0o4755),
        ("a/none", if is_root() { 0 } else { 0o400 }),
    ] {
        fs::write(root.join(name), if name.ends_with("empty") { "" } else { name }).unwrap();
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::write(root.join("big"), vec![b'z'; 700_001]).unwrap();
    fs::hard_link(root.join("a/f"), root.join("a/b/hard")).unwrap();
    symlink("../f", root.join("a/b/link")).unwrap();
    symlink("/nowhere", root.join("dangling")).unwrap();
    fs::hard_link(root.join("dangling"), root.join("a/dangling-too")).unwrap();
    mknod(&root.join("pipe"), SFlag::S_IFIFO, Mode::from_bits_truncate(0o620), 0).unwrap();
    if is_root() {
        mknod(&root.join("null"), SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, 3)).unwrap();
        mknod(&root.join("disk"), SFlag::S_IFBLK, Mode::from_bits_truncate(0o660), makedev(8, 17)).unwrap();
        chown(root.join("a/b"), Some(1000), Some(2000)).unwrap();
        chown(root.join("big"), Some(70_000), Some(if long { 3_000_000 } else { 2_000_000 })).unwrap();
        std::os::unix::fs::lchown(root.join("a/b/link"), Some(11), Some(12)).unwrap();
    }
    let file =
        openat2(Cwd, &CString::new(root.join("big").as_os_str().as_bytes()).unwrap(), open::RDONLY, 0, 0);
    xattr::set(file.unwrap(), c"user.note", b"with\nnewline").unwrap();
    if long {
        let deep = root
            .join(["d".repeat(120), "e".repeat(200), "f".repeat(90)].iter().collect::<std::path::PathBuf>());
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("g".repeat(255)), "long").unwrap();
        symlink("t".repeat(300), deep.join("long-target")).unwrap();
        fs::hard_link(deep.join("g".repeat(255)), deep.join("h".repeat(150))).unwrap();
    } else {
        // As long as ustar's prefix can carry.
        let deep = root.join("p".repeat(95)).join("q".repeat(50));
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("r".repeat(98)), "prefix").unwrap();
    }
    fs::set_permissions(root.join("a/b/c"), fs::Permissions::from_mode(0o2755)).unwrap();
    fs::set_permissions(root.join("a/b"), fs::Permissions::from_mode(0o1555)).unwrap();
}

#[test]
fn trees_equal_those_of_gnu_tar() {
    for (format, more) in [
        ("ustar", &[][..]),
        ("gnu", &[]),
        ("pax", &["--xattrs", "--xattrs-include=*"]),
        ("pax", &["--sparse"]),
        ("gnu", &["--blocking-factor=1"]),
        ("gnu", &["--sparse"]),
        ("gnu", &["--sparse", "--zstd"]),
        ("pax", &["--gzip"]),
        ("v7", &[]),
        ("GNU", &["python"]),
        ("PAX", &["python"]),
    ] {
        let scratch = Scratch::new();
        let (source, theirs) = (scratch.directory("source"), scratch.directory("theirs"));
        let v7 = format == "v7";
        plant(&source, !matches!(format, "ustar" | "v7"));
        if more.contains(&"--sparse") {
            let mut file = fs::File::create(source.join("sparse")).unwrap();
            file.set_len(5_000_000).unwrap();
            file.seek(SeekFrom::Start(3_000_000)).unwrap();
            file.write_all(b"in the middle").unwrap();
            // More pieces than a header of the old form holds, and than a block behind it does; a hole at the end.
            let mut file = fs::File::create(source.join("full of holes")).unwrap();
            for piece in 0..40 {
                file.seek(SeekFrom::Start(piece * 65_536 + 8192)).unwrap();
                file.write_all(&[b'a' + (piece % 26) as u8; 5000]).unwrap();
            }
            file.set_len(40 * 65_536 + 1).unwrap();
            fs::File::create(source.join("one hole")).unwrap().set_len(70_000).unwrap();
        }
        if !matches!(format, "ustar" | "v7") {
            // Before 1970, which a GNU header says in base 256.
            let old = fs::File::options().write(true).open(source.join("a/f")).unwrap();
            old.set_modified(std::time::UNIX_EPOCH - std::time::Duration::from_secs(100)).unwrap();
        }
        let file = scratch.path.join("archive.tar");
        let made = if more == ["python"] {
            const SCRIPT: &str = "import sys, tarfile\nwith tarfile.open(sys.argv[1], 'w', format=getattr(tarfile, sys.argv[3] + '_FORMAT')) as t: t.add(sys.argv[2], '.')";
            Command::new("python3").args(["-c", SCRIPT]).args([&file, &source]).arg(format).status()
        } else {
            let mut tar = Command::new("tar");
            tar.arg("--create").arg(format!("--format={format}")).args(more);
            if v7 {
                tar.args(["--exclude=pipe", "--exclude=null", "--exclude=disk", "--exclude=ppp*"]);
            }
            tar.arg("--file").arg(&file).arg("-C").arg(&source).arg(".").status()
        };
        assert!(made.unwrap().success(), "{format} {more:?}");
        let xattrs = ["--xattrs", "--xattrs-include=*"];
        let mut tar = Command::new("tar");
        tar.args(["--extract", "--same-permissions"]).args(xattrs).arg("--file").arg(&file);
        assert!(tar.arg("-C").arg(&theirs).status().unwrap().success(), "{format}");
        scratch.unpack(&fs::read(&file).unwrap()).unwrap();
        let (ours, theirs) = (snapshot(&scratch.layer()), snapshot(&theirs));
        assert!(ours.len() > 11, "{format} {more:?}: {ours:?}");
        for (name, line) in &theirs {
            // A user's files have beside them whose they were.
            let mut ours = ours.get(name).cloned().unwrap_or_default();
            if let Some(start) = ours.find(" user.caisson.owner=") {
                let end = ours[start..].find("])").unwrap() + start + 2;
                ours.replace_range(start..end, "");
            }
            assert_eq!(ours, *line, "{format} {more:?}: {}", name.display());
        }
        assert_eq!(ours.len(), theirs.len(), "{format} {more:?}");
        if more.contains(&"--sparse") {
            let blocks = |name: &str| fs::metadata(scratch.layer().join(name)).unwrap().blocks();
            assert!(
                blocks("sparse") < 100 && blocks("full of holes") < 1500 && blocks("one hole") == 0,
                "{format}"
            );
        }
    }
}

/// A stream that comes in small pieces, so that every header lies across two.
struct Small<'a>(&'a [u8]);

impl Stream for Small<'_> {
    fn fill(&mut self) -> Result<&[u8]> {
        Ok(&self.0[..self.0.len().min(100)])
    }

    fn consume(&mut self, length: usize) {
        self.0 = &self.0[length..];
    }
}

fn listing(archive: &[u8]) -> Result<Vec<String>> {
    let mut reader = Reader::new(Small(archive), Limits::default(), false);
    let mut lines = Vec::new();
    while let Some(entry) = reader.next()? {
        let kind = match entry.kind {
            Kind::File => "file",
            Kind::Directory => "directory",
            Kind::Symlink => "symlink",
            Kind::Link => "link",
            Kind::Fifo => "fifo",
            Kind::Char | Kind::Block => "device",
        };
        let name = show(&entry.name);
        let name = name.trim_end_matches('/');
        lines.push(format!("{name} {kind} {} {} {}", entry.size, show(&entry.target), entry.uid));
    }
    Ok(lines)
}

/// Odd archives: what ours lists, Python's and GNU tar's list too. What ours refuses is no difference.
#[test]
fn listings_equal_those_of_python() {
    const SCRIPT: &str = r#"
import sys, tarfile
kinds = {b"0": "file", b"\0": "file", b"7": "file", b"5": "directory", b"2": "symlink", b"1": "link", b"6": "fifo"}
for m in tarfile.open(fileobj=sys.stdin.buffer, mode="r|"):
    print(m.name.rstrip("/"), kinds.get(m.type, "directory" if m.isdir() else "device"), m.size, m.linkname, m.uid)
"#;
    if Command::new("python3").arg("-V").output().is_err() {
        return;
    }
    let inner = Tar::new().file("smuggled", "evil").end();
    let size = inner.len().to_string();
    let v7 = |name: &[u8], kind: u8, data: &[u8]| {
        let mut header = Header::new(name, kind, data.len() as u64);
        header.put(257, &[0; 8]);
        Tar::new().entry(&header, data)
    };
    let archives = [
        (
            "nested",
            Tar::new()
                .pax(&[("size", size.as_bytes())])
                .entry(&Header::new(b"f", b'0', 0), &inner)
                .file("g", ""),
        ),
        (
            "binary size",
            Tar::new().entry(Header::new(b"f", b'0', 0).binary(124, 12, 5), b"abcde").file("g", ""),
        ),
        (
            "blanks",
            Tar::new().entry(Header::new(b"f", b'0', 0).put(124, b"         5 \0"), b"abcde").file("g", ""),
        ),
        (
            "no NUL",
            Tar::new().entry(Header::new(b"f", b'0', 0).put(124, b"000000000005"), b"abcde").file("g", ""),
        ),
        ("v7", Tar([v7(b"f", 0, b"abc").0, v7(b"d/", 0, b"").0, v7(b"g", b'0', b"").0].concat())),
        ("contiguous", Tar::new().entry(&Header::new(b"f", b'7', 3), b"abc").file("g", "")),
        ("prefix", Tar::new().entry(Header::new(b"name", b'0', 3).put(345, b"a/b"), b"abc")),
        ("full name", Tar::new().entry(&Header::new(&[b'n'; 100], b'0', 3), b"abc")),
        (
            "long",
            Tar::new()
                .extension(b'L', b"long/name\0")
                .extension(b'K', b"long/target\0")
                .symlink("f", "x")
                .file("g", ""),
        ),
        (
            "pax",
            Tar::new()
                .pax(&[("path", b"p/q"), ("linkpath", b"r"), ("uid", b"77")])
                .symlink("f", "x")
                .file("g", ""),
        ),
        ("comment", Tar::new().extension(b'g', &record("comment", b"by git")).file("g", "")),
    ];
    for (what, archive) in archives {
        let archive = archive.end();
        let mut python = Command::new("python3")
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        python.stdin.take().unwrap().write_all(&archive).unwrap();
        let output = python.wait_with_output().unwrap();
        assert!(output.status.success(), "{what}");
        let theirs = String::from_utf8(output.stdout).unwrap();
        assert_eq!(listing(&archive).unwrap(), theirs.lines().collect::<Vec<_>>(), "{what}");
        let mut tar =
            Command::new("tar").arg("-tf-").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        tar.stdin.take().unwrap().write_all(&archive).unwrap();
        let names = String::from_utf8(tar.wait_with_output().unwrap().stdout).unwrap();
        let ours: Vec<String> = listing(&archive).unwrap();
        let ours: Vec<&str> = ours.iter().filter_map(|line| line.split(' ').next()).collect();
        let names: Vec<&str> = names.lines().map(|line| line.trim_end_matches('/')).collect();
        assert_eq!(ours, names, "{what}");
    }
}
