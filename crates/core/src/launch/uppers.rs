//! The writable layers of a container: made at its start, gone at its end.

use super::Made;
use crate::channel::Launch;
use crate::error::{At, Code, Error, Result, Stage};
use crate::rootfs::overlay;
use caisson_sys::{Errno, Fd};
use std::ffi::CString;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// The root's overlays, each with an upper of its own. `mapped`: in a user namespace.
pub(super) fn make(launch: &Launch, made: &mut Made, mapped: bool) -> Result<Vec<(CString, Fd)>> {
    let at = || made.data.to_string_lossy().into_owned();
    fs::create_dir(&made.data).at(Stage::SOURCE, at())?;
    let mut overlays = Vec::with_capacity(launch.rootfs.len());
    for (index, layered) in launch.rootfs.iter().enumerate() {
        let lowers: Vec<&Path> = layered.lowers.iter().map(Path::new).collect();
        let top = lowers.first().ok_or_else(|| Error::invalid("rootfs", "has no layer"))?;
        let (upper, work) = (made.data.join(name(index)), made.data.join(format!("w{index}")));
        fs::create_dir(&upper).at(Stage::SOURCE, upper.to_string_lossy())?;
        fs::create_dir(&work).at(Stage::SOURCE, work.to_string_lossy())?;
        made.uppers = index + 1;
        // The root directory of the whole is the upper's: it looks as the topmost layer's does.
        let known = fs::metadata(top).map_err(|error| missing_rootfs(top, &error))?;
        if !known.is_dir() {
            return Err(Error::new(
                Code::MountSource,
                Stage::SOURCE,
                top.to_string_lossy(),
                "is not a directory",
            ));
        }
        fs::set_permissions(&upper, fs::Permissions::from_mode(known.mode() & 0o7777))
            .at(Stage::SOURCE, upper.to_string_lossy())?;
        if (known.uid(), known.gid()) != (0, 0) {
            match std::os::unix::fs::chown(&upper, Some(known.uid()), Some(known.gid())) {
                // Somebody's whom this user namespace does not have.
                Err(error) if mapped && error.raw_os_error() == Some(Errno::EINVAL.raw()) => {}
                answer => answer.at(Stage::SOURCE, upper.to_string_lossy())?,
            }
        }
        let target = CString::new(layered.target.as_str());
        let target = target.map_err(|_| Error::invalid("rootfs", "holds a NUL byte"))?;
        let overlay = overlay::overlay(&lowers, Some((&upper, &work)), mapped)?;
        overlays.push((target, overlay));
    }
    Ok(overlays)
}

/// The directory of a writable layer, in the container's own.
pub(super) fn name(index: usize) -> String {
    format!("u{index}")
}

/// Whether the writable layers held nothing and are gone: the common end of a short run, a few rmdir instead of a
/// walk. The names are overlayfs's own, for an upper that is volatile.
pub(super) fn remove_empty(made: &Made) -> bool {
    const MADE_BY_OVERLAY: [&str; 3] = ["work/incompat/volatile", "work/incompat", "work"];
    (0..made.uppers).all(|index| {
        let work = made.data.join(format!("w{index}"));
        fs::remove_dir(made.data.join(name(index))).is_ok()
            && fs::remove_file(work.join("work/incompat/volatile/dirty")).is_ok()
            && MADE_BY_OVERLAY.iter().all(|name| fs::remove_dir(work.join(name)).is_ok())
            && fs::remove_dir(work).is_ok()
    }) && fs::remove_dir(&made.data).is_ok()
}

fn missing_rootfs(path: &Path, error: &std::io::Error) -> Error {
    let message = if error.kind() == std::io::ErrorKind::NotFound {
        "no such file or directory".to_owned()
    } else {
        error.to_string()
    };
    let failure = Error::new(Code::MountSource, Stage::SOURCE, path.to_string_lossy(), message);
    Error { errno: error.raw_os_error(), ..failure }
}
