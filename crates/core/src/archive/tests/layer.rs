//! What a layer means: whiteouts, parents, links to lower layers, metadata.

use super::build::{Header, Tar};
use super::{Scratch, is_root, open_directory, options, snapshot};
use crate::archive::{Lowers, Options, Owner, unpack};
use caisson_sys::file::{open, openat2};
use caisson_sys::{Cwd, Fd, xattr};
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Once;

fn is_whiteout(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|stat| stat.file_type().is_char_device() && stat.rdev() == 0)
}

fn is_opaque(path: &Path) -> bool {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let directory = openat2(Cwd, &path, open::RDONLY | open::DIRECTORY, 0, 0).unwrap();
    let name = if is_root() { c"trusted.overlay.opaque" } else { c"user.overlay.opaque" };
    xattr::get(&directory, name, &mut [0; 8]).is_ok_and(|value| value == b"y")
}

#[test]
fn whiteouts_take_overlay_form() {
    let scratch = Scratch::new();
    let archive = Tar::new().file("etc/.wh.victim", "").file("var/.wh..wh..opq", "").file("var/new", "x");
    let report = scratch.unpack(&archive.file(".wh.top", "").end()).unwrap();
    assert_eq!(scratch.names(), ["etc", "etc/victim", "top", "var", "var/new"]);
    assert!(is_whiteout(&scratch.layer().join("etc/victim")) && is_whiteout(&scratch.layer().join("top")));
    assert!(is_opaque(&scratch.layer().join("var")) && !is_opaque(&scratch.layer().join("etc")));
    assert!(!report.opaque_root);
}

/// A user with one id owns all: whose it was stands beside it, and a layer cannot say so itself.
#[test]
fn true_owners_are_kept_beside() {
    let scratch = Scratch::new();
    let ids: &[(&str, &[u8])] = &[("uid", b"7"), ("gid", b"8")];
    let lie: &[(&str, &[u8])] = &[("SCHILY.xattr.user.caisson.owner", b"1:1")];
    let archive = Tar::new().pax(ids).directory("d").pax(ids).file("d/f", "x").pax(lie).file("d/own", "x");
    let options = Options { owner: Owner::Caller, userxattr: true, ..Options::default() };
    let report = scratch.unpack_with(&archive.end(), &options).unwrap();
    let owner = |scratch: &Scratch, name: &str| {
        let path = CString::new(scratch.layer().join(name).as_os_str().as_bytes()).unwrap();
        let file = openat2(Cwd, &path, open::RDONLY, 0, 0).unwrap();
        xattr::get(&file, c"user.caisson.owner", &mut [0; 64]).map(|value| value.to_vec()).ok()
    };
    assert_eq!(
        (owner(&scratch, "d"), owner(&scratch, "d/f"), owner(&scratch, "d/own")),
        (Some(b"7:8".to_vec()), Some(b"7:8".to_vec()), None)
    );
    assert_eq!(report.skipped_xattrs, 1);
    // A layer above takes it over with a directory on the way, and with a copy of a file.
    let above = Scratch::new();
    let lowers = super::Known(vec![open_directory(&scratch.layer())]);
    let archive = Tar::new().file("d/new", "x").link("copy", "d/f").end();
    above.unpack_with(&archive, &Options { lowers: Some(&lowers), ..options }).unwrap();
    assert_eq!((owner(&above, "d"), owner(&above, "copy")), (Some(b"7:8".to_vec()), Some(b"7:8".to_vec())));
}

/// A caller without capabilities needs the right to write for a `user` attribute, which some files do not give him.
#[test]
fn read_only_files_get_their_attributes() {
    let scratch = Scratch::new();
    let note: &[(&str, &[u8])] = &[("SCHILY.xattr.user.note", b"x"), ("uid", b"7")];
    let mut header = Header::new(b"f", b'0', 1);
    let archive = Tar::new().pax(note).entry(header.octal(100, 8, 0o444), b"x").end();
    let options = Options { owner: Owner::Caller, userxattr: true, ..Options::default() };
    assert_eq!(scratch.unpack_with(&archive, &options).unwrap().skipped_xattrs, 0);
    let line = &snapshot(&scratch.layer())[Path::new("f")];
    assert!(
        line.starts_with("100444") && line.contains("user.note") && line.contains("user.caisson.owner"),
        "{line}"
    );
}

