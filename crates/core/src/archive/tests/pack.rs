//! Trees to archives: what comes out is read by our own reader, by GNU tar and by Python, and is the same tree.

use super::differential::plant;
use super::{Scratch, is_root, open_directory, options, snapshot};
use crate::archive::{Form, Limits, Owner, Packing, pack, pack_layer, unpack};
use crate::{Code, Result};
use caisson_sys::file::{open, openat2};
use caisson_sys::{Cwd, Descriptor, xattr};
use nix::fcntl::{RenameFlags, renameat2};
use nix::sys::stat::{Mode, SFlag, mknod};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString, OsStr};
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn packing(form: Form) -> Packing {
    Packing { form, userxattr: !is_root(), owner: options().owner, limits: Limits::default() }
}

pub(super) fn packed(tree: &Path, form: Form) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    pack(&open_directory(tree), &mut bytes, &packing(form)).map(|()| bytes)
}

fn set(path: &Path, name: &CStr, value: &[u8]) {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    xattr::set(openat2(Cwd, &path, open::RDONLY, 0, 0).unwrap(), name, value).unwrap();
}

/// A tree with one of everything, and what only one reader in a hundred gets right.
fn plant_all(root: &Path) {
    plant(root, true);
    fs::write(root.join(OsStr::from_bytes(b"no \xff text")), "x").unwrap();
    fs::write(root.join(OsStr::from_bytes(&[0xfe; 200])), "y").unwrap();
    fs::write(root.join("whole-block"), [1; 512]).unwrap();
    symlink("z".repeat(101), root.join("a-byte-more")).unwrap();
    let mut file = fs::File::create(root.join("sparse")).unwrap();
    file.set_len(5_000_000_000).unwrap();
    for at in [0, 3_000_000_000, 4_999_999_990] {
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(b"here").unwrap();
    }
    fs::File::create(root.join("one hole")).unwrap().set_len(700_000).unwrap();
    set(&root.join("whole-block"), c"user.binary", b"\0\x01\n=\xff");
    set(&root.join("a"), c"user.of a directory", b"");
    let old = fs::File::options().write(true).open(root.join("whole-block")).unwrap();
    old.set_modified(std::time::UNIX_EPOCH - Duration::new(100, 250_000_001)).unwrap();
    let late = fs::File::open(root.join("a/b/c")).unwrap();
    late.set_modified(std::time::UNIX_EPOCH + Duration::new(5_000_000_000, 7)).unwrap();
}

/// What a user's files have beside them of whose they were.
fn bare(tree: BTreeMap<PathBuf, String>) -> BTreeMap<PathBuf, String> {
    let without = |mut line: String| {
        if let Some(start) = line.find(" user.caisson.owner=") {
            let end = line[start..].find("])").unwrap() + start + 2;
            line.replace_range(start..end, "");
        }
        line
    };
    tree.into_iter().map(|(name, line)| (name, without(line))).collect()
}

#[test]
fn trees_come_back_as_they_were() {
    for form in [Form::Layer, Form::Whole] {
        let scratch = Scratch::new();
        let source = scratch.directory("source");
        plant_all(&source);
        let archive = packed(&source, form).unwrap();
        // Five gigabytes of nothing are no bytes of the archive.
        assert!(archive.len() < 3_000_000, "{}", archive.len());
        let report = scratch.unpack(&archive).unwrap();
        assert_eq!((report.skipped_devices, report.opaque_root), (0, false));
        let (ours, theirs) = (bare(snapshot_of(&scratch.layer())), snapshot_of(&source));
        assert!(theirs.len() > 20);
        assert_eq!(ours, theirs, "{form:?}");
        assert!(fs::metadata(scratch.layer().join("sparse")).unwrap().blocks() < 1000);
        assert!(packed(&scratch.layer(), form).unwrap() == archive, "the same tree, other bytes");
    }
}

