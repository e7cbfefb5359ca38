//! The container's root, its mounts, what is below /dev, what is hidden.

use super::Init;
use crate::error::{At, Code, Error, Result, Stage};
use crate::off::off;
use crate::plan::{Filesystem, Source};
use crate::rootfs::open::{Kind, find, find_or_make, is_directory};
use caisson_sys::process::{self, namespace};
use caisson_sys::{Cwd, Errno, Fd, file, mount};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, makedev, mkdirat, mknodat};
use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;

/// Where the container's root is put with `in_root` off.
const OUTSIDE: &str = "/run/caisson-in_root-off";
const OUTSIDE_C: &CStr = c"/run/caisson-in_root-off";

impl Init {
    pub(super) fn open(&mut self, filesystem: &Filesystem) -> Result<()> {
        let kind = filesystem.kind.to_string_lossy();
        let context = mount::fsopen(&filesystem.kind).at(Stage::MOUNT, kind.as_ref())?;
        for (key, value) in &filesystem.options {
            let set = match value {
                Some(value) => context.string(key, value),
                None => context.flag(key),
            };
            set.at(Stage::MOUNT, format!("{kind} option '{}'", key.to_string_lossy()))?;
        }
        let mounted = context.mount(filesystem.attributes).at(Stage::MOUNT, kind.as_ref())?;
        if filesystem.kind.to_bytes() == b"proc" && self.proc.is_none() {
            self.proc = Some(mounted.duplicate(3).at(Stage::MOUNT, "proc")?);
        }
        self.slots.push(Some(mounted));
        Ok(())
    }

    /// The container's mount goes over the empty root of this namespace, and becomes the root of this process. What lies
    /// under it is an empty directory in which nothing can be made: there is no old root to pivot away from and to wait
    /// for (an umount waits for an RCU grace period), and no mount of the host's in the namespace at all. The kernel takes
    /// a root that covers the namespace's for no chroot: user namespaces and pivot_root work inside.
    pub(super) fn enter_root(&mut self) -> Result<()> {
        let stage = Stage::ROOT;
        let overlays = match &mut self.given.house {
            Some(house) => {
                if let Some(empty) = house.namespace.take() {
                    process::setns(&empty, namespace::MOUNT).at(stage, "setns")?;
                    process::unshare(namespace::MOUNT).at(stage, "unshare")?;
                }
                std::mem::take(&mut house.overlays)
            }
            None => Vec::new(),
        };
        if off("in_root") {
            std::fs::create_dir_all(OUTSIDE).at(stage, OUTSIDE)?;
            mount::attach_at(&self.house(stage)?.root, Cwd, OUTSIDE_C).at(stage, OUTSIDE)?;
            let directory = file::open::PATH | file::open::DIRECTORY;
            self.root = Some(file::openat2(Cwd, OUTSIDE_C, directory, 0, 0).at(stage, OUTSIDE)?);
            return Ok(());
        }
        let mounted = &self.house(stage)?.root;
        mount::attach_at(mounted, Cwd, c"/").at(stage, "move_mount")?;
        nix::unistd::fchdir(mounted).at(stage, "fchdir")?;
        nix::unistd::chroot(".").at(stage, "chroot")?;
        let directory = file::open::PATH | file::open::DIRECTORY;
        let root = file::openat2(Cwd, c"/", directory, 0, 0).at(stage, "/")?;
        for (target, overlay) in overlays {
            let at = || target.to_string_lossy().into_owned();
            let place = find_or_make(&root, &target, Kind::Directory, true).at(stage, at())?;
            mount::attach(&overlay, &place).at(stage, at())?;
        }
        self.root = Some(root);
        self.stamps.rooted = crate::clock::now();
        Ok(())
    }

    /// With `in_root` off, as runtimes do that prepare the root from outside: all mounts are in place, now it is entered.
    pub(super) fn enter_root_late(&mut self, workdir: &CStr) -> Result<()> {
        if !off("in_root") {
            return Ok(());
        }
        let stage = Stage::ROOT;
        find_or_make(self.root(stage)?, workdir, Kind::Directory, true).at(stage, "process.cwd")?;
        nix::unistd::fchdir(self.root(stage)?).at(stage, "fchdir")?;
        mount::pivot_root_here().at(stage, "pivot_root")?;
        mount::detach(c".").at(stage, "umount")?;
        nix::unistd::chdir("/").at(stage, "chdir")
    }