/// OCI image spec, layer.md: a whiteout hides lower layers only, wherever it stands.
#[test]
fn d4_whiteouts_spare_what_their_layer_wrote() {
    let (file, whiteout) = (Tar::new().file("d/f", "kept"), Tar::new().file("d/.wh.f", ""));
    for archive in [[file.0.clone(), whiteout.clone().end()], [whiteout.0, file.end()]] {
        let scratch = Scratch::new();
        scratch.unpack(&archive.concat()).unwrap();
        assert_eq!(scratch.read("d/f"), "kept");
    }
    // Of a directory, the lower layers' part goes and this layer's stays.
    let (below, whiteout) = (Tar::new().file("d/e/f", "kept"), Tar::new().file("d/.wh.e", ""));
    let entry = Tar::new().directory("d/e").file("d/e/f", "kept");
    for archive in [
        [below.0.clone(), whiteout.clone().end()],
        [whiteout.0.clone(), below.end()],
        [whiteout.0, entry.end()],
    ] {
        let scratch = Scratch::new();
        scratch.unpack(&archive.concat()).unwrap();
        assert_eq!(scratch.read("d/e/f"), "kept");
        assert!(is_opaque(&scratch.layer().join("d/e")));
    }
    let scratch = Scratch::new();
    scratch.unpack(&Tar::new().file("d/f", "kept").file("d/.wh..wh..opq", "").end()).unwrap();
    assert_eq!(scratch.read("d/f"), "kept");
    assert!(is_opaque(&scratch.layer().join("d")));
}

/// As `umoci repack` writes a directory that became a file or a link: its names are gone with it.
#[test]
fn d4_whiteouts_below_what_is_no_directory_any_more() {
    for marker in [".wh.x", ".wh..wh..opq", "deeper/.wh.x"] {
        let scratch = Scratch::new();
        let archive = Tar::new()
            .directory("other")
            .file("other/x", "kept")
            .symlink("link", "other")
            .file(&format!("link/{marker}"), "")
            .file("file", "kept")
            .file(&format!("file/{marker}"), "");
        scratch.unpack(&archive.end()).unwrap();
        let layer = scratch.layer();
        assert_eq!(fs::read_link(layer.join("link")).unwrap(), Path::new("other"));
        assert_eq!(fs::read_to_string(layer.join("file")).unwrap(), "kept");
        assert_eq!(fs::read_dir(layer.join("other")).unwrap().count(), 1);
        assert!(!is_opaque(&layer.join("other")));
    }
}

#[test]
fn d4_an_opaque_root_is_reported() {
    let scratch = Scratch::new();
    let report = scratch.unpack(&Tar::new().file("f", "x").file(".wh..wh..opq", "").end()).unwrap();
    assert!(report.opaque_root);
    assert_eq!(scratch.names(), ["f"]);
}

