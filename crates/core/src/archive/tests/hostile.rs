//! The corpus of hostile archives: security.md rows D1 to D5, D7, D8 and C4.

use super::build::{Header, Tar, gzip, record};
use super::{Scratch, is_root, open_directory, options, refused};
use crate::Code;
use crate::archive::{Digest, Limits, Options, unpack};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};

/// D1: names that leave the layer, or lead through a link. Also the seed of the mutations below.
fn corpus() -> Vec<(&'static str, Vec<u8>, Option<&'static str>)> {
    let deep = "a/".repeat(300) + "f";
    let long = "n".repeat(256);
    let path = |name: &str| Tar::new().pax(&[("path", name.as_bytes())]).file("x", "evil").end();
    vec![
        ("up", Tar::new().file("../../bait/f", "evil").end(), Some("..")),
        ("up within", Tar::new().directory("a").file("a/../../../bait/f", "evil").end(), Some("..")),
        ("up alone", Tar::new().directory("..").end(), Some("..")),
        ("up by pax", path("../../bait/f"), Some("..")),
        (
            "up by long name",
            Tar::new().extension(b'L', b"../../bait/f\0").file("x", "evil").end(),
            Some(".."),
        ),
        (
            "up by prefix",
            Tar::new().entry(Header::new(b"bait/f", b'0', 4).put(345, b"../.."), b"evil").end(),
            Some(".."),
        ),
        ("up, not plain", Tar::new().file("./a/..", "evil").end(), Some("..")),
        ("dots that are names", Tar::new().file(".../..f", "fine").end(), None),
        ("absolute", Tar::new().file("/bait/f", "fine").end(), None),
        ("many slashes", Tar::new().file("///.//a//./f", "fine").end(), None),
        ("empty", Tar::new().file("", "evil").end(), Some("name is empty")),
        ("nul", path("a\0../b"), Some("NUL")),
        ("long component", path(&long), Some("255")),
        ("long path", path(&("abcdefgh/".repeat(456) + "f")), Some("4096")),
        ("deep path", path(&deep), Some("256 components")),
        (
            "through a link",
            Tar::new().symlink("d", "../../bait").file("d/f", "evil").end(),
            Some("is no directory"),
        ),
        (
            "through a link, slash",
            Tar::new().symlink("d", "../../bait").directory("d/d/").file("d/d/x", "evil").end(),
            Some("is no directory"),
        ),
        (
            "through two links",
            Tar::new()
                .directory("a")
                .symlink("a/up", "..")
                .symlink("a/b", "up/../../bait")
                .file("a/b/f", "evil")
                .end(),
            Some("is no directory"),
        ),
        (
            "through an absolute link",
            Tar::new().symlink("d", "/proc/self/cwd").file("d/f", "evil").end(),
            Some("is no directory"),
        ),
        (
            "C4: a directory entry on a link",
            Tar::new().symlink("d", "../../bait").directory("d").file("d/f", "fine").end(),
            None,
        ),
        ("a file on a link", Tar::new().symlink("l", "../../bait/f").file("l", "fine").end(), None),
        ("a file twice", Tar::new().file("f", "first").file("f", "second").end(), None),
        (
            "a file as directory",
            Tar::new().file("f", "first").file("f/g", "evil").end(),
            Some("is no directory"),
        ),
        ("a directory becomes a file", Tar::new().file("d/e/f", "first").file("d", "second").end(), None),
        ("D2: link outside", Tar::new().link("l", "../../bait/f").file("l", "evil").end(), Some("..")),
        ("link outside, absolute", Tar::new().link("l", "/etc/passwd").end(), Some("not there")),
        (
            "link through a link",
            Tar::new().symlink("d", "../../bait").link("l", "d/f").file("l", "evil").end(),
            Some("not there"),
        ),
        (
            // CVE-2026-26960: the chain made node-tar link a file of the host into the output.
            "link chain",
            Tar::new()
                .directory("a/b/c")
                .symlink("a/b/c/up", "../..")
                .symlink("a/b/escape", "c/up/../../../bait")
                .link("exfil", "a/b/escape/f")
                .end(),
            Some("not there"),
        ),
        (
            "link to a link",
            Tar::new().symlink("s", "../../bait/f").link("l", "s").file("l", "fine").end(),
            None,
        ),
        ("link to a device", Tar::new().node("p", b'6', 0, 0).link("l", "p").end(), Some("is no file")),
        ("link to a directory", Tar::new().directory("d").link("l", "d").end(), Some("is no file")),
        ("link to the root", Tar::new().link("l", "./").end(), Some("not there")),
        ("link to itself", Tar::new().file("f", "x").link("./f", "f").end(), Some("itself")),
        ("link to a later entry", Tar::new().link("l", "f").file("f", "x").end(), Some("not there")),
        ("link in place of its target", Tar::new().file("d/f", "x").link("d", "d/f").end(), Some("d")),
        ("root as a link", Tar::new().symlink(".", "../../bait").file("f", "evil").end(), Some("root")),
        ("root as a link, slash", Tar::new().symlink("./", "../../bait").end(), Some("root")),
        ("root as a file", Tar::new().file("./.", "evil").end(), Some("root")),
        ("root as a hard link", Tar::new().file("f", "x").link(".", "f").end(), Some("root")),
        ("D4: whiteout .", Tar::new().file(".wh..", "").end(), Some("names nothing")),
        ("whiteout ..", Tar::new().file("a/.wh...", "").end(), Some("names nothing")),
        ("whiteout of nothing", Tar::new().file("a/.wh.", "").end(), Some("names nothing")),
        ("whiteout with a path", Tar::new().file(".wh.a/b", "").end(), Some("is a whiteout")),
        ("whiteout with a path up", Tar::new().file(".wh.../bait", "").end(), Some("is a whiteout")),
        ("whiteout that is a link", Tar::new().symlink(".wh.a", "../../bait").end(), Some("no file")),
        ("opaque that is a directory", Tar::new().directory("a/.wh..wh..opq").end(), Some("no file")),
        (
            "whiteout below a link",
            Tar::new().symlink("etc", "../../bait").file("etc/.wh.victim", "").end(),
            None,
        ),
        (
            "opaque below a link",
            Tar::new().symlink("etc", "../../bait").file("etc/.wh..wh..opq", "").end(),
            None,
        ),
        (
            "notes of aufs",
            Tar::new().directory(".wh..wh.plnk").file(".wh..wh.plnk/1", "x").file("f", "x").end(),
            None,
        ),
        ("D5: device 0:0", Tar::new().node("x", b'3', 0, 0).end(), Some("0:0")),
        ("symlink to nothing", Tar::new().symlink("x", "").end(), Some("target")),
    ]
}

