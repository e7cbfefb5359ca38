//! Who the process becomes: docker's words looked up in the container's own passwd and group, then ids, groups and
//! capabilities by the raw calls.

use crate::error::{At, Code, Error, Result, Stage};
use crate::idmap::IdMap;
use crate::off::off;
use crate::plan::User;
use caisson_sys::file::{self, open, openat2, resolve};
use caisson_sys::{Errno, Fd, identity as rights};
use std::collections::BTreeSet;
use std::ffi::CStr;

/// Bounds of the files and of what they may say (CVE-2026-47262): containerd's 10 MiB.
const MAX_FILE: usize = 10 << 20;
const MAX_LINE: usize = 64 << 10;
const MAX_GROUPS: usize = 65_536;
/// Docker's range of ids.
const MAX_ID: u32 = i32::MAX as u32;

/// Who was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    /// The home directory of the user's entry; `/` without one.
    pub(super) home: String,
}

/// All digits are a number, never a name; everything else is a name, never a number (CVE-2016-3697, CVE-2024-40635).
fn number(word: &str, what: &str) -> Result<Option<u32>> {
    if off("numeric") && what == "uid" && word != "0" {
        return Ok(None);
    }
    if word.is_empty() || !word.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match word.parse::<u32>() {
        Ok(id) if id <= MAX_ID => Ok(Some(id)),
        _ => Err(Error::new(
            Code::InvalidSpec,
            Stage::IDENTITY,
            "process.user",
            format!("{what} {word} is not between 0 and {MAX_ID}"),
        )),
    }
}

/// An id that no word gave but a file or a spec. The largest is no id at all: setresuid(2) takes it for none, and leaves
/// who there was.
fn checked(id: u32, what: &str) -> Result<u32> {
    if id <= MAX_ID {
        return Ok(id);
    }
    let message = format!("{what} {id} is not between 0 and {MAX_ID}");
    Err(Error::new(Code::InvalidSpec, Stage::IDENTITY, "process.user", message))
}

/// A regular file of the container, links followed inside its root only, bounded, never waited for.
fn read(root: &Fd, path: &CStr) -> Result<Option<String>> {
    let at = || path.to_string_lossy().into_owned();
    let flags = open::RDONLY | open::NONBLOCK | open::NOCTTY;
    let file = match openat2(root, path, flags, resolve::IN_ROOT | resolve::NO_MAGICLINKS, 0) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
        answer => answer.at(Stage::IDENTITY, at())?,
    };
    let stat = nix::sys::stat::fstat(&file).at(Stage::IDENTITY, at())?;
    let refuse = |message: &str| {
        Err(Error::new(Code::InvalidSpec, Stage::IDENTITY, at(), format!("{} {message}", at())))
    };
    if stat.st_mode & 0o170_000 != 0o100_000 && !off("passwd") {
        return refuse("is not a regular file");
    }
    let size = usize::try_from(stat.st_size).unwrap_or(usize::MAX);
    if size > MAX_FILE {
        return refuse("is larger than 10 MiB");
    }
    let mut room = vec![0u8; size.min(MAX_FILE)];
    let bytes = file::read_into(&file, &mut room).at(Stage::IDENTITY, at())?;
    if bytes.split(|byte| *byte == b'\n').any(|line| line.len() > MAX_LINE) {
        return refuse("has a line of more than 64 KiB");
    }
    Ok(Some(String::from_utf8_lossy(bytes).into_owned()))
}

