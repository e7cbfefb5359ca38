//! Two trees of one archive are the same, and each way in which one of them is changed is seen.

use super::build::{Header, Tar};
use super::{Scratch, is_root, open_directory};
use crate::archive::compare;
use crate::{Code, Stage};
use caisson_sys::file::{open, openat2};
use caisson_sys::{Cwd, xattr};
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

fn archive() -> Vec<u8> {
    let note: &[(&str, &[u8])] = &[("SCHILY.xattr.user.note", b"x")];
    let mut fifo = Header::new(b"fifo", b'6', 0);
    Tar::new()
        .directory("d")
        .pax(note)
        .file("d/f", "content")
        .symlink("d/link", "f")
        .link("d/hard", "d/f")
        .entry(fifo.octal(100, 8, 0o600), b"")
        .file("d/.wh.gone", "")
        .file("other", &"y".repeat(700_000))
        .end()
}

fn set_time(path: &Path) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
}

/// Changes something and leaves its time alone, which would tell of it too.
fn keeping_time(path: &Path, change: impl FnOnce(&Path)) {
    let modified = fs::metadata(path).unwrap().modified().unwrap();
    change(path);
    fs::File::options().write(true).open(path).unwrap().set_modified(modified).unwrap();
}

#[test]
fn every_change_is_seen() {
    let first = Scratch::new();
    first.unpack(&archive()).unwrap();
    let same = Scratch::new();
    same.unpack(&archive()).unwrap();
    compare(&open_directory(&first.layer()), &open_directory(&same.layer())).unwrap();
    type Change = (&'static str, &'static str, fn(&Path));
    let changes: &[Change] = &[
        ("d/f", "mode", |tree| {
            fs::set_permissions(tree.join("d/f"), fs::Permissions::from_mode(0o4644)).unwrap();
        }),
        ("d", "mode", |tree| fs::set_permissions(tree.join("d"), fs::Permissions::from_mode(0o700)).unwrap()),
        ("./", "mode", |tree| fs::set_permissions(tree, fs::Permissions::from_mode(0o700)).unwrap()),
        ("d/f", "content", |tree| {
            keeping_time(&tree.join("d/f"), |path| fs::write(path, "Content").unwrap());
        }),
        // Behind the first piece.
        ("other", "content", |tree| {
            keeping_time(&tree.join("other"), |path| {
                fs::write(path, ["y".repeat(600_000), "z".repeat(100_000)].concat()).unwrap();
            });
        }),
        ("d/f", "size", |tree| keeping_time(&tree.join("d/f"), |path| fs::write(path, "conten").unwrap())),
        ("d/f", "time", |tree| set_time(&tree.join("d/f"))),
        ("other", "missing", |tree| fs::remove_file(tree.join("other")).unwrap()),
        ("d/gone", "missing", |tree| fs::remove_file(tree.join("d/gone")).unwrap()),
        ("d/more", "not in the layer", |tree| fs::write(tree.join("d/more"), "").unwrap()),
        ("more", "not in the layer", |tree| fs::create_dir(tree.join("more")).unwrap()),
        ("d/f", "links", |tree| fs::remove_file(tree.join("d/hard")).unwrap()),
        ("d/hard", "another file", |tree| {
            // As many links, of the same bytes and time.
            let (old, new) = (tree.join("d/hard"), tree.parent().unwrap().join("new"));
            let modified = fs::metadata(&old).unwrap().modified().unwrap();
            fs::copy(&old, &new).unwrap();
            for path in [&old, &tree.join("d/f")] {
                fs::hard_link(path, tree.parent().unwrap().join(path.file_name().unwrap())).unwrap();
            }
            fs::hard_link(&new, tree.parent().unwrap().join("new2")).unwrap();
            fs::remove_file(tree.parent().unwrap().join("f")).unwrap();
            fs::remove_file(&old).unwrap();
            fs::rename(&new, &old).unwrap();
            note(&old, b"x");
            fs::File::options().write(true).open(&old).unwrap().set_modified(modified).unwrap();
        }),
        ("d/link", "target", |tree| {
            fs::remove_file(tree.join("d/link")).unwrap();
            symlink("g", tree.join("d/link")).unwrap();
            let (omit, time) = (TimeSpec::UTIME_OMIT, TimeSpec::new(1_000_000, 0));
            utimensat(AT_FDCWD, &tree.join("d/link"), &omit, &time, UtimensatFlags::NoFollowSymlink).unwrap();
        }),
        ("fifo", "is file, not FIFO", |tree| {
            fs::remove_file(tree.join("fifo")).unwrap();
            fs::write(tree.join("fifo"), "").unwrap();
        }),
        ("d", "is symbolic link, not directory", |tree| {
            fs::remove_dir_all(tree.join("d")).unwrap();
            symlink("../../bait", tree.join("d")).unwrap();
        }),
        ("d/f", "attribute user.note", |tree| note(&tree.join("d/f"), b"y")),
        ("other", "attribute user.note", |tree| note(&tree.join("other"), b"x")),
    ];
    for (path, what, change) in changes {
        let scratch = Scratch::new();
        scratch.unpack(&archive()).unwrap();
        change(&scratch.layer());
        let error = compare(&open_directory(&first.layer()), &open_directory(&scratch.layer())).unwrap_err();
        assert_eq!((error.code, error.stage), (Code::Digest, Stage::VERIFY), "{path} {what}");
        assert_eq!(
            (error.subject.as_str(), error.message.contains(what)),
            (*path, true),
            "{path} {what}: {error}"
        );
        assert!(scratch.bait_is_safe());
    }
    if is_root() {
        chown(same.layer().join("d/link"), None, Some(5)).unwrap();
        chown(same.layer().join("d"), Some(7), None).unwrap();
        let error = compare(&open_directory(&first.layer()), &open_directory(&same.layer())).unwrap_err();
        assert_eq!((error.subject.as_str(), error.message.as_str()), ("d", "its owner is 7:0, not 0:0"));
    }
}

fn note(path: &Path, value: &[u8]) {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let file = openat2(Cwd, &path, open::RDONLY, 0, 0).unwrap();
    xattr::set(&file, c"user.note", value).unwrap();
}