#[test]
fn d1_d2_d4_names_and_links_stay_inside() {
    for (what, archive, expected) in corpus() {
        let scratch = Scratch::new();
        match (scratch.unpack(&archive), expected) {
            (Ok(_), None) => {}
            (Err(error), Some(part)) => {
                assert_eq!(error.code, Code::Archive, "{what}: {error}");
                assert!(error.to_string().contains(part), "{what}: {error} lacks {part:?}");
            }
            (answer, _) => panic!("{what}: {answer:?}"),
        }
        assert!(scratch.bait_is_safe(), "{what}");
    }
}

/// The same archives as layer 2, over a layer that already leads outside, packed, and two at once.
#[test]
fn d1_as_second_layer_and_twice_at_once() {
    for (what, archive, expected) in corpus() {
        let scratch = Scratch::new();
        let lower = scratch.directory("lower");
        for name in ["etc", "d", "a"] {
            symlink("../../bait", lower.join(name)).unwrap();
        }
        symlink("../../bait/f", lower.join("l")).unwrap();
        let other = scratch.directory("other");
        let lowers = super::Known(vec![open_directory(&lower)]);
        let options = Options { lowers: Some(&lowers), ..options() };
        let packed = gzip(&archive);
        let (first, second) = std::thread::scope(|scope| {
            let first = scope.spawn(|| scratch.unpack_with(&packed, &options).is_ok());
            let second = unpack(&packed[..], &open_directory(&other), &options).is_ok();
            (first.join().unwrap(), second)
        });
        assert_eq!((first, second), (expected.is_none(), expected.is_none()), "{what}");
        assert!(scratch.bait_is_safe(), "{what}");
        assert_eq!(fs::read_link(lower.join("etc")).unwrap().to_str(), Some("../../bait"));
    }
}