#[test]
fn owners_modes_and_times() {
    let scratch = Scratch::new();
    let mut file = Header::new(b"d/suid", b'0', 1);
    file.octal(100, 8, 0o4751).octal(108, 8, 1000).octal(116, 8, 1001);
    let mut directory = Header::new(b"d", b'5', 0);
    directory.octal(100, 8, 0o2570).octal(108, 8, 7).octal(116, 8, 8);
    let mut link = Header::new(b"d/link", b'2', 0);
    link.put(157, b"suid").octal(108, 8, 5).octal(116, 8, 6);
    let archive = Tar::new()
        .pax(&[("mtime", b"1234567890.123456789")])
        .entry(&directory, b"")
        .pax(&[("mtime", b"-1.25"), ("uid", b"4000000000")])
        .entry(&file, b"x")
        .pax(&[("mtime", b"99.5")])
        .entry(&link, b"")
        .file("other", "x")
        // Back into the directory, which was complete: its mode and time stay.
        .file("d/late", "x");
    scratch.unpack(&archive.end()).unwrap();
    let stat = |name: &str| fs::symlink_metadata(scratch.layer().join(name)).unwrap();
    let d = stat("d");
    assert_eq!((d.mode() & 0o7777, d.mtime(), d.mtime_nsec()), (0o2570, 1_234_567_890, 123_456_789));
    let suid = stat("d/suid");
    assert_eq!((suid.mode() & 0o7777, suid.mtime(), suid.mtime_nsec()), (0o4751, -2, 750_000_000));
    assert_eq!((stat("d/link").mtime(), stat("d/link").mtime_nsec()), (99, 500_000_000));
    assert_eq!(stat("d/late").mtime(), 1_000_000);
    if is_root() {
        assert_eq!((d.uid(), d.gid()), (7, 8));
        assert_eq!((suid.uid(), suid.gid()), (4_000_000_000, 1001));
        assert_eq!((stat("d/link").uid(), stat("d/link").gid()), (5, 6));
        // Not the group of its set-group-id directory.
        assert_eq!((stat("d/late").uid(), stat("d/late").gid()), (0, 0));
    }
}

#[test]
fn the_root_is_as_its_entry_says_or_0755() {
    let scratch = Scratch::new();
    fs::set_permissions(scratch.layer(), fs::Permissions::from_mode(0o700)).unwrap();
    scratch.unpack(&Tar::new().file("f", "x").end()).unwrap();
    assert_eq!(fs::metadata(scratch.layer()).unwrap().mode() & 0o7777, 0o755);
    let scratch = Scratch::new();
    let archive = Tar::new().entry(Header::new(b"./", b'5', 0).octal(100, 8, 0o1751), b"").file("f", "x");
    scratch.unpack(&archive.end()).unwrap();
    let stat = fs::metadata(scratch.layer()).unwrap();
    assert_eq!((stat.mode() & 0o7777, stat.mtime()), (0o1751, 1_000_000));
}

