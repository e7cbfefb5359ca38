//! Directories that an archive names only in passing: they look as the lower layers have them, since they hide theirs.
//!
//! Those layers may still be on their way, so this is done behind the last entry, of what is still there then: many
//! archives leave such directories out, and each layer of an image would else wait for the one below before it begins.

use super::apply::Applier;
use super::attributes::{kept_owner, read};
use super::level::Level;
use super::lower::{find, kind_of, step};
use super::path::Path;
use super::{On, Owner};
use crate::Result;
use nix::sys::stat::{Mode, SFlag, mkdirat};
use std::collections::BTreeSet;
use std::ffi::CStr;

/// Bytes of names that are kept at most: beyond that the lower layers are waited for.
const MOST: usize = 1 << 20;

/// Directories that were made without an entry of their own.
#[derive(Debug, Default)]
pub(super) struct Missing {
    paths: BTreeSet<Path>,
    bytes: usize,
}

impl Missing {
    /// Whether no more should be kept.
    pub fn is_full(&self) -> bool {
        self.bytes > MOST
    }

    fn add(&mut self, path: Path) {
        self.bytes += path.cost();
        self.paths.insert(path);
    }

    /// An entry says what the directory is.
    pub fn described(&mut self, path: &Path) {
        if self.paths.remove(path) {
            self.bytes -= path.cost();
        }
    }

    /// What was at a path is removed, and all that was below it.
    pub fn removed(&mut self, path: &Path) {
        while let Some(below) = self.paths.range(path..).next().filter(|next| next.is_below(path)).cloned() {
            self.described(&below);
        }
    }
}

impl Applier<'_> {
    /// Makes a directory that no entry made: 0755 and root's, until it is known what it hides.
    pub(super) fn missing_parent(
        &mut self,
        name: &CStr,
        depth: usize,
        path: &Path,
        entry: &[u8],
    ) -> Result<Level> {
        mkdirat(self.here(), name, Mode::S_IRWXU).on(entry)?;
        let directory = step(self.here(), name).on(entry)?;
        if self.options.lowers.is_some() {
            self.missing.add(path.prefix(depth + 1));
        }
        Ok(Level::new(name.to_owned(), directory, 0o755))
    }

    /// Makes those directories look as they do below; waits for the lower layers, if there are any such directories.
    pub(super) fn dress_missing(&mut self) -> Result<()> {
        let paths = std::mem::take(&mut self.missing).paths;
        if paths.is_empty() {
            return Ok(());
        }
        let lowers = self.lowers()?;
        for path in paths {
            let entry = path.to_bytes();
            let found = find(lowers.iter(), &path, self.options.userxattr, &entry)?;
            let Some((found, (_, name))) = found.zip(path.split()) else { continue };
            if kind_of(&found.stat) != SFlag::S_IFDIR {
                continue;
            }
            if self.walk(path.components(), &path, &entry)?.is_some() {
                continue;
            }
            let original = step(&found.parent, name).on(&entry)?;
            let mut attributes = read(&original, &entry)?;
            let (lenient, caller) = (self.lenient(), self.options.owner == Owner::Caller);
            let Some(level) = self.levels.last_mut() else { continue };
            let stat = (found.stat.st_uid, found.stat.st_gid);
            level.owner = if caller { kept_owner(&original) } else { Some(stat) };
            level.mode = Some(found.stat.st_mode & 0o7777);
            level.mtime = Some((found.stat.st_mtime, found.stat.st_mtime_nsec as u32));
            level.acls = attributes.apply_plain(&level.directory, &entry, lenient)?;
            self.default_acls |= level.acls.has_default();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::show;

    fn path(name: &str) -> Path {
        Path::parse(name.as_bytes()).unwrap()
    }

    #[test]
    fn what_is_removed_takes_along_what_is_below_it_and_nothing_else() {
        let mut missing = Missing::default();
        for name in ["a", "a/b", "a/b/c", "a.b", "ab", "b/a"] {
            missing.add(path(name));
        }
        missing.removed(&path("a"));
        let left: Vec<_> = missing.paths.iter().map(|path| show(&path.to_bytes())).collect();
        assert_eq!(left, ["a.b", "ab", "b/a"]);
        for name in ["a.b", "ab", "b/a", "none"] {
            missing.described(&path(name));
        }
        assert_eq!((missing.bytes, missing.paths.len()), (0, 0));
    }
}