#[test]
fn d1_what_is_allowed_is_what_was_meant() {
    let scratch = Scratch::new();
    let archive = Tar::new().file("/bait/f", "one").symlink("l", "../../bait/f").file("l", "two");
    let archive = archive.symlink("d", "../../bait").directory("d").file("d/f", "three");
    scratch.unpack(&archive.end()).unwrap();
    assert_eq!(scratch.names(), ["bait", "bait/f", "d", "d/f", "l"]);
    assert_eq!(
        (scratch.read("bait/f"), scratch.read("l"), scratch.read("d/f")),
        ("one".into(), "two".into(), "three".into())
    );
    assert!(scratch.bait_is_safe());
}

/// D2: a file that is replaced is not written through its other name.
#[test]
fn d2_a_second_entry_does_not_write_through_a_link() {
    let scratch = Scratch::new();
    scratch.unpack(&Tar::new().file("a", "first").link("b", "a").file("b", "second").end()).unwrap();
    assert_eq!((scratch.read("a"), scratch.read("b")), ("first".into(), "second".into()));
}

/// D3: what two readers could read in two ways.
#[test]
fn d3_ambiguous_archives_are_refused() {
    let inner = Tar::new().file("smuggled", "evil").0;
    let two = [record("path", b"a"), record("path", b"b")].concat();
    let sized = |field: fn(&mut Header) -> &mut Header| {
        let mut header = Header::new(b"f", b'0', 4);
        field(&mut header);
        Tar::new().entry(&header, b"data").end()
    };
    let extended =
        |key: &str, value: &str| Tar::new().pax(&[(key, value.as_bytes())]).file("f", "data").end();
    let kind = |kind: u8| Tar::new().entry(&Header::new(b"f", kind, 0), b"").end();
    let with_size = |kind: u8| Tar::new().entry(&Header::new(b"f", kind, 512), &[b'x'; 512]).end();
    let whole = Tar::new().file("a", "data").file("b", "data").end();
    let mut bad_sum = whole.clone();
    bad_sum[0] ^= 1;
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("two paths", Tar::new().extension(b'x', &two).file("f", "").end(), "stands twice"),
        (
            "L and x",
            Tar::new().extension(b'L', b"a\0").pax(&[("path", b"b")]).file("f", "").end(),
            "and a PAX header",
        ),
        (
            "x and L",
            Tar::new().pax(&[("path", b"b")]).extension(b'L', b"a\0").file("f", "").end(),
            "and a PAX header",
        ),
        ("two L", Tar::new().extension(b'L', b"a\0").extension(b'L', b"b\0").file("f", "").end(), "two GNU"),
        ("two x", Tar::new().pax(&[("uid", b"1")]).pax(&[("gid", b"1")]).file("f", "").end(), "two PAX"),
        ("L with a tail", Tar::new().extension(b'L', b"a\0b\0").file("f", "").end(), "damaged GNU"),
        ("x at the end", Tar::new().pax(&[("path", b"a")]).end(), "between an entry's headers"),
        ("g between", Tar::new().pax(&[("path", b"a")]).extension(b'g', b"").file("f", "").end(), "global"),
        ("g with a path", Tar::new().extension(b'g', &record("path", b"a")).file("f", "").end(), "global"),
        ("g with a size", Tar::new().extension(b'g', &record("size", b"9")).file("f", "").end(), "global"),
        (
            "g with an attribute",
            Tar::new().extension(b'g', &record("SCHILY.xattr.user.a", b"9")).end(),
            "global",
        ),
        ("short record", Tar::new().extension(b'x', b"5 a=b\n").file("f", "").end(), "damaged PAX"),
        ("long record", Tar::new().extension(b'x', b"99 a=b\n").file("f", "").end(), "damaged PAX"),
        ("record of 0", Tar::new().extension(b'x', b"0 a=b\n").file("f", "").end(), "damaged PAX"),
        ("record without a key", Tar::new().extension(b'x', b"5 =b\n").file("f", "").end(), "damaged PAX"),
        ("no record", Tar::new().extension(b'x', b"nonsense").file("f", "").end(), "damaged PAX"),
        ("unknown record", extended("colour", "red"), "unknown PAX"),
        ("empty path", extended("path", ""), "empty"),
        ("size that is no number", extended("size", "4x"), "number out of range"),
        ("size over 2^63", extended("size", "9223372036854775808"), "size out of range"),
        ("negative PAX size", extended("size", "-4"), "number out of range"),
        ("uid that means none", extended("uid", "4294967295"), "id out of range"),
        ("uid over 2^32", extended("uid", "4294967296"), "id out of range"),
        ("another character set", extended("hdrcharset", "ISO-IR 8859"), "character set"),
        ("negative size", sized(|h| h.binary(124, 12, -4)), "negative size"),
        ("size beyond 2^63", sized(|h| h.binary(124, 12, 1 << 70)), "size out of range"),
        ("size of nonsense", sized(|h| h.put(124, b"9999")), "damaged number"),
        ("size with a tail", sized(|h| h.put(124, b"4\x00007")), "damaged number"),
        ("negative uid", sized(|h| h.binary(108, 8, -1)), "id out of range"),
        ("file with a slash", Tar::new().file("f/", "data").end(), "slash"),
        ("directory with data", with_size(b'5'), "has a size"),
        ("symlink with data", with_size(b'2'), "has a size"),
        ("hard link with data", with_size(b'1'), "has a size"),
        ("FIFO with data", with_size(b'6'), "has a size"),
        ("old sparse file", kind(b'S'), "sparse"),
        ("multi-volume", kind(b'M'), "multi-volume"),
        ("incremental", kind(b'D'), "incremental"),
        ("unknown type", kind(b'?'), "unknown type"),
        ("old PAX sparse", extended("GNU.sparse.numblocks", "1"), "old PAX form"),
        ("star", sized(|h| h.put(508, b"tar\0")), "star"),
        ("GNU with a prefix", sized(|h| h.gnu().put(345, b"../../bait")), "number"),
        ("no magic, device", sized(|h| h.put(257, &[0; 8]).put(156, b"3")), "without magic"),
        ("checksum", bad_sum, "checksum"),
        ("lone zeros", [&Tar::new().file("a", "").0[..], &[0; 512], &whole].concat(), "lone block"),
        ("no end mark", Tar::new().file("a", "data").0, "truncated"),
        ("half an end mark", [&Tar::new().file("a", "data").0[..], &[0; 512]].concat(), "truncated"),
        ("cut in data", Tar::new().file("a", "data").0[..514].to_vec(), "truncated"),
        ("cut in padding", Tar::new().file("a", "data").0[..600].to_vec(), "truncated"),
        ("cut in a header", whole[..1100].to_vec(), "truncated"),
        ("cut in an extension", Tar::new().pax(&[("path", b"a")]).0[..600].to_vec(), "truncated"),
        // PAX says more data than there is: the rest of the archive is data, nothing is smuggled.
        (
            "PAX size over the ustar size",
            Tar::new().pax(&[("size", b"9999")]).entry(&Header::new(b"f", b'0', 0), &inner).end(),
            "truncated",
        ),
    ];
    for (what, archive, part) in cases {
        let scratch = Scratch::new();
        let error = scratch.unpack(&archive).expect_err(what);
        assert_eq!(error.code, Code::Archive, "{what}: {error}");
        assert!(error.to_string().contains(part), "{what}: {error} lacks {part:?}");
        assert!(scratch.bait_is_safe(), "{what}");
        assert!(!scratch.layer().join("smuggled").exists(), "{what}");
    }
}

