//! stdio: three descriptors as they were given, or a terminal of the container's own devpts.

use super::Init;
use crate::error::{At, Code, Error, Result, Stage};
use crate::off::off;
use crate::rootfs::open::{Kind, find_or_make};
use caisson_sys::file::{self, open, resolve};
use caisson_sys::{Fd, fd, ioctl, mount};
use nix::sys::stat::{Mode, SFlag, fstat, mknodat};
use std::ffi::CStr;

impl Init {
    /// Opens /dev/ptmx of the devpts that we mounted; its other end is opened without a path and lies over /dev/console
    /// (CVE-2025-52565, CVE-2026-88264).
    pub(super) fn open_terminal(&mut self, columns: u16, rows: u16) -> Result<()> {
        const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;
        let stage = Stage::TERMINAL;
        let missing = |what: &str| Error::new(Code::InvalidSpec, stage, "process.terminal", what);
        let root = self.root(stage)?;
        // First that it is a devpts, then what is in it: what else may lie there is not even opened.
        let strict = resolve::IN_ROOT | resolve::NO_SYMLINKS;
        let pts = file::openat2(root, c"/dev/pts", open::PATH | open::DIRECTORY, strict, 0);
        let pts = pts.at(stage, "/dev/pts")?;
        let system = nix::sys::statfs::fstatfs(&pts).at(stage, "/dev/pts")?;
        if system.filesystem_type().0 != DEVPTS_SUPER_MAGIC {
            return Err(missing("needs a mount of type devpts at /dev/pts"));
        }
        let strict = resolve::BENEATH | resolve::NO_SYMLINKS | resolve::NO_XDEV;
        let master = file::openat2(&pts, c"ptmx", open::RDWR | open::NOCTTY, strict, 0);
        let master = master.at(stage, "/dev/pts/ptmx")?;
        ioctl::unlock_terminal(&master).at(stage, "terminal")?;
        let peer = ioctl::terminal_peer(&master).at(stage, "terminal")?;
        if columns != 0 && rows != 0 {
            ioctl::set_window_size(&peer, columns, rows).at(stage, "process.consoleSize")?;
        }
        if self.given.house.is_none() {
            // A joiner's is the container's console no less, but /dev/console is that of the first process.
            self.terminal = Some((master, peer));
            return Ok(());
        }
        if off("own_dev") {
            let place = find_or_make(root, c"/dev/console", Kind::File, true).at(stage, "/dev/console")?;
            let clone = mount::clone_tree(&peer, c"", false).at(stage, "/dev/console")?;
            mount::attach(&clone, &place).at(stage, "/dev/console")?;
            self.terminal = Some((master, peer));
            return Ok(());
        }
        let dev = self.dev.as_ref().ok_or_else(|| missing("needs a /dev of the container's own"))?;
        let console: &CStr = c"console";
        match mknodat(dev, console, SFlag::S_IFREG, Mode::from_bits_truncate(0o600), 0) {
            Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
            Err(errno) => return Err(errno).at(stage, "/dev/console"),
        }
        let nofollow = open::PATH | open::NOFOLLOW;
        let place = file::openat2(dev, console, nofollow, resolve::BENEATH | resolve::NO_SYMLINKS, 0);
        let place = place.at(stage, "/dev/console")?;
        let clone = mount::clone_tree(&peer, c"", false).at(stage, "/dev/console")?;
        mount::attach(&clone, &place).at(stage, "/dev/console")?;
        self.terminal = Some((master, peer));
        Ok(())
    }

    /// Puts stdio on 0, 1 and 2 and gives what Caisson made, and nothing else, to the payload's user (CVE-2026-88265).
    pub(super) fn give_stdio(&mut self) -> Result<()> {
        let stage = Stage::TERMINAL;
        let uid = self.found.uid;
        let own = |file: &Fd, name: &str| -> Result<()> {
            let uid = nix::unistd::Uid::from_raw(uid);
            if fstat(file).at(stage, name)?.st_uid != uid.as_raw() {
                nix::unistd::fchown(file, Some(uid), None).at(stage, name)?;
            }
            Ok(())
        };
        if let Some((_, peer)) = &self.terminal {
            own(peer, "terminal")?;
            for number in 0..3 {
                fd::place(peer, number).at(stage, "terminal")?;
            }
            // What is forked yet takes it, in its own session: a terminal controls one session only.
            if self.plan.supervise || self.given.house.is_none() {
                return Ok(());
            }
            return ioctl::take_terminal(peer).at(stage, "terminal");
        }
        // All three are above 2, so that none is covered before it is placed.
        for (number, file) in self.given.stdio.iter().enumerate() {
            let name = ["stdin", "stdout", "stderr"].get(number).copied().unwrap_or("stdio");
            if self.given.own_stdio >> number & 1 == 1 || off("own_stdio") {
                own(file, name)?;
            }
            fd::place(file, number as i32).at(stage, name)?;
        }
        Ok(())
    }
}