/// As [`snapshot`], for a tree that holds what is too large to be read.
fn snapshot_of(root: &Path) -> BTreeMap<PathBuf, String> {
    let aside = root.with_extension("sparse");
    let time = fs::metadata(root).unwrap().modified().unwrap();
    fs::rename(root.join("sparse"), &aside).unwrap();
    let mut seen = snapshot(root);
    fs::rename(&aside, root.join("sparse")).unwrap();
    fs::File::open(root).unwrap().set_modified(time).unwrap();
    let file = fs::File::open(root.join("sparse")).unwrap();
    let at = |offset| {
        let mut room = [0; 8];
        std::os::unix::fs::FileExt::read_at(&file, &mut room, offset).unwrap();
        room
    };
    let parts = [0, 1_000_000, 3_000_000_000, 4_999_999_990].map(at);
    // The root's own time was changed by the two moves.
    seen.remove(Path::new(""));
    seen.insert("sparse".into(), format!("{} {parts:?}", file.metadata().unwrap().len()));
    seen
}

#[test]
fn gnu_tar_and_python_read_them() {
    let scratch = Scratch::new();
    let (source, theirs) = (scratch.directory("source"), scratch.directory("theirs"));
    plant_all(&source);
    fs::remove_file(source.join("sparse")).unwrap();
    let file = scratch.path.join("archive.tar");
    fs::write(&file, packed(&source, Form::Whole).unwrap()).unwrap();
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--same-permissions", "--xattrs", "--xattrs-include=*", "--file"]).arg(&file);
    assert!(tar.arg("-C").arg(&theirs).status().unwrap().success());
    let (mut ours, mut theirs) = (snapshot(&source), snapshot(&theirs));
    // GNU tar reads an attribute without a value as none.
    for tree in [&mut ours, &mut theirs] {
        let line = tree.get_mut(Path::new("a")).unwrap();
        *line = line.split(" user.").next().unwrap().to_owned();
    }
    assert_eq!(ours, theirs);
    const SCRIPT: &str = r#"
import sys, tarfile, hashlib
for m in tarfile.open(fileobj=sys.stdin.buffer, mode="r|", errors="surrogateescape"):
    print(hashlib.sha256(m.name.encode("utf8", "surrogateescape")).hexdigest(), m.size, oct(m.mode), m.uid, m.gid)
"#;
    let mut python = Command::new("python3");
    python.args(["-c", SCRIPT]).stdin(fs::File::open(&file).unwrap());
    let output = python.output().unwrap();
    assert!(output.status.success());
    let lines = String::from_utf8(output.stdout).unwrap();
    assert_eq!(lines.lines().count(), ours.len());
    let digest = super::sha256(&[0xfe; 200]).to_string();
    let shown = |name: &str| lines.lines().any(|line| line.starts_with(name));
    assert!(shown(digest.strip_prefix("sha256:").unwrap()), "{lines}");
}