/// CVE-2025-62518: the size of the PAX header says where the next header is, so a nested archive stays data.
#[test]
fn d3_a_nested_archive_stays_data() {
    let inner = Tar::new().file("smuggled", "evil").end();
    let size = inner.len().to_string();
    let outer = Tar::new().pax(&[("size", size.as_bytes())]).entry(&Header::new(b"f", b'0', 0), &inner);
    let scratch = Scratch::new();
    scratch.unpack(&outer.file("g", "last").end()).unwrap();
    assert_eq!(scratch.names(), ["f", "g"]);
    assert_eq!(fs::read(scratch.layer().join("f")).unwrap(), inner);
}

#[test]
fn d3_the_rest_behind_the_end_is_only_hashed() {
    let archive = [Tar::new().file("a", "x").end(), Tar::new().file("b", "evil").end()].concat();
    let scratch = Scratch::new();
    let report = scratch.unpack(&archive).unwrap();
    assert_eq!(
        (scratch.names(), report.bytes, report.entries),
        (vec!["a".to_owned()], archive.len() as u64, 1)
    );
}

/// D5: the attributes and nodes that steer overlayfs.
#[test]
fn d5_attributes_pass_by_name_only() {
    let (version_2, version_3) = (capability(2, 20), capability(3, 24));
    let attribute = |name: &str, value: &[u8]| {
        let key = format!("SCHILY.xattr.{name}");
        Tar::new().pax(&[(&key, value)]).file("f", "x").pax(&[(&key, value)]).directory("d").end()
    };
    let refused = [
        ("trusted.overlay.redirect", &b"/etc"[..]),
        ("trusted.overlay.opaque", b"y"),
        ("trusted.overlay.metacopy", b""),
        ("trusted.x", b"x"),
        ("user.overlay.opaque", b"y"),
        ("user.overlay.redirect", b"/etc"),
        ("user.", b"x"),
        ("security.selinux", b"x"),
        ("security.ima", b"x"),
        ("security.capability", &version_3),
        ("security.capability", b"short"),
        ("system.nfs4_acl", b"x"),
    ];
    for (name, value) in refused {
        let scratch = Scratch::new();
        let report = scratch.unpack(&attribute(name, value)).unwrap();
        assert_eq!(report.skipped_xattrs, 2, "{name}");
        let seen = format!("{:?}", super::snapshot(&scratch.layer()));
        assert!(!seen.contains(name), "{name}: {seen}");
    }
    for (name, value) in [("user.mine", &b"x\ny\0z"[..]), ("security.capability", &version_2)] {
        if name.starts_with("security") && !is_root() {
            continue;
        }
        let scratch = Scratch::new();
        let report = scratch.unpack(&attribute(name, value)).unwrap();
        assert_eq!(report.skipped_xattrs, 0, "{name}");
        let all = super::snapshot(&scratch.layer());
        assert_eq!(
            all.values().filter(|line| line.contains(&format!("{name}=Ok({value:?})"))).count(),
            2,
            "{all:?}"
        );
    }
}

