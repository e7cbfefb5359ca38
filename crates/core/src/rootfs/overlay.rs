//! A chain of layers as one mount. A layer is a directory here; another form would yield its mount behind the same
//! function, and no caller would know.

use crate::error::{At, Error, Result, Stage};
use caisson_sys::{Errno, Fd, mount};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};

/// The most lowers that the kernel takes in one overlay.
pub const MAX_LOWERS: usize = 500;

fn path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Error::invalid("rootfs", "holds a NUL byte"))
}

/// A detached overlay of `lowers`, the topmost first, and at most one writable layer: the directory `upper`, with
/// `work` beside it on the same file system.
///
/// The upper of a throwaway container is `volatile`: nothing is synced for it, neither at an fsync inside nor at the end.
///
/// # Errors
/// With the kernel's own words where it has some: ENOENT for a lower that is not there, EINVAL for an upper whose file
/// system cannot be one.
pub fn overlay(lowers: &[&Path], upper: Option<(&Path, &Path)>) -> Result<Fd> {
    let subject = lowers.first().map(|lower| lower.to_string_lossy().into_owned()).unwrap_or_default();
    if lowers.len() > MAX_LOWERS {
        return Err(Error::invalid("rootfs", format!("has more than {MAX_LOWERS} layers")));
    }
    let mut form = Form::known();
    loop {
        let context = mount::fsopen(c"overlay").at(Stage::SOURCE, "overlay")?;
        match configure(&context, lowers, upper, form) {
            Ok(()) => {}
            Err(Failure::Kernel(errno)) => return Err(explain(&context, errno, subject)),
            Err(Failure::Ours(error)) => return Err(error),
        }
        // The context is consumed by the mount; its words are read before, so a failure here has the errno alone.
        match context.mount(0) {
            // Before 6.5 the context takes every word, and says only here that it knew one of them not.
            Err(Errno::EINVAL) if form == Form::Unknown => form = Form::Joined,
            Ok(mounted) => {
                form.learnt();
                return Ok(mounted);
            }
            answer => return answer.at(Stage::SOURCE, subject),
        }
    }
}

/// How this kernel takes lowers: one by one since 6.5, before that in one option string, a page at most, with escapes.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Form {
    Unknown,
    Appended,
    Joined,
}

static FORM: AtomicU8 = AtomicU8::new(Form::Unknown as u8);

impl Form {
    fn known() -> Self {
        match FORM.load(Ordering::Relaxed) {
            1 => Self::Appended,
            2 => Self::Joined,
            _ => Self::Unknown,
        }
    }

    /// An overlay was made in this form, or appending in one that was not known yet.
    fn learnt(self) {
        let form = if self == Self::Joined { self } else { Self::Appended };
        FORM.store(form as u8, Ordering::Relaxed);
    }
}

enum Failure {
    Kernel(Errno),
    Ours(Error),
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Kernel(errno)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

fn configure(
    context: &mount::Context,
    lowers: &[&Path],
    upper: Option<(&Path, &Path)>,
    form: Form,
) -> Result<(), Failure> {
    // What df and mountinfo show as the device.
    context.string(c"source", c"overlay")?;
    if form == Form::Joined {
        context.string(c"lowerdir", &joined(lowers)?)?;
    } else {
        for lower in lowers {
            context.string(c"lowerdir+", &path(lower)?)?;
        }
    }
    // One lower and no upper is no overlay: the kernel wants two.
    if let Some((upper, work)) = upper {
        context.string(c"upperdir", &path(upper)?)?;
        context.string(c"workdir", &path(work)?)?;
        context.flag(c"volatile")?;
    }
    context.string(c"redirect_dir", c"off")?;
    context.string(c"metacopy", c"off")?;
    Ok(())
}

fn joined(lowers: &[&Path]) -> Result<CString> {
    let mut text = Vec::new();
    for lower in lowers {
        if !text.is_empty() {
            text.push(b':');
        }
        for byte in lower.as_os_str().as_bytes() {
            if matches!(byte, b':' | b'\\' | b',') {
                text.push(b'\\');
            }
            text.push(*byte);
        }
    }
    if text.len() > 4000 {
        return Err(Error::invalid(
            "rootfs",
            "this kernel (before 6.5) takes no chain of layers with paths this long",
        ));
    }
    CString::new(text).map_err(|_| Error::invalid("rootfs", "holds a NUL byte"))
}

fn explain(context: &mount::Context, errno: Errno, subject: String) -> Error {
    let mut room = [0u8; 256];
    let words = String::from_utf8_lossy(context.complaint(&mut room)).trim().to_owned();
    let error = Err::<(), _>(errno).at(Stage::SOURCE, subject).err();
    let mut error = error.unwrap_or_else(|| Error::invalid("rootfs", "overlay"));
    if !words.is_empty() {
        error.message = format!("{}: {words}", error.message);
    }
    error
}