struct Entry {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

fn passwd_entry(text: &str, wanted: impl Fn(&str, u32) -> bool) -> Option<Entry> {
    text.lines().find_map(|line| {
        let mut parts = line.split(':');
        let (name, _, uid, gid) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
        let home = parts.nth(1).unwrap_or_default();
        wanted(name, uid).then(|| Entry { name: name.to_owned(), uid, gid, home: home.to_owned() })
    })
}

/// Lines of /etc/group: name, id, members.
fn group_lines(text: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    text.lines().filter_map(|line| {
        let mut parts = line.split(':');
        let (name, _, gid) = (parts.next()?, parts.next()?, parts.next()?);
        Some((name, gid.parse().ok()?, parts.next().unwrap_or_default()))
    })
}

fn not_found(kind: &str, name: &str, file: &str) -> Error {
    let message = format!("unable to find {kind} {name}: no matching entries in {file} file");
    Error::new(Code::UserNotFound, Stage::IDENTITY, "process.user", message)
}

/// Looks a user up below the container's root.
pub(super) fn find(root: &Fd, user: &User) -> Result<Found> {
    let passwd = read(root, c"/etc/passwd")?.unwrap_or_default();
    let (words, extra) = match user {
        User::Ids { uid, gid, groups } => {
            let entry = passwd_entry(&passwd, |_, id| id == *uid);
            let home = entry.map(|entry| entry.home).filter(|home| !home.is_empty());
            let home = home.unwrap_or_else(|| "/".to_owned());
            for gid in groups {
                checked(*gid, "gid")?;
            }
            return Ok(Found {
                uid: checked(*uid, "uid")?,
                gid: checked(*gid, "gid")?,
                groups: groups.clone(),
                home,
            });
        }
        User::Named { words, groups } => (words, groups),
    };
    let (user_word, group_word) = match words.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (words.as_str(), None),
    };
    let user_word = if user_word.is_empty() { "0" } else { user_word };
    let entry = match number(user_word, "uid")? {
        Some(uid) => passwd_entry(&passwd, |_, id| id == uid).unwrap_or(Entry {
            name: String::new(),
            uid,
            gid: 0,
            home: String::new(),
        }),
        None => passwd_entry(&passwd, |name, _| name == user_word)
            .ok_or_else(|| not_found("user", user_word, "passwd"))?,
    };
    let group = read(root, c"/etc/group")?.unwrap_or_default();
    let find_group = |word: &str| -> Result<u32> {
        match number(word, "gid")? {
            Some(gid) => Ok(gid),
            None => group_lines(&group)
                .find_map(|(name, gid, _)| (name == word).then_some(gid))
                .ok_or_else(|| not_found("group", word, "group")),
        }
    };
    let gid = group_word.map_or(Ok(entry.gid), find_group)?;
    // The primary group stands among the supplementary ones: a file may deny by group (CVE-2022-36109).
    let mut groups = vec![gid];
    // A set beside the list: an image may name one user in each of a hundred thousand groups.
    let mut seen = BTreeSet::from([gid]);
    let mut add = |gid: u32| {
        if seen.insert(gid) {
            groups.push(gid);
        }
    };
    if group_word.is_none() && !entry.name.is_empty() {
        for (_, gid, members) in group_lines(&group) {
            if members.split(',').any(|member| member == entry.name) {
                add(gid);
            }
        }
    }
    for word in extra {
        add(find_group(word)?);
    }
    if groups.len() > MAX_GROUPS {
        return Err(Error::new(
            Code::InvalidSpec,
            Stage::IDENTITY,
            "/etc/group",
            "/etc/group gives the user more than 65536 groups",
        ));
    }
    for gid in &groups {
        checked(*gid, "gid")?;
    }
    let home = if entry.home.is_empty() { "/".to_owned() } else { entry.home };
    Ok(Found { uid: checked(entry.uid, "uid")?, gid, groups, home })
}

impl Found {
    /// Whether the user namespace has this user and its groups.
    pub(super) fn check(&self, ids: Option<&IdMap>) -> Result<()> {
        let Some(ids) = ids else { return Ok(()) };
        if ids.has(self.uid, self.gid) && self.groups.iter().all(|group| ids.has(self.uid, *group)) {
            return Ok(());
        }
        let message = format!(
            "user {}:{}, or one of its groups, is not among this container's ids: {}",
            self.uid,
            self.gid,
            match ids.is_single() {
                true =>
                    "there is 0 alone, for want of a range in /etc/subuid and /etc/subgid, or of newuidmap",
                false => "the ranges in /etc/subuid and /etc/subgid are too small",
            }
        );
        Err(Error::new(Code::InvalidSpec, Stage::IDENTITY, "process.user", message))
    }

    /// Groups, group, user, in this order; capabilities are kept for [`Found::limit_capabilities`].
    pub(super) fn take_effect(&self, ids: Option<&IdMap>) -> Result<()> {
        let stage = Stage::IDENTITY;
        if ids.is_some_and(IdMap::is_single) {
            // It is the one user there is, who cannot change groups (user_namespaces(7)).
            return Ok(());
        }
        if self.uid != 0 {
            rights::keep_capabilities().at(stage, "keepcaps")?;
        }
        rights::set_groups(&self.groups).at(stage, "process.user.additionalGids")?;
        rights::set_group(self.gid).at(stage, "process.user.gid")?;
        rights::set_user(self.uid).at(stage, "process.user.uid")
    }

    /// The sets of the spec. A user other than 0 holds none but the ambient ones after the exec; they are not left to
    /// be lost there.
    pub(super) fn limit_capabilities(
        &self,
        effective: u64,
        permitted: u64,
        inheritable: u64,
        ambient: u64,
    ) -> Result<()> {
        let stage = Stage::IDENTITY;
        let held = rights::capabilities().at(stage, "capget")?.permitted;
        let asked = effective | permitted | inheritable;
        if let Some(missing) = (0..64u32).find(|number| asked & !held & 1 << number != 0) {
            let message = format!("capability {missing} is not held by the engine itself");
            return Err(Error::new(Code::InvalidSpec, stage, "process.capabilities", message));
        }
        let inheritable = if off("inh") { permitted } else { inheritable };
        let sets = rights::Capabilities { effective, permitted, inheritable };
        rights::set_capabilities(sets).at(stage, "process.capabilities")?;
        if ambient != 0 {
            rights::set_ambient(ambient).at(stage, "process.capabilities.ambient")?;
        }
        Ok(())
    }
}