    pub(super) fn attach(&mut self, slot: u32, target: &CStr, directory: bool, follow: bool) -> Result<()> {
        let at = || target.to_string_lossy().into_owned();
        let taken = self.slots.get_mut(slot as usize).and_then(Option::take);
        let mounted =
            taken.ok_or_else(|| Error::new(Code::Internal, Stage::MOUNT, at(), "its slot is empty"))?;
        let directory = directory || is_directory(&mounted).at(Stage::MOUNT, at())?;
        let kind = if directory { Kind::Directory } else { Kind::File };
        let follow = follow || off("no_symlinks");
        let place = match find_or_make(self.root(Stage::MOUNT)?, target, kind, follow) {
            // A tree of somebody else's, in which this user can make nothing: then it has none of the engine's files.
            Err(Errno::EACCES | Errno::EPERM) if self.given.ids.is_some() && self.is_engine_file(slot) => {
                return Ok(());
            }
            place => place.at(Stage::MOUNT, at())?,
        };
        if is_directory(&place).at(Stage::MOUNT, at())? != directory {
            let errno = if directory { Errno::ENOTDIR } else { Errno::EISDIR };
            return Err(errno).at(Stage::MOUNT, at());
        }
        keep_proc(&place, target)?;
        mount::attach(&mounted, &place).at(Stage::MOUNT, at())?;
        // A directory of the host at /dev is the caller's: nothing is made in it.
        if target.to_bytes() == b"/dev" && slot as usize >= self.plan.sources.len() {
            self.dev = Some(mounted);
        }
        Ok(())
    }

    fn is_engine_file(&self, slot: u32) -> bool {
        matches!(self.plan.sources.get(slot as usize), Some(Source::Bundle { .. }))
    }

    /// Everything below /dev is made through the tmpfs that we mounted there (CVE-2026-41579, CVE-2026-47766). Without
    /// one, the image's own /dev must be a plain directory.
    fn below_dev<'a>(&mut self, path: &'a CStr) -> Result<(&Fd, &'a CStr)> {
        let at = || path.to_string_lossy().into_owned();
        if self.dev.is_none() {
            let dev = find_or_make(self.root(Stage::DEVICE)?, c"/dev", Kind::Directory, false);
            self.dev = Some(dev.at(Stage::DEVICE, "/dev")?);
        }
        let prefix = b"/dev/".len();
        let name =
            path.to_bytes_with_nul().get(prefix..).and_then(|rest| CStr::from_bytes_with_nul(rest).ok());
        match (&self.dev, name) {
            (Some(dev), Some(name)) if !name.is_empty() => Ok((dev, name)),
            _ => Err(Error::new(Code::InvalidSpec, Stage::DEVICE, at(), "is no path below /dev")),
        }
    }

    pub(super) fn node(
        &mut self,
        path: &CStr,
        mode: u32,
        number: (u32, u32),
        owner: (u32, u32),
    ) -> Result<()> {
        let at = || path.to_string_lossy().into_owned();
        let (dev, name) = self.below_dev(path)?;
        let parent = make_parents(dev, name).at(Stage::DEVICE, at())?;
        let name = last_component(name);
        let kind = SFlag::from_bits_truncate(mode & SFlag::S_IFMT.bits());
        let bits = Mode::from_bits_truncate(mode & 0o7777);
        let device = makedev(u64::from(number.0), u64::from(number.1));
        let dir = parent.as_ref().unwrap_or(dev);
        match mknodat(dir, name, kind, bits, device) {
            Ok(()) => {}
            Err(nix::errno::Errno::EEXIST) => {
                return same_node(dir, name, kind, device).at(Stage::DEVICE, at());
            }
            Err(errno) => return Err(errno).at(Stage::DEVICE, at()),
        }
        // Not by the umask of whoever started us.
        fchmodat(dir, name, bits, FchmodatFlags::FollowSymlink).at(Stage::DEVICE, at())?;
        if owner != (0, 0) {
            let (uid, gid) = (nix::unistd::Uid::from_raw(owner.0), nix::unistd::Gid::from_raw(owner.1));
            let flags = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
            nix::unistd::fchownat(dir, name, Some(uid), Some(gid), flags).at(Stage::DEVICE, at())?;
        }
        Ok(())
    }

    pub(super) fn link(&mut self, path: &CStr, target: &CStr) -> Result<()> {
        let (dev, name) = self.below_dev(path)?;
        match nix::unistd::symlinkat(target, dev, name) {
            Err(nix::errno::Errno::EEXIST) => Ok(()),
            answer => answer.at(Stage::DEVICE, path.to_string_lossy()),
        }
    }

    /// Hides each path behind a clone of one empty mount that was never the container's (CVE-2025-31133).
    pub(super) fn mask(&mut self, paths: &[CString]) -> Result<()> {
        let mut attached = (false, false);
        for path in paths {
            let at = || path.to_string_lossy().into_owned();
            let place = match find(self.root(Stage::MASK)?, path, false) {
                Err(Errno::ENOENT) => continue,
                answer => answer.at(Stage::MASK, at())?,
            };
            let directory = is_directory(&place).at(Stage::MASK, at())?;
            let (dir_mask, file_mask) = &self.house(Stage::MASK)?.masks;
            if off("masks") && !directory {
                let null = find(self.root(Stage::MASK)?, c"/dev/null", true).at(Stage::MASK, at())?;
                let null = mount::clone_tree(&null, c"", false).at(Stage::MASK, at())?;
                mount::attach(&null, &place).at(Stage::MASK, at())?;
                continue;
            }
            let (mask, used) =
                if directory { (dir_mask, &mut attached.0) } else { (file_mask, &mut attached.1) };
            // The first use attaches the mount we were given; before 6.15 only an attached one can be cloned.
            if std::mem::replace(used, true) {
                let clone = mount::clone_tree(mask, c"", false).at(Stage::MASK, at())?;
                mount::attach(&clone, &place).at(Stage::MASK, at())?;
            } else {
                mount::attach(mask, &place).at(Stage::MASK, at())?;
            }
        }
        Ok(())
    }

    pub(super) fn read_only(&mut self, paths: &[CString]) -> Result<()> {
        let change = mount::Change { set: mount::attr::RDONLY, ..Default::default() };
        for path in paths {
            let at = || path.to_string_lossy().into_owned();
            let place = match find(self.root(Stage::MASK)?, path, false) {
                Err(Errno::ENOENT) => continue,
                answer => answer.at(Stage::MASK, at())?,
            };
            let clone = mount::clone_tree(&place, c"", true).at(Stage::MASK, at())?;
            // Only the named bit changes: nosuid, nodev and noexec stay.
            mount::set_attributes(&clone, &change, true).at(Stage::MASK, at())?;
            mount::attach(&clone, &place).at(Stage::MASK, at())?;
        }
        Ok(())
    }
}