/// The marks of overlayfs are those of the image format, both ways.
#[test]
fn marks_of_overlayfs_become_whiteouts() {
    let opaque = if is_root() { c"trusted.overlay.opaque" } else { c"user.overlay.opaque" };
    let scratch = Scratch::new();
    let upper = scratch.directory("upper");
    fs::create_dir_all(upper.join("d/new")).unwrap();
    for name in ["gone", "d/gone", "d/new/gone"] {
        mknod(&upper.join(name), SFlag::S_IFCHR, Mode::empty(), 0).unwrap();
    }
    fs::write(upper.join("d/new/f"), "x").unwrap();
    set(&upper.join("d/new"), opaque, b"y");
    set(&upper, opaque, b"y");
    set(&upper.join("d"), if is_root() { c"trusted.overlay.origin" } else { c"user.overlay.origin" }, b"x");
    let archive = packed(&upper, Form::Layer).unwrap();
    let listed = Command::new("tar").arg("-tf-").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut listed = listed.unwrap();
    listed.stdin.take().unwrap().write_all(&archive).unwrap();
    let names = String::from_utf8(listed.wait_with_output().unwrap().stdout).unwrap();
    let wanted =
        ["./", "d/", "d/.wh.gone", "d/new/", "d/new/.wh..wh..opq", "d/new/f", "d/new/.wh.gone", ".wh.gone"];
    let sorted = |names: &mut dyn Iterator<Item = &str>| names.map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(sorted(&mut names.lines()), sorted(&mut wanted.into_iter()));
    // What hides is before what it does not hide.
    let place = |name: &str| names.lines().position(|line| line == name);
    assert!(place("d/new/.wh..wh..opq") < place("d/new/f"));
    let report = scratch.unpack(&archive).unwrap();
    assert!(!report.opaque_root && report.skipped_xattrs == 0);
    let below = |tree: &Path| {
        let mut seen = snapshot(tree);
        // A whiteout's own time and mode say nothing; what else overlayfs noted is the upper's alone.
        seen.retain(|name, _| !name.ends_with("gone") && !name.as_os_str().is_empty());
        let cut = |line: &String| {
            line.replace(" trusted.overlay.origin=Ok([120])", "")
                .replace(" user.overlay.origin=Ok([120])", "")
        };
        seen.iter().map(|(name, line)| (name.clone(), cut(line))).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(below(&scratch.layer()), below(&upper));
    for name in ["gone", "d/gone", "d/new/gone"] {
        assert_eq!(fs::symlink_metadata(scratch.layer().join(name)).unwrap().rdev(), 0, "{name}");
    }
    // As it is, a tree has no marks.
    let whole = packed(&upper, Form::Whole).unwrap();
    assert!(!whole.windows(4).any(|part| part == b".wh."));
}

/// A user with one id owns all; whose a file was stands beside it and comes back out of the archive.
#[test]
fn true_owners_come_back() {
    let scratch = Scratch::new();
    let source = scratch.directory("source");
    fs::write(source.join("f"), "x").unwrap();
    fs::write(source.join("lie"), "x").unwrap();
    set(&source.join("f"), c"user.caisson.owner", b"7:4000000000");
    set(&source.join("lie"), c"user.caisson.owner", b"4294967295:1");
    let mut bytes = Vec::new();
    let packing = Packing { owner: Owner::Caller, ..packing(Form::Whole) };
    pack(&open_directory(&source), &mut bytes, &packing).unwrap();
    let mut reader = Command::new("tar")
        .args(["-tv", "--numeric-owner", "-f-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    reader.stdin.take().unwrap().write_all(&bytes).unwrap();
    let listed = String::from_utf8(reader.wait_with_output().unwrap().stdout).unwrap();
    let me = fs::metadata(&source).unwrap();
    assert!(
        listed.contains(" 7/4000000000 ") && listed.contains(&format!(" {}/{} ", me.uid(), me.gid())),
        "{listed}"
    );
    assert!(!bytes.windows(13).any(|part| part == b"caisson.owner"));
}

#[test]
fn what_an_archive_cannot_say_is_refused() {
    let refused = |plant: &dyn Fn(&Path), form: Form, code: Code, part: &str| {
        let scratch = Scratch::new();
        let source = scratch.directory("source");
        plant(&source);
        let error = packed(&source, form).expect_err(part);
        assert_eq!(error.code, code, "{error}");
        assert!(error.to_string().contains(part), "{error} lacks {part}");
    };
    let whiteout = |root: &Path| fs::write(root.join(".wh.f"), "").unwrap();
    refused(&whiteout, Form::Layer, Code::Unsupported, ".wh.f: its name begins with .wh.");
    let equals = |root: &Path| set(root, c"user.a=b", b"c");
    refused(&equals, Form::Whole, Code::Unsupported, "whose name holds =");
    let deep = |root: &Path| fs::create_dir_all(root.join(["d"; 257].join("/"))).unwrap();
    refused(&deep, Form::Layer, Code::Unsupported, "more than 256 components");
    let redirect = |root: &Path| {
        set(root, if is_root() { c"trusted.overlay.redirect" } else { c"user.overlay.redirect" }, b"/etc");
    };
    refused(&redirect, Form::Layer, Code::Unsupported, "redirect");
    let scratch = Scratch::new();
    let source = scratch.directory("source");
    whiteout(&source);
    redirect(&source);
    assert!(packed(&source, Form::Whole).is_ok());
    for (limits, part) in [
        (Limits { entries: 1, ..Limits::default() }, "more than 1 entries"),
        (Limits { inflated_bytes: 1024, ..Limits::default() }, "more than 1024 bytes"),
    ] {
        let packing = Packing { limits, ..packing(Form::Whole) };
        let error = pack(&open_directory(&source), &mut Vec::new(), &packing).unwrap_err();
        assert_eq!(error.code, Code::ImageLimit);
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn a_layer_is_compressed_and_hashed() {
    let scratch = Scratch::new();
    let (source, directory) = (scratch.directory("source"), scratch.directory("blob"));
    plant(&source, true);
    pack_layer(&open_directory(&source), &open_directory(&directory), &packing(Form::Layer)).unwrap();
    let blob = fs::read(directory.join("0")).unwrap();
    let report = scratch.unpack(&blob).unwrap();
    let table: serde_json::Value =
        serde_json::from_slice(&fs::read(directory.join("table.json")).unwrap()).unwrap();
    assert_eq!(table[0]["digest"], super::sha256(&blob).to_string());
    assert_eq!(table[0]["diffId"], report.diff_id.to_string());
    assert_eq!(table[0]["size"], blob.len());
    assert_eq!(report.diff_id, super::sha256(&packed(&source, Form::Layer).unwrap()));
    assert_eq!(&blob[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255], "no time, no name, no system");
}

pub(super) fn holds_bait(archive: &[u8]) -> bool {
    archive.windows(4).any(|part| part == b"bait") && {
        // As content: its name stands in the target of a link.
        let scratch = Scratch::new();
        let _ = unpack(archive, &open_directory(&scratch.layer()), &options());
        snapshot(&scratch.layer()).values().any(|line| line.contains(&super::sha256(b"bait").to_string()))
    }
}

/// A tree whose owner exchanges directories and files for links out of it while it is packed; whether one was followed.
pub(super) fn race(most: Duration) -> bool {
    let scratch = Scratch::new();
    let source = scratch.directory("source");
    for name in ["d", "d/d"] {
        fs::create_dir(source.join(name)).unwrap();
    }
    fs::write(source.join("d/f"), "own").unwrap();
    fs::write(source.join("f"), "own").unwrap();
    symlink("../../bait", source.join("links-d")).unwrap();
    symlink("../../bait/f", source.join("links-f")).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let root = open_directory(&source);
            while !over.load(Ordering::Relaxed) {
                for (one, other) in [("d", "links-d"), ("f", "links-f")] {
                    renameat2(&root, one, &root, other, RenameFlags::RENAME_EXCHANGE).unwrap();
                }
            }
        });
        let begun = Instant::now();
        let mut followed = false;
        while !followed && begun.elapsed() < most {
            // What is exchanged all the time may be given up.
            if let Ok(archive) = packed(&source, Form::Layer) {
                followed = holds_bait(&archive);
            }
        }
        over.store(true, Ordering::Relaxed);
        assert!(scratch.bait_is_safe());
        followed
    })
}

#[test]
fn d1_a_tree_that_changes_leads_nowhere() {
    assert!(!race(Duration::from_secs(1)));
}

/// A file that shrinks is filled up, one that grows is cut: the archive stays one.
#[test]
fn files_that_change_do_not_break_the_archive() {
    let scratch = Scratch::new();
    let source = scratch.directory("source");
    let path = source.join("f");
    fs::write(&path, vec![b'x'; 3_000_000]).unwrap();
    fs::write(source.join("g"), "behind").unwrap();
    struct Shrinks<'a>(Vec<u8>, &'a Path);
    impl Write for Shrinks<'_> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if self.0.len() > 100_000 && self.0.len() < 500_000 {
                fs::File::options().write(true).open(self.1).unwrap().set_len(1000).unwrap();
            }
            self.0.write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut out = Shrinks(Vec::new(), &path);
    pack(&open_directory(&source), &mut out, &packing(Form::Whole)).unwrap();
    scratch.unpack(&out.0).unwrap();
    let read = fs::read(scratch.layer().join("f")).unwrap();
    assert_eq!((read.len(), read[0], read[2_999_999]), (3_000_000, b'x', 0));
    assert_eq!(scratch.read("g"), "behind");
}