fn capability(version: u8, length: usize) -> Vec<u8> {
    let mut value = vec![0; length];
    (value[0], value[3], value[4]) = (1, version, 0x20);
    value
}

#[test]
fn d5_devices_are_made_only_when_asked_for() {
    let archive = Tar::new().node("null", b'3', 1, 3).node("disk", b'4', 8, 0).node("pipe", b'6', 0, 0).end();
    let scratch = Scratch::new();
    let report = scratch.unpack_with(&archive, &Options { devices: false, ..options() }).unwrap();
    assert_eq!((report.skipped_devices, scratch.names()), (2, vec!["pipe".to_owned()]));
    if is_root() {
        let scratch = Scratch::new();
        scratch.unpack(&archive).unwrap();
        let stat = fs::symlink_metadata(scratch.layer().join("disk")).unwrap();
        assert!(stat.file_type().is_block_device());
        assert_eq!((stat.rdev(), stat.mode() & 0o7777), (8 << 8, 0o644));
    }
}

/// D7: bounds, each with the name of its option.
#[test]
fn d7_bounds() {
    let too_large = |archive: &[u8], limits: Limits, subject: &str| {
        let scratch = Scratch::new();
        let error = scratch.unpack_with(archive, &Options { limits, ..options() }).expect_err(subject);
        assert_eq!((error.code, error.subject.as_str()), (Code::ImageLimit, subject), "{error}");
    };
    let standard = Limits::default();
    let many = (0..11).fold(Tar::new(), |tar, number| tar.file(&format!("f{number}"), "")).end();
    too_large(&many, Limits { entries: 10, ..standard }, "entries");
    Scratch::new()
        .unpack_with(&many, &Options { limits: Limits { entries: 11, ..standard }, ..options() })
        .unwrap();
    let globals = (0..11).fold(Tar::new(), |tar, _| tar.extension(b'g', b"")).end();
    too_large(&globals, Limits { entries: 10, ..standard }, "entries");
    let large = Tar::new().file("f", &"x".repeat(5000)).end();
    too_large(&large, Limits { inflated_bytes: 5000, ..standard }, "inflated_bytes");
    too_large(&gzip(&large), Limits { inflated_bytes: 5000, ..standard }, "inflated_bytes");
    let rest = [&Tar::new().file("f", "").end()[..], &vec![0; 1 << 20]].concat();
    too_large(&gzip(&rest), Limits { inflated_bytes: 500_000, ..standard }, "inflated_bytes");
    let header = Tar::new().pax(&[("comment", &vec![b'x'; 1 << 20])]).file("f", "").end();
    too_large(&header, standard, "extension");
    // A header that only says that it is large is refused before anything is reserved for it.
    let lie = Tar::new().entry(Header::new(b"extension", b'x', 0).binary(124, 12, 1 << 60), b"").end();
    too_large(&lie, standard, "extension");
    let name = "n".repeat(700_000);
    let both =
        Tar::new().extension(b'L', name.as_bytes()).extension(b'K', name.as_bytes()).symlink("f", "x").end();
    too_large(&both, standard, "extension");
    let attribute = Tar::new().pax(&[("SCHILY.xattr.user.a", &vec![b'x'; 65_537])]).file("f", "").end();
    refused(&Scratch::new(), &attribute, Code::Archive, "64 KiB");
}

