//! A chain of layers as one mount. A layer is a directory here; another form would yield its mount behind the same
//! function, and no caller would know.

use crate::error::{At, Error, Result, Stage};
use caisson_sys::file::{open, openat2};
use caisson_sys::{Cwd, Errno, Fd, mount};
use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;

/// The most lowers that the kernel takes in one overlay.
pub const MAX_LOWERS: usize = 500;

/// The most bytes of one value that fsconfig(2) takes.
const MAX_VALUE: usize = 255;

fn path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Error::invalid("rootfs", "holds a NUL byte"))
}

/// A detached overlay of `lowers`, the topmost first, and at most one writable layer: the directory `upper`, with
/// `work` beside it on the same file system.
///
/// With `userxattr` its marks are `user.overlay.*`, for a user namespace.
///
/// The upper of a throwaway container is `volatile`: nothing is synced for it, neither at an fsync inside nor at the end.
///
/// The caller must be single-threaded: on kernels before 6.7 its working directory is moved and put back.
///
/// # Errors
/// With the kernel's own words where it has some: ENOENT for a lower that is not there, EINVAL for an upper whose file
/// system cannot be one.
pub fn overlay(lowers: &[&Path], upper: Option<(&Path, &Path)>, userxattr: bool) -> Result<Fd> {
    let subject = lowers.first().map(|lower| lower.to_string_lossy().into_owned()).unwrap_or_default();
    if lowers.len() > MAX_LOWERS {
        return Err(Error::invalid("rootfs", format!("has more than {MAX_LOWERS} layers")));
    }
    let context = mount::fsopen(c"overlay").at(Stage::SOURCE, "overlay")?;
    if !takes_one_by_one()? {
        return by_numbers(context, lowers, upper, userxattr, subject);
    }
    match configure(&context, lowers, upper, userxattr) {
        Ok(()) => {}
        Err(Failure::Kernel(errno)) => return Err(explain(&context, errno, subject)),
        Err(Failure::Ours(error)) => return Err(error),
    }
    // The context is consumed by the mount; its words are read before, so a failure here has the errno alone.
    context.mount(0).at(Stage::SOURCE, subject)
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

/// Whether this kernel knows `lowerdir+` (6.7). 6.5 and 6.6 refuse it; before those overlayfs has no parser of its own,
/// and fsconfig(2) takes any key, as that of the second question. A value that does not resolve would tell all in one,
/// but the kernel writes such to its console, which takes a millisecond.
fn takes_one_by_one() -> Result<bool> {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    if let Some(known) = KNOWN.get() {
        return Ok(*known);
    }
    let context = mount::fsopen(c"overlay").at(Stage::SOURCE, "overlay")?;
    let known = context.string(c"lowerdir+", c"/").is_ok() && context.string(c"no-such-key", c"").is_err();
    Ok(*KNOWN.get_or_init(|| known))
}

fn configure(
    context: &mount::Context,
    lowers: &[&Path],
    upper: Option<(&Path, &Path)>,
    userxattr: bool,
) -> Result<(), Failure> {
    let directory = |key: &CStr, at: &Path| -> Result<(), Failure> {
        let name = path(at)?;
        if name.count_bytes() <= MAX_VALUE {
            return Ok(context.string(key, &name)?);
        }
        // The kernel looks it up at once.
        let open = openat2(Cwd, &name, open::PATH | open::DIRECTORY, 0, 0);
        let open = open.at(Stage::SOURCE, at.to_string_lossy())?;
        let short = format!("/proc/self/fd/{}", caisson_sys::Descriptor::raw(&open));
        Ok(context.string(key, &path(Path::new(&short))?)?)
    };
    for lower in lowers {
        directory(c"lowerdir+", lower)?;
    }
    // One lower and no upper is no overlay: the kernel wants two.
    if let Some((upper, work)) = upper {
        directory(c"upperdir", upper)?;
        directory(c"workdir", work)?;
        context.flag(c"volatile")?;
    }
    Ok(plain(context, userxattr)?)
}

/// No redirects: what an image's attributes say must not lead from one directory to another (security.md D5).
fn plain(context: &mount::Context, userxattr: bool) -> Result<(), Errno> {
    // What df and mountinfo show as the device.
    context.string(c"source", c"overlay")?;
    // Not `off`, which where the kernel was built so still follows.
    context.string(c"redirect_dir", c"nofollow")?;
    if userxattr {
        // In a user namespace overlayfs keeps its marks where a user may (5.11).
        context.flag(c"userxattr")?;
    }
    context.string(c"metacopy", c"off")
}

/// Where the lowers are one value of at most 255 bytes: in /proc/self/fd each layer has a name of two or three digits,
/// which needs no escape either. Old overlayfs looks the names up at the mount, later ones at once.
fn by_numbers(
    context: mount::Context,
    lowers: &[&Path],
    upper: Option<(&Path, &Path)>,
    userxattr: bool,
    subject: String,
) -> Result<Fd> {
    let open_one = |directory: &&Path| {
        openat2(Cwd, &path(directory)?, open::PATH | open::DIRECTORY, 0, 0)
            .at(Stage::SOURCE, directory.to_string_lossy())
    };
    let opened = lowers.iter().map(open_one).collect::<Result<Vec<Fd>>>()?;
    let number = |fd: &Fd| caisson_sys::Descriptor::raw(fd).to_string();
    let names = opened.iter().map(number).collect::<Vec<_>>().join(":");
    if names.len() > MAX_VALUE {
        let message =
            format!("has {} layers, which is more than this kernel (before 6.7) takes", lowers.len());
        return Err(Error::invalid("rootfs", message));
    }
    let upper = upper.map(|(upper, work)| Ok((open_one(&upper)?, open_one(&work)?))).transpose()?;
    let named = |name: String| CString::new(name).map_err(|_| Error::invalid("rootfs", "holds a NUL byte"));

    let before = openat2(Cwd, c".", open::PATH | open::DIRECTORY, 0, 0).at(Stage::SOURCE, ".")?;
    nix::unistd::chdir("/proc/self/fd").at(Stage::SOURCE, "/proc/self/fd")?;
    let make = || -> Result<Fd, Failure> {
        context.string(c"lowerdir", &named(names)?)?;
        if let Some((upper, work)) = &upper {
            context.string(c"upperdir", &named(number(upper))?)?;
            context.string(c"workdir", &named(number(work))?)?;
            context.flag(c"volatile")?;
        }
        plain(&context, userxattr)?;
        Ok(context.mount(0)?)
    };
    let made = make();
    nix::unistd::fchdir(&before).at(Stage::SOURCE, ".")?;
    match made {
        Ok(made) => Ok(made),
        Err(Failure::Kernel(errno)) => Err(errno).at(Stage::SOURCE, subject),
        Err(Failure::Ours(error)) => Err(error),
    }
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