/// A file whose names are removed while it is read leaves its inode's number to the next one, which is another file.
#[test]
fn a_file_that_gets_the_number_of_another_is_no_link_to_it() {
    let scratch = Scratch::new();
    let source = scratch.directory("source");
    fs::create_dir(source.join("z")).unwrap();
    for old in 0..20 {
        fs::write(source.join(format!("a{old}")), "old").unwrap();
        fs::hard_link(source.join(format!("a{old}")), source.join(format!("z/z{old}"))).unwrap();
    }
    fs::write(source.join("m"), vec![1; 1_000_000]).unwrap();
    struct Replaces<'a>(Vec<u8>, &'a Path, bool);
    impl Write for Replaces<'_> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if self.0.len() > 200_000 && !std::mem::replace(&mut self.2, true) {
                let name = |kind: &str, number: u32| self.1.join(format!("{kind}{number}"));
                for old in 0..20 {
                    fs::remove_file(name("a", old)).unwrap();
                    fs::remove_file(name("z/z", old)).unwrap();
                }
                for new in 0..60 {
                    fs::write(name("z/n", new), format!("new {new}")).unwrap();
                    fs::hard_link(name("z/n", new), name("z/o", new)).unwrap();
                }
            }
            self.0.write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut out = Replaces(Vec::new(), &source, false);
    pack(&open_directory(&source), &mut out, &packing(Form::Whole)).unwrap();
    scratch.unpack(&out.0).unwrap();
    let names: BTreeSet<String> =
        ["n", "o"].iter().flat_map(|kind| (0..60).map(move |new| format!("{kind}{new}"))).collect();
    for name in names {
        assert_eq!(scratch.read(&format!("z/{name}")), format!("new {}", &name[1..]), "{name}");
    }
    let number = |name: &str| fs::metadata(scratch.layer().join(name)).unwrap().ino();
    assert_eq!(number("z/n7"), number("z/o7"));
}