/// The plan refused what would cover the container's /proc by its name; a link of an image may lead there too.
fn keep_proc(place: &Fd, target: &CStr) -> Result<()> {
    let by_name = target.to_bytes().split(|byte| *byte == b'/').find(|part| !matches!(*part, b"" | b"."));
    if by_name == Some(b"proc") || off("keep_proc") {
        return Ok(());
    }
    let at = || target.to_string_lossy().into_owned();
    let system = nix::sys::statfs::fstatfs(place).at(Stage::MOUNT, at())?;
    if system.filesystem_type() != nix::sys::statfs::PROC_SUPER_MAGIC {
        return Ok(());
    }
    Err(Error::new(Code::Launch, Stage::MOUNT, at(), "would cover the container's /proc"))
}

fn last_component(path: &CStr) -> &CStr {
    let bytes = path.to_bytes_with_nul();
    let start = path.to_bytes().iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    bytes.get(start..).and_then(|rest| CStr::from_bytes_with_nul(rest).ok()).unwrap_or(path)
}

/// The directory that a node goes into, made if absent; none for one straight below `dev`.
fn make_parents(dev: &Fd, name: &CStr) -> Result<Option<Fd>, Errno> {
    let mut here: Option<Fd> = None;
    let mut parts: Vec<&[u8]> = name.to_bytes().split(|byte| *byte == b'/').collect();
    parts.pop();
    for part in parts {
        let part = CString::new(part).map_err(|_| Errno::EINVAL)?;
        let dir = here.as_ref().unwrap_or(dev);
        match mkdirat(dir, part.as_c_str(), Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
            Err(errno) => return Err(Errno::from_raw(errno as i32)),
        }
        let flags = file::open::PATH | file::open::DIRECTORY | file::open::NOFOLLOW;
        here =
            Some(file::openat2(dir, &part, flags, file::resolve::BENEATH | file::resolve::NO_SYMLINKS, 0)?);
    }
    Ok(here)
}

/// A node that is there already stands if it is what was asked for.
fn same_node(dir: &Fd, name: &CStr, kind: SFlag, device: u64) -> Result<(), Errno> {
    let flags = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
    let stat = nix::sys::stat::fstatat(dir, std::ffi::OsStr::from_bytes(name.to_bytes()), flags);
    let stat = stat.map_err(|errno| Errno::from_raw(errno as i32))?;
    let same =
        SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == kind && stat.st_rdev == device;
    if same { Ok(()) } else { Err(Errno::EEXIST) }
}