/// D7: 80 MiB of zeros, packed to a hundredth (the test's packer is a fast one; the best is 1032:1).
#[test]
fn d7_a_bomb_by_ratio() {
    let mut archive = Header::new(b"zeros", b'0', 80 << 20).sealed().to_vec();
    archive.resize((80 << 20) + 512 + 1024, 0);
    let bomb = gzip(&archive);
    let scratch = Scratch::new();
    let limits = Limits { ratio: 90, ..Limits::default() };
    let error = scratch.unpack_with(&bomb, &Options { limits, ..options() }).expect_err("bomb");
    assert_eq!((error.code, error.subject.as_str()), (Code::ImageLimit, "ratio"));
    // It ended early: the first 64 MiB are free, and little more came.
    let written = fs::metadata(scratch.layer().join("zeros")).unwrap().len();
    assert!(written < 68 << 20, "{written}");
}

/// D7: each link to a lower layer is a copy, so these have a bound too.
#[test]
fn d7_copies_of_lower_files_are_bounded() {
    let scratch = Scratch::new();
    let lower = scratch.directory("lower");
    fs::write(lower.join("big"), vec![b'x'; 100_000]).unwrap();
    let archive = (0..20).fold(Tar::new(), |tar, number| tar.link(&format!("l{number}"), "big")).end();
    let lowers = super::Known(vec![open_directory(&lower)]);
    let limits = Limits { inflated_bytes: 1_000_000, ..Limits::default() };
    let error = scratch
        .unpack_with(&archive, &Options { limits, lowers: Some(&lowers), ..options() })
        .expect_err("copies");
    assert_eq!((error.code, error.subject.as_str()), (Code::ImageLimit, "inflated_bytes"));
}

/// D8: digests and sizes.
#[test]
fn d8_digests_and_sizes() {
    let archive = Tar::new().file("f", "x").end();
    let packed = gzip(&archive);
    let report = Scratch::new().unpack(&packed).unwrap();
    let right = Options {
        expected_digest: Some(report.blob_digest),
        expected_diff_id: Some(report.diff_id),
        expected_size: Some(packed.len() as u64),
        ..options()
    };
    assert_eq!(Scratch::new().unpack_with(&packed, &right).unwrap(), report);
    assert_eq!(Scratch::new().unpack(&archive).unwrap().diff_id, report.diff_id);
    let other = Some(Digest::from([7; 32]));
    let wrong = [
        ("the blob's digest", Options { expected_digest: other, ..right }),
        ("inflated layer", Options { expected_diff_id: other, ..right }),
        ("longer", Options { expected_size: Some(packed.len() as u64 - 1), ..right }),
        ("size", Options { expected_size: Some(packed.len() as u64 + 1), ..right }),
    ];
    for (what, options) in wrong {
        let error = Scratch::new().unpack_with(&packed, &options).expect_err(what);
        assert_eq!(error.code, Code::Digest, "{error}");
        assert!(error.message.contains(what), "{error}");
    }
    // An archive may lack its end mark only where a digest says that it is whole.
    let open_end = Tar::new().file("f", "x").0;
    let diff_id = super::sha256(&open_end);
    Scratch::new().unpack_with(&open_end, &Options { expected_diff_id: Some(diff_id), ..options() }).unwrap();
    // Nor need its last file be padded, but whole it must be.
    let file = |length: usize| Tar::new().file("a", "data").0[..length].to_vec();
    for (length, answer) in [(516, true), (515, false), (517, false)] {
        let archive = file(length);
        let expected_diff_id = Some(super::sha256(&archive));
        let scratch = Scratch::new();
        let unpacked = scratch.unpack_with(&archive, &Options { expected_diff_id, ..options() });
        assert_eq!(unpacked.is_ok(), answer, "{length}");
    }
}

