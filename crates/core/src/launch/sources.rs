//! Everything that only the host side can open, as detached mounts, before the clone.

use crate::error::{At, Code, Result, Stage};
use crate::journal::c_path;
use crate::off::off;
use crate::plan::{Attributes, LaunchPlan, Source};
use caisson_sys::mount::{self, Change, attr};
use caisson_sys::{Cwd, Errno, Fd, file};
use std::fs;
use std::path::{Path, PathBuf};

/// The mounts of the plan's sources, in the order of their slots.
pub(super) fn open(plan: &LaunchPlan, bundle: &Fd) -> Result<Vec<Fd>> {
    plan.sources.iter().map(|source| open_one(source, bundle)).collect()
}

fn open_one(source: &Source, bundle: &Fd) -> Result<Fd> {
    let (mounted, attributes, recursive, field) = match source {
        Source::Host { path, recursive, attributes, field } => {
            let mounted = mount::clone_tree(Cwd, path, *recursive);
            (mounted.map_err(|errno| (errno, path)), attributes, *recursive, field)
        }
        // Our own directory: what stands there was written by us for this container.
        Source::Bundle { name, attributes, field } => {
            let opened = file::openat2(
                bundle,
                name,
                file::open::PATH | file::open::NOFOLLOW,
                file::resolve::BENEATH,
                0,
            );
            let mounted = opened.and_then(|opened| mount::clone_tree(&opened, c"", false));
            (mounted.map_err(|errno| (errno, name)), attributes, false, field)
        }
    };
    let mounted = match mounted {
        Ok(mounted) => mounted,
        Err((errno, path)) => {
            let failed = Err::<Fd, Errno>(errno).at(Stage::SOURCE, path.to_string_lossy());
            return failed.map_err(|error| error.with_code(Code::MountSource));
        }
    };
    change(&mounted, attributes, recursive).at(Stage::SOURCE, field.as_str())?;
    Ok(mounted)
}

fn change(mounted: &Fd, attributes: &Attributes, recursive: bool) -> Result<(), Errno> {
    let Attributes { set, clear, set_recursive, clear_recursive, propagation } = *attributes;
    let (set_recursive, clear_recursive) = if off("rro") { (0, 0) } else { (set_recursive, clear_recursive) };
    let single = Change { set, clear, ..Change::default() };
    let all = Change { set: set_recursive, clear: clear_recursive, propagation, ..Change::default() };
    if !recursive {
        // One mount: one call does both.
        let both = Change {
            set: set | set_recursive,
            clear: clear | clear_recursive,
            propagation,
            ..Change::default()
        };
        return mount::set_attributes(mounted, &both, false);
    }
    if all.set | all.clear | all.propagation != 0 {
        mount::set_attributes(mounted, &all, true)?;
    }
    if single.set | single.clear != 0 {
        mount::set_attributes(mounted, &single, false)?;
    }
    Ok(())
}

/// One empty read-only file system for all masks of all containers: an empty directory and an empty file, never from an
/// image (CVE-2025-31133), and one superblock instead of one a path.
#[derive(Debug)]
pub(super) struct Masks {
    path: PathBuf,
}

impl Masks {
    /// Mounts it in the shim's own mount namespace, below `dir`: only what is attached can be cloned before 6.15.
    pub(super) fn make(dir: &Path) -> Result<Self> {
        let path = dir.join("masks");
        let at = || path.to_string_lossy().into_owned();
        fs::create_dir(&path).at(Stage::SHIM, at())?;
        let context = mount::fsopen(c"tmpfs").at(Stage::SHIM, at())?;
        for (key, value) in [(c"nr_blocks", c"1"), (c"nr_inodes", c"3"), (c"mode", c"555")] {
            context.string(key, value).at(Stage::SHIM, at())?;
        }
        let mounted = context.mount(attr::NOSUID | attr::NODEV | attr::NOEXEC).at(Stage::SHIM, at())?;
        mount::attach_at(&mounted, Cwd, &c_path(&path)?).at(Stage::SHIM, at())?;
        fs::create_dir(path.join("directory")).at(Stage::SHIM, at())?;
        let file = fs::File::create(path.join("file")).at(Stage::SHIM, at())?;
        use std::os::unix::fs::PermissionsExt;
        file.set_permissions(fs::Permissions::from_mode(0o444)).at(Stage::SHIM, at())?;
        fs::set_permissions(path.join("directory"), fs::Permissions::from_mode(0o555))
            .at(Stage::SHIM, at())?;
        drop(file);
        let change = Change { set: attr::RDONLY, ..Change::default() };
        mount::set_attributes(&mounted, &change, false).at(Stage::SHIM, at())?;
        Ok(Self { path })
    }

    /// A detached clone of the directory and of the file, for one container.
    pub(super) fn clones(&self) -> Result<(Fd, Fd)> {
        let clone =
            |name: &str| mount::clone_tree(Cwd, &c_path(&self.path.join(name))?, false).at(Stage::MASK, name);
        Ok((clone("directory")?, clone("file")?))
    }

    /// Takes the mount away, so that its place can be removed.
    pub(super) fn detach(&self) {
        if let Ok(path) = c_path(&self.path) {
            let _ = mount::detach(&path);
        }
        let _ = fs::remove_dir(&self.path);
    }
}