#[test]
fn missing_parents_are_as_below_or_0755() {
    let archive = Tar::new().file("tmp/a/f", "x").end();
    let scratch = Scratch::new();
    scratch.unpack(&archive).unwrap();
    assert_eq!(fs::metadata(scratch.layer().join("tmp")).unwrap().mode() & 0o7777, 0o755);
    let scratch = Scratch::new();
    let lower = scratch.directory("lower");
    fs::create_dir(lower.join("tmp")).unwrap();
    fs::set_permissions(lower.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    let lowers = super::Known(vec![open_directory(&lower)]);
    scratch.unpack_with(&archive, &Options { lowers: Some(&lowers), ..options() }).unwrap();
    let mode = |name: &str| fs::metadata(scratch.layer().join(name)).unwrap().mode() & 0o7777;
    assert_eq!((mode("tmp"), mode("tmp/a")), (0o1777, 0o755));
}

/// Lower layers that must not be asked for before one name of the layer is there, and first before another is.
#[derive(Debug)]
struct Asked {
    layers: super::Known,
    after: PathBuf,
    before: Option<PathBuf>,
    once: Once,
}

impl Lowers for Asked {
    fn roots(&self) -> crate::Result<&[Fd]> {
        self.once.call_once(|| {
            assert!(self.after.exists(), "asked for too early");
            assert!(self.before.as_ref().is_none_or(|name| !name.exists()), "asked for too late");
        });
        self.layers.roots()
    }
}

#[test]
fn missing_parents_wait_for_the_last_entry() {
    let scratch = Scratch::new();
    let lower = scratch.directory("lower");
    for name in ["as-below", "described", "replaced", "replaced/in", "again", "file"] {
        fs::create_dir(lower.join(name)).unwrap();
        fs::set_permissions(lower.join(name), fs::Permissions::from_mode(0o1711)).unwrap();
    }
    let archive = Tar::new()
        .file("as-below/f", "x")
        .file("described/f", "x")
        .directory("described")
        .file("replaced/in/f", "x")
        .file("replaced", "no directory")
        .file("again/f", "x")
        .file("again", "no directory for a moment")
        .directory("again")
        .file("file/f", "x")
        .file("last", "x")
        .end();
    let lowers = Asked {
        layers: super::Known(vec![open_directory(&lower)]),
        after: scratch.layer().join("last"),
        before: None,
        once: Once::new(),
    };
    scratch.unpack_with(&archive, &Options { lowers: Some(&lowers), ..options() }).unwrap();
    let mode = |name: &str| fs::metadata(scratch.layer().join(name)).unwrap().mode() & 0o7777;
    let plain = mode("described");
    assert_eq!((mode("as-below"), mode("file"), mode("again")), (0o1711, 0o1711, plain));
    assert!(plain != 0o1711 && fs::metadata(scratch.layer().join("replaced")).unwrap().is_file());
}

#[test]
fn missing_parents_are_kept_within_bounds() {
    let scratch = Scratch::new();
    let lower = scratch.directory("lower");
    let long = "n".repeat(90);
    let names: Vec<_> = (0..8000).map(|at| format!("{long}{at:04}")).collect();
    let mut archive = Tar::new();
    for name in &names {
        archive = archive.file(&format!("{name}/f"), "");
    }
    for name in [&names[0], &names[7999]] {
        fs::create_dir(lower.join(name)).unwrap();
        fs::set_permissions(lower.join(name), fs::Permissions::from_mode(0o1711)).unwrap();
    }
    // Some seven thousand fill a mebibyte.
    let asked = Asked {
        layers: super::Known(vec![open_directory(&lower)]),
        after: scratch.layer().join(&names[6500]),
        before: Some(scratch.layer().join(&names[7000])),
        once: Once::new(),
    };
    scratch.unpack_with(&archive.end(), &Options { lowers: Some(&asked), ..options() }).unwrap();
    let mode = |name: &str| fs::metadata(scratch.layer().join(name)).unwrap().mode() & 0o7777;
    assert_eq!((mode(&names[0]), mode(&names[1]), mode(&names[7999])), (0o1711, 0o755, 0o1711));
}

#[test]
fn a_link_to_a_lower_layer_is_a_copy() {
    let scratch = Scratch::new();
    let (top, bottom) = (scratch.directory("top"), scratch.directory("bottom"));
    fs::create_dir_all(bottom.join("d/hidden")).unwrap();
    for name in ["d/f", "d/gone", "d/hidden/f", "d/both"] {
        fs::write(bottom.join(name), "bottom").unwrap();
    }
    fs::set_permissions(bottom.join("d/f"), fs::Permissions::from_mode(0o751)).unwrap();
    symlink("f", bottom.join("d/link")).unwrap();
    let whiteouts =
        Tar::new().file("d/.wh.gone", "").file("d/hidden/.wh..wh..opq", "").file("d/both", "top").end();
    unpack(&whiteouts[..], &open_directory(&top), &options()).unwrap();
    let lowers = super::Known(vec![open_directory(&top), open_directory(&bottom)]);
    let options = Options { lowers: Some(&lowers), ..options() };
    let archive = Tar::new().link("copy", "d/f").link("both", "/d/both").link("link", "d/link").end();
    scratch.unpack_with(&archive, &options).unwrap();
    assert_eq!((scratch.read("copy"), scratch.read("both")), ("bottom".into(), "top".into()));
    let (copy, original) =
        (fs::metadata(scratch.layer().join("copy")).unwrap(), fs::metadata(bottom.join("d/f")).unwrap());
    assert_eq!((copy.mode(), copy.mtime_nsec(), copy.nlink()), (original.mode(), original.mtime_nsec(), 1));
    assert_eq!(fs::read_link(scratch.layer().join("link")).unwrap().to_str(), Some("f"));
    for name in ["d/gone", "d/hidden/f", "d/none", "d/link/x"] {
        let error = Scratch::new().unpack_with(&Tar::new().link("l", name).end(), &options).expect_err(name);
        assert!(error.message.contains("is not there"), "{error}");
    }
}

/// A default ACL reaches a directory only when all is in it, and comes back when more is added.
#[test]
fn default_acls_are_not_inherited() {
    // version 2; user::rwx, user:1000:rwx, group::rwx, mask::rwx, other::---
    let entry = |tag: u8, bits: u8, id: u32| [&[tag, 0, bits, 0][..], &id.to_le_bytes()].concat();
    let none = u32::MAX;
    let acl = [
        vec![2, 0, 0, 0],
        entry(1, 7, none),
        entry(2, 7, 1000),
        entry(4, 7, none),
        entry(16, 7, none),
        entry(32, 0, none),
    ];
    let acl = acl.concat();
    let archive = Tar::new()
        .pax(&[
            ("SCHILY.xattr.system.posix_acl_default", &acl),
            ("SCHILY.xattr.system.posix_acl_access", &acl),
        ])
        .directory("d")
        .file("d/a", "x")
        .file("other", "x")
        .file("d/b", "x");
    let scratch = Scratch::new();
    let report = scratch.unpack(&archive.end()).unwrap();
    if report.skipped_xattrs > 0 {
        return; // A file system without ACLs.
    }
    let all = snapshot(&scratch.layer());
    let line = |name: &str| &all[Path::new(name)];
    assert!(
        line("d").contains("posix_acl_default") && line("d").contains("posix_acl_access"),
        "{}",
        line("d")
    );
    assert!(!line("d/a").contains("posix_acl") && !line("d/b").contains("posix_acl"), "{all:?}");
    assert!(line("d/b").starts_with("100644"), "{}", line("d/b"));
}

/// Sparse files of GNU tar's form 1.0: holes stay, the map is bounded and must fit.
#[test]
fn sparse_maps() {
    let sparse = |real: &str, map: &str, data: &str| {
        let mut body = map.as_bytes().to_vec();
        body.resize(body.len().next_multiple_of(512), 0);
        body.extend_from_slice(data.as_bytes());
        let records: [(&str, &[u8]); 4] = [
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"real"),
            ("GNU.sparse.realsize", real.as_bytes()),
        ];
        Tar::new()
            .pax(&records)
            .entry(&Header::new(b"fake", b'0', body.len() as u64), &body)
            .file("next", "x")
            .end()
    };
    let scratch = Scratch::new();
    let data = format!("abc{}de", "-".repeat(509));
    scratch.unpack(&sparse("1000000", "3\n0\n512\n2000\n0\n999998\n2\n", &data)).unwrap();
    assert_eq!(scratch.names(), ["next", "real"]);
    let bytes = fs::read(scratch.layer().join("real")).unwrap();
    assert_eq!(
        (bytes.len(), &bytes[..4], &bytes[511..513], &bytes[999_997..]),
        (1_000_000, &b"abc-"[..], &b"-\0"[..], &b"\0de"[..])
    );
    assert!(fs::metadata(scratch.layer().join("real")).unwrap().blocks() < 100);
    for (what, real, map, data) in [
        ("overlap", "10", "2\n0\n3\n2\n2\n", "abcde"),
        ("outside", "4", "1\n0\n5\n", "abcde"),
        ("outside", "9", "1\n18446744073709551615\n5\n", "abcde"),
        ("does not fit", "10", "1\n0\n4\n", "abcde"),
        ("does not fit", "10", "1\n0\n6\n", "abcde"),
        ("whole number of blocks", "10", "2\n0\n3\n8\n2\n", "abcde"),
        ("ends before its file", "10", "1\n0\n5\n", "abcde"),
        ("ends before its file", "10", "0\n", ""),
        ("damaged sparse map", "10", "x\n", "abcde"),
        ("out of range", "10", "99999999999999999999999\n", "abcde"),
        ("sparse map", "10", "999999\n", ""),
    ] {
        let error = Scratch::new().unpack(&sparse(real, map, data)).expect_err(what);
        assert!(error.message.contains(what), "{what}: {error}");
    }
}

