//! The executable's sealed copy: made once a process, so that no container can reach the installed file through
//! /proc/PID/exe (CVE-2019-5736), and no swap of that file changes what is started.

use caisson_core::{At, Error, Result, Stage};
use caisson_sys::{Fd, file};
use std::sync::{Mutex, PoisonError};

static SEALED: Mutex<Option<(String, Fd)>> = Mutex::new(None);

/// A descriptor of the sealed copy of the executable at `path`.
pub(crate) fn sealed(path: &str) -> Result<Fd> {
    let mut known = SEALED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((sealed_path, copy)) = known.as_ref()
        && sealed_path == path
    {
        return copy.duplicate(3).at(Stage::SHIM, path);
    }
    let bytes = std::fs::read(path).at(Stage::SHIM, path)?;
    if !bytes.starts_with(b"\x7fELF") {
        return Err(Error::new(
            caisson_core::Code::RuntimeMismatch,
            Stage::SHIM,
            path,
            "is not an executable",
        ));
    }
    let copy = file::memfd(c"caisson-runtime", true).at(Stage::SHIM, path)?;
    file::write_all(&copy, &bytes).at(Stage::SHIM, path)?;
    file::seal(&copy).at(Stage::SHIM, path)?;
    let duplicate = copy.duplicate(3).at(Stage::SHIM, path)?;
    *known = Some((path.to_owned(), copy));
    Ok(duplicate)
}
