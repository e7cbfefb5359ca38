//! With a mitigation off, the attack must work: else its test above proves nothing. Each runs in a process of its own,
//! since CAISSON_OFF counts for a whole process.

use super::build::{Tar, gzip};
use super::{Scratch, is_root, options, sha256};
use crate::archive::{Limits, Options};
use std::process::Command;

/// Names the attack that a child of the test below makes.
const ATTACK: &str = "CAISSON_ATTACK";

/// The attacks, and the mitigations without which each works: it panics where it does not.
const ATTACKS: &[(&str, &str, fn())] = &[
    ("a_file_through_a_link", "nofollow", a_file_through_a_link),
    ("a_whiteout_removes_the_bait", "nofollow,whiteout", a_whiteout_removes_the_bait),
    ("a_damaged_archive_changes_the_bait", "nofollow", a_damaged_archive_changes_the_bait),
    ("a_whiteout_removes_its_own_layers_file", "whiteout", a_whiteout_removes_its_own_layers_file),
    ("an_overlay_attribute_gets_through", "xattr", an_overlay_attribute_gets_through),
    ("a_device_0_0_gets_through", "xattr", a_device_0_0_gets_through),
    (
        "a_link_that_comes_and_goes_is_packed_as_what_it_leads_to",
        "nofollow",
        a_link_that_comes_and_goes_is_packed_as_what_it_leads_to,
    ),
    ("a_bomb_gets_through", "limits", a_bomb_gets_through),
    ("a_wrong_digest_gets_through", "verify", a_wrong_digest_gets_through),
];

/// Makes one of the attacks in a child; answers whether it worked.
fn works(attack: &str, off: &str) -> bool {
    let test = "archive::tests::off::each_attack_works_only_with_its_mitigation_off";
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--test-threads=1"]);
    let output = command.env(ATTACK, attack).env("CAISSON_OFF", off).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("running 1 test"), "{text}");
    output.status.success()
}

#[test]
fn each_attack_works_only_with_its_mitigation_off() {
    if let Ok(wanted) = std::env::var(ATTACK) {
        let (_, _, attack) = ATTACKS.iter().find(|(attack, ..)| *attack == wanted).expect("an attack");
        return attack();
    }
    for (attack, mitigation, _) in ATTACKS {
        if *attack == "an_overlay_attribute_gets_through" && !is_root() {
            continue;
        }
        assert!(!works(attack, ""), "{attack} works with everything on");
        assert!(works(attack, mitigation), "{attack} fails with {mitigation} off");
    }
}

fn a_file_through_a_link() {
    let scratch = Scratch::new();
    let _ = scratch.unpack(&Tar::new().symlink("d", "../../bait").file("d/f", "evil").end());
    assert!(!scratch.bait_is_safe());
}

fn a_damaged_archive_changes_the_bait() {
    assert!(super::mutated::run(300).escaped.is_some());
}

fn a_whiteout_removes_the_bait() {
    let scratch = Scratch::new();
    let _ = scratch.unpack(&Tar::new().symlink("etc", "../../bait").file("etc/.wh.victim", "").end());
    assert!(!scratch.bait_is_safe());
}

fn a_whiteout_removes_its_own_layers_file() {
    let scratch = Scratch::new();
    scratch.unpack(&Tar::new().file("f", "kept").file(".wh.f", "").end()).unwrap();
    assert!(std::fs::read(scratch.layer().join("f")).is_err());
}

fn an_overlay_attribute_gets_through() {
    let scratch = Scratch::new();
    let archive = Tar::new().pax(&[("SCHILY.xattr.trusted.overlay.redirect", b"/etc")]).directory("d").end();
    scratch.unpack(&archive).unwrap();
    assert!(format!("{:?}", super::snapshot(&scratch.layer())).contains("trusted.overlay.redirect"));
}

fn a_device_0_0_gets_through() {
    let scratch = Scratch::new();
    scratch
        .unpack_with(&Tar::new().node("x", b'3', 0, 0).end(), &Options { devices: true, ..options() })
        .unwrap();
}

fn a_bomb_gets_through() {
    let limits = Limits { inflated_bytes: 1000, entries: 1, ..Limits::default() };
    let archive = gzip(&Tar::new().file("a", &"x".repeat(5000)).file("b", "").end());
    Scratch::new().unpack_with(&archive, &Options { limits, ..options() }).unwrap();
}

fn a_wrong_digest_gets_through() {
    let options = Options { expected_digest: Some(sha256(b"other")), expected_size: Some(1), ..options() };
    Scratch::new().unpack_with(&Tar::new().file("a", "x").end(), &options).unwrap();
}

fn a_link_that_comes_and_goes_is_packed_as_what_it_leads_to() {
    assert!(super::pack::race(std::time::Duration::from_secs(4)));
}