/// Sparse files of the old GNU form: the same bounds, and nothing behind the end of the map.
#[test]
fn old_sparse_maps() {
    let sparse = |real: u64, pieces: &[(u64, u64)], more: u8, behind: &[u8], data: &str| {
        let mut header = Header::new(b"f", b'S', data.len() as u64);
        header.gnu().octal(483, 12, real).put(482, &[more]);
        for (index, (offset, length)) in pieces.iter().enumerate() {
            header.octal(386 + index * 24, 12, *offset).octal(398 + index * 24, 12, *length);
        }
        Tar::new().entry(&header, &[behind, data.as_bytes()].concat()).file("next", "x").end()
    };
    let scratch = Scratch::new();
    let data = format!("{}de", "-".repeat(512));
    scratch.unpack(&sparse(9000, &[(0, 512), (8000, 2), (9000, 0)], 0, b"", &data)).unwrap();
    let bytes = fs::read(scratch.layer().join("f")).unwrap();
    assert_eq!((bytes.len(), &bytes[7999..8003]), (9000, &b"\0de\0"[..]));
    assert_eq!(scratch.read("next"), "x");
    let mut block = vec![0; 512];
    block[..24].copy_from_slice(b"00000021446\x0000000000002\0");
    let scratch = Scratch::new();
    let full = [(0, 512), (600, 512), (2000, 512), (3000, 0)];
    scratch.unpack(&sparse(9000, &full, 1, &block, &format!("{}de", "-".repeat(1536)))).unwrap();
    assert_eq!(&fs::read(scratch.layer().join("f")).unwrap()[8997..], b"\0de");
    let mut on = block.clone();
    on[504] = 1;
    let endless = [on, vec![1; 3 << 20]].concat();
    for (what, archive) in [
        ("overlap", sparse(10, &[(0, 3), (2, 2)], 0, b"", "abcde")),
        ("outside", sparse(4, &[(0, 5)], 0, b"", "abcde")),
        ("does not fit", sparse(10, &[(0, 4)], 0, b"", "abcde")),
        ("whole number of blocks", sparse(10, &[(0, 3), (8, 2)], 0, b"", "abcde")),
        ("ends before its file", sparse(10, &[(0, 5)], 0, b"", "abcde")),
        ("damaged sparse map", sparse(9000, &full, 1, &endless, "abcde")),
        ("damaged sparse map", sparse(9000, &[(0, 3)], 1, &block, "abcde")),
        (
            "archive of another",
            Tar::new().pax(&[("size", b"5")]).entry(Header::new(b"f", b'S', 5).gnu(), b"abcde").end(),
        ),
        ("archive of another", Tar::new().entry(&Header::new(b"f", b'S', 0), b"").end()),
    ] {
        let error = Scratch::new().unpack(&archive).expect_err(what);
        assert!(error.message.contains(what), "{what}: {error}");
    }
    // A map of more than a MiB.
    let mut forever = Vec::new();
    for number in 0..2100u64 {
        let mut block = vec![0; 512];
        for piece in 0..21 {
            let offset = 100 + (number * 21 + piece) * 2;
            block[piece as usize * 24..][..24]
                .copy_from_slice(format!("{offset:011o}\0{:011o}\0", 1).as_bytes());
        }
        block[504] = 1;
        forever.extend(block);
    }
    let error = Scratch::new().unpack(&sparse(1 << 30, &full, 1, &forever, "abcde")).expect_err("too long");
    assert!(error.message.contains("too long"), "{error}");
}
