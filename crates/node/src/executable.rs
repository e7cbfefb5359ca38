//! The executable's sealed copy: made once a process, so that no container can reach the installed file through
//! /proc/PID/exe (CVE-2019-5736), and no swap of that file changes what is started.
//!
//! For root the installed file must be one that nobody else may write, nor replace (security.md E8): a program in an
//! ordinary user's node_modules would be that user's way to be root. It is opened once; what is checked is what is copied.

use caisson_core::off::off;
use caisson_core::{At, Code, Error, Result, Stage, trust};
use caisson_sys::{Fd, file};
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::{Mutex, PoisonError};

static SEALED: Mutex<Option<(String, Fd)>> = Mutex::new(None);

/// A descriptor of the sealed copy of the executable at `path`. `javascript` is a file of the package's own code, which
/// runs with our rights already: its owner is trusted as root is.
pub(crate) fn sealed(path: &str, javascript: &str) -> Result<Fd> {
    let mut known = SEALED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((sealed_path, copy)) = known.as_ref()
        && sealed_path == path
    {
        return copy.duplicate(3).at(Stage::SHIM, path);
    }
    let mut installed = File::open(path).at(Stage::SHIM, path)?;
    if nix::unistd::geteuid().is_root() && !off("install_check") {
        check_install(&installed, path, javascript)?;
    }
    if off("seal") {
        return Ok(Fd::from(OwnedFd::from(installed)));
    }
    let mut magic = [0; 4];
    let read = installed.read_at(&mut magic, 0).at(Stage::SHIM, path)?;
    if magic.get(..read) != Some(b"\x7fELF") {
        return Err(Error::new(Code::RuntimeMismatch, Stage::SHIM, path, "is not an executable"));
    }
    let copy = file::memfd(c"caisson-runtime", true).at(Stage::SHIM, path)?;
    let mut target = File::from(OwnedFd::from(copy));
    // From file to file within the kernel.
    io::copy(&mut installed, &mut target).at(Stage::SHIM, path)?;
    let copy = Fd::from(OwnedFd::from(target));
    file::seal(&copy).at(Stage::SHIM, path)?;
    let duplicate = copy.duplicate(3).at(Stage::SHIM, path)?;
    *known = Some((path.to_owned(), copy));
    Ok(duplicate)
}

/// The file, and each directory on the way to it: owned by root or by the owner of the package's JavaScript, and for
/// nobody else to write. A sticky directory may be: what stands in it can be removed by its owner alone.
fn check_install(installed: &File, path: &str, javascript: &str) -> Result<()> {
    let owners = [fs::metadata(javascript).at(Stage::SHIM, javascript)?.uid()];
    let real = fs::canonicalize(path).at(Stage::SHIM, path)?;
    let checked = trust::check(&real, &installed.metadata().at(Stage::SHIM, path)?, &owners);
    checked.and_then(|()| trust::check_way(&real, &owners)).map_err(|error| {
        let message = format!("{}. Install caisson as root, or fix the rights", error.message);
        Error { subject: path.to_owned(), message, ..error }
    })
}
