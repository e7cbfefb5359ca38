//! With a mitigation off, the attack must work: else its test above proves nothing. Each runs in a process of its own,
//! since CAISSON_OFF counts for a whole process.

use super::build::{Tar, gzip};
use super::{Scratch, is_root, options, sha256};
use crate::archive::{Limits, Options};
use std::process::Command;

/// Runs one of the attacks below in a child of this test; answers whether it worked.
fn works(attack: &str, off: &str) -> bool {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("archive::tests::off::{attack}"), "--ignored", "--test-threads=1"]);
    let output = command.env("CAISSON_OFF", off).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("running 1 test"), "{text}");
    output.status.success()
}

#[test]
fn each_attack_works_only_with_its_mitigation_off() {
    for (attack, mitigation) in [
        ("a_file_through_a_link", "nofollow"),
        ("a_whiteout_removes_the_bait", "nofollow,whiteout"),
        ("a_damaged_archive_changes_the_bait", "nofollow"),
        ("a_whiteout_removes_its_own_layers_file", "whiteout"),
        ("an_overlay_attribute_gets_through", "xattr"),
        ("a_device_0_0_gets_through", "xattr"),
        ("a_link_that_comes_and_goes_is_packed_as_what_it_leads_to", "nofollow"),
        ("a_bomb_gets_through", "limits"),
        ("a_wrong_digest_gets_through", "verify"),
    ] {
        if attack == "an_overlay_attribute_gets_through" && !is_root() {
            continue;
        }
        assert!(!works(attack, ""), "{attack} works with everything on");
        assert!(works(attack, mitigation), "{attack} fails with {mitigation} off");
    }
}

#[test]
#[ignore = "an attack, run by the test above"]
fn a_file_through_a_link() {
    let scratch = Scratch::new();
    let _ = scratch.unpack(&Tar::new().symlink("d", "../../bait").file("d/f", "evil").end());
    assert!(!scratch.bait_is_safe());
}

#[test]
#[ignore = "an attack, run by the test above"]
fn a_damaged_archive_changes_the_bait() {
    assert!(super::mutated::run(300).escaped.is_some());
}

#[test]
#[ignore = "an attack, run by the test above"]
fn a_whiteout_removes_the_bait() {
    let scratch = Scratch::new();
    let _ = scratch.unpack(&Tar::new().symlink("etc", "../../bait").file("etc/.wh.victim", "").end());
    assert!(!scratch.bait_is_safe());
}

#[test]
#[ignore = "an attack, run by the test above"]
fn a_whiteout_removes_its_own_layers_file() {
    let scratch = Scratch::new();
    scratch.unpack(&Tar::new().file("f", "kept").file(".wh.f", "").end()).unwrap();
    assert!(std::fs::read(scratch.layer().join("f")).is_err());
}

#[test]
#[ignore = "an attack, run by the test above"]
fn an_overlay_attribute_gets_through() {
    let scratch = Scratch::new();
    let archive = Tar::new().pax(&[("SCHILY.xattr.trusted.overlay.redirect", b"/etc")]).directory("d").end();
    scratch.unpack(&archive).unwrap();
    assert!(format!("{:?}", super::snapshot(&scratch.layer())).contains("trusted.overlay.redirect"));
}

#[test]
#[ignore = "an attack, run by the test above"]
fn a_device_0_0_gets_through() {
    let scratch = Scratch::new();
    scratch
        .unpack_with(&Tar::new().node("x", b'3', 0, 0).end(), &Options { devices: true, ..options() })
        .unwrap();
}

#[test]
#[ignore = "an attack, run by the test above"]
fn a_bomb_gets_through() {
    let limits = Limits { inflated_bytes: 1000, entries: 1, ..Limits::default() };
    let archive = gzip(&Tar::new().file("a", &"x".repeat(5000)).file("b", "").end());
    Scratch::new().unpack_with(&archive, &Options { limits, ..options() }).unwrap();
}

#[test]
#[ignore = "an attack, run by the test above"]
fn a_wrong_digest_gets_through() {
    let options = Options { expected_digest: Some(sha256(b"other")), expected_size: Some(1), ..options() };
    Scratch::new().unpack_with(&Tar::new().file("a", "x").end(), &options).unwrap();
}

#[test]
#[ignore = "an attack, run by the test above"]
fn a_link_that_comes_and_goes_is_packed_as_what_it_leads_to() {
    assert!(super::pack::race(std::time::Duration::from_secs(4)));
}
