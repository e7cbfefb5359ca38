//! Unpacks a layer: `cargo run --release --example unpack -- <blob> <directory> [--remove]`. For measuring.

use caisson_core::archive::{Options, Owner, remove_tree, unpack};
use caisson_sys::Cwd;
use caisson_sys::file::{open, openat2};
use std::ffi::CString;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let (Some(blob), Some(directory)) = (words.next(), words.next()) else {
        return Err("usage: unpack <blob> <directory> [--remove]".into());
    };
    std::fs::create_dir(&directory)?;
    let open = |path: &str| {
        let path = CString::new(path)?;
        openat2(Cwd, &path, open::RDONLY | open::DIRECTORY, 0, 0).map_err(|errno| errno.to_string().into())
    };
    let destination = open(&directory).map_err(|error: Box<dyn std::error::Error>| error)?;
    let root = nix::unistd::geteuid().is_root();
    let owner = if root { Owner::Archived } else { Owner::Caller };
    let options = Options { owner, userxattr: !root, devices: root, ..Options::default() };
    let report = unpack(std::fs::File::open(blob)?, &destination, &options)?;
    if words.next().is_some() {
        let path = std::path::absolute(&directory)?;
        let (parent, name) = (path.parent().ok_or("no parent")?, path.file_name().ok_or("no name")?);
        let parent = open(parent.to_str().ok_or("no text")?)?;
        remove_tree(&parent, &CString::new(name.as_encoded_bytes())?)?;
    }
    let mut out = std::io::stdout();
    std::io::Write::write_fmt(&mut out, format_args!("{report:?}\n"))?;
    Ok(())
}