/// A file on which its user holds a lease is waited for: the kernel tells him that somebody wants it.
#[test]
fn a_lease_is_waited_for() {
    const SCRIPT: &str = r#"
import fcntl, os, signal, sys, time
file = os.open(sys.argv[1], os.O_RDWR)
def give(*_):
    time.sleep(0.3)
    fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    sys.exit(7)
signal.signal(signal.SIGIO, give)
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("held", flush=True)
time.sleep(60)
"#;
    let scratch = Scratch::new();
    let source = scratch.directory("source");
    fs::write(source.join("f"), "leased").unwrap();
    let mut holder = Command::new("python3");
    holder.args(["-c", SCRIPT]).arg(source.join("f")).stdout(Stdio::piped());
    let mut holder = holder.spawn().unwrap();
    let mut held = [0; 5];
    holder.stdout.as_mut().unwrap().read_exact(&mut held).unwrap();
    let archive = packed(&source, Form::Whole);
    assert_eq!(holder.wait().unwrap().code(), Some(7));
    scratch.unpack(&archive.unwrap()).unwrap();
    assert_eq!(scratch.read("f"), "leased");
}

/// Mode bits that its owner himself could not read through are no reason to leave something out, for who may.
#[test]
fn sockets_are_left_out() {
    let scratch = Scratch::new();
    let source = scratch.directory("source");
    let _socket = std::os::unix::net::UnixListener::bind(source.join("s")).unwrap();
    fs::write(source.join("f"), "x").unwrap();
    fs::set_permissions(source.join("f"), fs::Permissions::from_mode(0o400)).unwrap();
    scratch.unpack(&packed(&source, Form::Layer).unwrap()).unwrap();
    assert_eq!(scratch.names(), ["f"]);
    assert!(open_directory(&source).raw() > 2);
}