#[test]
fn d8_a_digest_has_one_spelling() {
    let hex = "ab".repeat(32);
    let digest = Digest::parse(&format!("sha256:{hex}")).unwrap();
    assert_eq!(digest.to_string(), format!("sha256:{hex}"));
    let short = &hex[2..];
    let upper = hex.to_uppercase();
    for text in ["", "sha256:", "sha256:../../x", &hex, &format!("md5:{hex}"), &format!("sha256:{short}")]
        .into_iter()
        .chain([format!("sha256:{upper}").as_str(), &format!("SHA256:{hex}"), &format!("sha256:{hex}\n")])
    {
        assert_eq!(Digest::parse(text).expect_err(text).code, Code::Digest);
    }
}

#[test]
fn gzip_streams() {
    let archive = Tar::new().file("f", "x").end();
    let packed = gzip(&archive);
    let whole = Scratch::new().unpack(&packed).unwrap();
    // Members one after the other, empty ones among them, are one stream (RFC 1952, 2.2).
    let parts: Vec<u8> = [&archive[..300], b"", &archive[300..700], &archive[700..]].map(gzip).concat();
    let scratch = Scratch::new();
    assert_eq!(scratch.unpack(&parts).unwrap().diff_id, whole.diff_id);
    assert_eq!(scratch.read("f"), "x");
    let mut flipped = packed.clone();
    let last = flipped.len() - 6;
    flipped[last] ^= 1;
    for (what, blob) in [
        ("too early", packed[..packed.len() - 3].to_vec()),
        ("damaged", flipped),
        ("behind", [&packed[..], b"tail"].concat()),
        ("behind", [&packed[..], &[0; 512]].concat()),
        ("too early", [&packed[..], &[0x1f]].concat()),
        ("empty", Vec::new()),
    ] {
        refused(&Scratch::new(), &blob, Code::Archive, what);
    }
    for (name, magic) in [("xz", &b"\xfd7zXZ\0"[..]), ("bzip2", b"BZh9")] {
        refused(&Scratch::new(), magic, Code::Unsupported, name);
    }
}

/// Names reach terminals and logs: nothing in them may act there.
#[test]
fn an_error_shows_no_control_characters() {
    let archive = Tar::new().file("\x1b[31m\n/../evil", "x").end();
    let error = Scratch::new().unpack(&archive).expect_err("..");
    assert!(!error.to_string().contains(['\x1b', '\n']), "{error:?}");
    assert!(error.subject.starts_with("\\u{1b}[31m\\n"), "{error:?}");
}

/// Damaged variants of every archive above: no panic, no bait, whatever the answer.
#[test]
fn mutations_never_touch_the_bait() {
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below as u64) as usize
    };
    let limits = Limits { inflated_bytes: 1 << 20, ..Limits::default() };
    let scratch = Scratch::new();
    let mut good = 0;
    for (what, archive, _) in corpus() {
        for round in 0..12 {
            let mut bad = archive.clone();
            for _ in 0..=round % 4 {
                let at = random(bad.len());
                bad[at] = if round % 2 == 0 { random(256) as u8 } else { b"./0x25\0\x80LKgS"[random(12)] };
                // With its checksum right again, the damage gets further than the first look.
                let block = at / 512 * 512;
                let mut header = [0; 512];
                header.copy_from_slice(&bad[block..block + 512]);
                if &header[257..262] == b"ustar" {
                    bad[block..block + 512].copy_from_slice(&Header(header).sealed());
                }
            }
            let name = format!("m{}", random(usize::MAX));
            let options = Options { limits, devices: false, ..options() };
            match unpack(&bad[..], &open_directory(&scratch.directory(&name)), &options) {
                Ok(_) => good += 1,
                // A panic of the reading thread would be one too.
                Err(error) => assert_ne!(error.code, Code::Internal, "{what}: {error}"),
            }
        }
        assert!(scratch.bait_is_safe(), "{what}");
    }
    assert!(good > 0, "every mutation was refused, so none went far");
}
