//! Removing trees: deep, wide, linked, locked.

use super::{Scratch, open_directory};
use crate::archive::remove_tree;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

#[test]
fn links_are_removed_and_not_followed() {
    let scratch = Scratch::new();
    let layer = scratch.layer();
    fs::create_dir_all(layer.join("t/a/b")).unwrap();
    symlink("../../../bait", layer.join("t/bait")).unwrap();
    symlink("../../../../bait/f", layer.join("t/a/f")).unwrap();
    symlink("../../bait", layer.join("direct")).unwrap();
    let parent = open_directory(&layer);
    remove_tree(&parent, c"t").unwrap();
    remove_tree(&parent, c"direct").unwrap();
    remove_tree(&parent, c"absent").unwrap();
    assert!(scratch.names().is_empty() && scratch.bait_is_safe());
}

#[test]
fn only_a_name_is_removed() {
    let scratch = Scratch::new();
    for name in [c"", c".", c"..", c"../../bait", c"layer/x", c"/"] {
        assert!(remove_tree(&open_directory(&scratch.path.join("store")), name).is_err(), "{name:?}");
    }
    assert!(scratch.bait_is_safe() && scratch.layer().exists());
}

/// Deeper than any path, and than the descriptors that a process may have.
#[test]
fn depth_needs_no_descriptors() {
    let scratch = Scratch::new();
    let layer = scratch.layer();
    let top = open_directory(&layer);
    let mode = nix::sys::stat::Mode::S_IRWXU;
    nix::sys::stat::mkdirat(&top, c"t", mode).unwrap();
    let mut here = caisson_sys::file::openat2(&top, c"t", caisson_sys::file::open::PATH, 0, 0).unwrap();
    for _ in 0..3000 {
        nix::sys::stat::mkdirat(&here, c"deep", mode).unwrap();
        nix::sys::stat::mkdirat(&here, c"side", mode).unwrap();
        here = caisson_sys::file::openat2(&here, c"deep", caisson_sys::file::open::PATH, 0, 0).unwrap();
    }
    remove_tree(&top, c"t").unwrap();
    assert!(scratch.names().is_empty());
}

#[test]
fn width_is_taken_in_parts() {
    let scratch = Scratch::new();
    let wide = scratch.layer().join("wide");
    fs::create_dir(&wide).unwrap();
    for number in 0..9000 {
        fs::File::create(wide.join(number.to_string())).unwrap();
    }
    remove_tree(&open_directory(&scratch.layer()), c"wide").unwrap();
    assert!(!wide.exists());
}

#[test]
fn directories_without_rights_are_no_obstacle() {
    let scratch = Scratch::new();
    let locked = scratch.layer().join("locked");
    fs::create_dir_all(locked.join("inner")).unwrap();
    fs::write(locked.join("inner/f"), "x").unwrap();
    for path in [locked.join("inner"), locked.clone()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o0)).unwrap();
    }
    remove_tree(&open_directory(&scratch.layer()), c"locked").unwrap();
    assert!(!locked.exists());
}
