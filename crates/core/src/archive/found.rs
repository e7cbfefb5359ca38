//! What is in a tree that somebody may change while it is read: each name is opened below the directory that was opened
//! before it, without following links; what was opened is looked at, not what was there a moment ago.

use super::lower::kind_of;
use crate::error::{At, Result, Stage};
use crate::off::off;
use caisson_sys::file::{open, openat2, resolve};
use caisson_sys::mount::{self, Change, attr};
use caisson_sys::{Descriptor, Errno, Fd};
use nix::fcntl::{AtFlags, readlinkat};
use nix::sys::stat::{FileStat, SFlag, fstat, fstatat};
use nix::unistd::{Whence, lseek};
use std::ffi::CStr;
use std::os::unix::ffi::OsStringExt;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How often a name may be another thing each time that it is looked at.
const TRIES: usize = 64;
/// How long a file is asked for on which somebody holds a lease: /proc/sys/fs/lease-break-time is 45 seconds by default.
const LEASE: Duration = Duration::from_secs(60);
/// How often.
const LEASE_LOOK: Duration = Duration::from_millis(10);
/// A file of fewer bytes is written whole, holes and all.
const SMALL: i64 = 64 << 10;
/// Pieces of a sparse file in an archive, whose map a reader holds in memory: where it has more, its smallest holes are
/// written as zeros.
const PIECES: usize = 16 << 10;
/// Bytes of such zeros in a file, beyond as many as it has of data: more is refused.
const ZEROS: u64 = 1 << 30;
/// Pieces that are looked at, of a file that may change all the time.
const MOST_PIECES: usize = 16 << 20;

/// A mount of `directory` of the caller's own, without those below it, on which nothing is written, no device is opened
/// and no file executed: what the owner of the tree puts there in the last moment does nothing.
///
/// # Errors
/// As open_tree(2), mount_setattr(2).
pub fn private_view(directory: impl Descriptor, path: &CStr) -> Result<Fd> {
    let subject = || path.to_string_lossy().into_owned();
    let view = mount::clone_tree(directory, path, false).at(Stage::PACK, subject())?;
    let change =
        Change { set: attr::RDONLY | attr::NODEV | attr::NOSUID | attr::NOEXEC, ..Change::default() };
    mount::set_attributes(&view, &change, false).at(Stage::PACK, subject())?;
    Ok(view)
}

/// What was found at a name.
pub(super) enum Found {
    /// A file or a directory, opened.
    Open(Fd, FileStat),
    /// A link, opened as itself, and where it leads.
    Link(Fd, FileStat, Vec<u8>),
    /// What is not opened.
    Node(FileStat),
    /// Nothing any more.
    Gone,
}

/// Looks at a name and opens what is there, if that is a file or a directory. What is exchanged in between is looked at
/// anew: what a running container replaces is one or the other.
pub(super) fn find(directory: &Fd, name: &CStr) -> Result<Found, Errno> {
    let raw = |errno: nix::Error| Errno::from_raw(errno as i32);
    let resolve = resolve::BENEATH | resolve::NO_SYMLINKS | resolve::NO_XDEV;
    let begun = Instant::now();
    for _ in 0..TRIES {
        let seen = match fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(nix::Error::ENOENT) => return Ok(Found::Gone),
            answer => answer.map_err(raw)?,
        };
        let flags = match kind_of(&seen) {
            SFlag::S_IFDIR => open::RDONLY | open::DIRECTORY,
            SFlag::S_IFREG => open::RDONLY | open::NONBLOCK | open::NOCTTY,
            SFlag::S_IFLNK => open::PATH,
            _ => return Ok(Found::Node(seen)),
        };
        // A link that is opened as itself is no link that is followed.
        let resolve = if flags == open::PATH { resolve & !resolve::NO_SYMLINKS } else { resolve };
        let mut opened = below(directory, name, flags, resolve);
        // A lease (fcntl(2), F_SETLEASE): to have asked has told its holder to give it up, and the kernel takes it when its
        // time is over. Waiting in the open itself would do the same, but be for ever at a FIFO that is there by then.
        while matches!(opened, Err(Errno::EAGAIN)) && flags & open::NONBLOCK != 0 && begun.elapsed() < LEASE {
            sleep(LEASE_LOOK);
            opened = below(directory, name, flags, resolve);
        }
        let opened = match opened {
            Ok(opened) => opened,
            Err(errno) => match fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
                // It still is what it was: that is why it cannot be opened.
                Ok(now) if same(&now, &seen) => return Err(errno),
                _ => continue,
            },
        };
        let stat = fstat(&opened).map_err(raw)?;
        match kind_of(&stat) {
            kind if kind != kind_of(&seen) => {}
            SFlag::S_IFLNK => {
                let target = readlinkat(&opened, c"").map_err(raw)?.into_vec();
                return Ok(Found::Link(opened, stat, target));
            }
            _ => return Ok(Found::Open(opened, stat)),
        }
    }
    Err(Errno::EAGAIN)
}

/// Opens a name of a directory, which leads nowhere else.
fn below(directory: &Fd, name: &CStr, flags: u64, resolve: u64) -> Result<Fd, Errno> {
    if off("nofollow") && flags != open::PATH {
        return openat2(directory, name, flags, 0, 0);
    }
    openat2(directory, name, flags | open::NOFOLLOW, resolve, 0)
}

fn same(one: &FileStat, other: &FileStat) -> bool {
    (one.st_dev, one.st_ino, kind_of(one)) == (other.st_dev, other.st_ino, kind_of(other))
}

/// The pieces of a file that are no holes; none for one that is written whole.
///
/// # Errors
/// Why it cannot be written: it has that many holes.
pub(super) fn pieces(file: &Fd, stat: &FileStat) -> Result<Option<Vec<(u64, u64)>>, &'static str> {
    const TOO_MANY: &str = "it has so many holes that an archive would be many times its data";
    let size = stat.st_size;
    if size < SMALL || stat.st_blocks.saturating_mul(512) >= size {
        return Ok(None);
    }
    let (mut pieces, mut at, mut data, mut seen) = (Vec::new(), 0, 0u64, 0);
    while at < size {
        let start = match lseek(file, at, Whence::SeekData) {
            Ok(start) => start.min(size),
            // No more data behind it.
            Err(nix::Error::ENXIO) => break,
            Err(_) => return Ok(None),
        };
        let end = match lseek(file, start, Whence::SeekHole) {
            Ok(end) => end.clamp(start, size),
            _ => size,
        };
        if end > start {
            let length = (end - start).unsigned_abs();
            pieces.push((start.unsigned_abs(), length));
            data += length;
            seen += 1;
        }
        if seen > MOST_PIECES {
            return Err(TOO_MANY);
        }
        if pieces.len() == 2 * PIECES {
            join(&mut pieces, PIECES);
        }
        at = end.max(at + 1);
    }
    join(&mut pieces, PIECES);
    let written: u64 = pieces.iter().map(|(_, length)| length).sum();
    if written - data > data + ZEROS {
        return Err(TOO_MANY);
    }
    // Where it ends, for GNU tar, which reads a file without data as an empty one.
    let size = size.unsigned_abs();
    if pieces.last().is_none_or(|(offset, length)| offset + length < size) {
        pieces.push((size, 0));
    }
    Ok(Some(pieces))
}

/// Joins pieces over the smallest holes between them, until they are `most`. Done in between and at the end, what goes is
/// the same: a hole that is not among the largest of a part is not among those of the whole.
fn join(pieces: &mut Vec<(u64, u64)>, most: usize) {
    if pieces.len() <= most {
        return;
    }
    let hole = |pair: &[(u64, u64)]| pair[1].0 - pair[0].0 - pair[0].1;
    let mut holes: Vec<(u64, usize)> =
        pieces.windows(2).enumerate().map(|(index, pair)| (hole(pair), index)).collect();
    let filled = pieces.len() - most;
    holes.select_nth_unstable(filled - 1);
    let mut filled: Vec<usize> = holes[..filled].iter().map(|(_, index)| *index).collect();
    filled.sort_unstable();
    let mut joined: Vec<(u64, u64)> = Vec::with_capacity(most);
    let mut filled = filled.into_iter().peekable();
    let mut with_last = false;
    for (index, piece) in pieces.iter().enumerate() {
        match joined.last_mut().filter(|_| with_last) {
            Some(last) => last.1 = piece.0 + piece.1 - last.0,
            None => joined.push(*piece),
        }
        with_last = filled.next_if_eq(&index).is_some();
    }
    *pieces = joined;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::FileExt;

    #[test]
    fn pieces_are_joined_over_the_smallest_holes() {
        let mut pieces = vec![(0, 10), (11, 1), (20, 1), (22, 2), (100, 5)];
        join(&mut pieces, 5);
        assert_eq!(pieces.len(), 5);
        join(&mut pieces, 3);
        assert_eq!(pieces, [(0, 12), (20, 4), (100, 5)]);
        join(&mut pieces, 1);
        assert_eq!(pieces, [(0, 105)]);
    }

    /// A file of `count` pieces of 4 KiB, each behind a hole of `hole` bytes, and a hole of a terabyte at its end.
    fn pieces_of(count: u64, hole: u64) -> Result<Option<Vec<(u64, u64)>>, &'static str> {
        let path = std::env::temp_dir().join(format!("caisson-holes-{}-{hole}", std::process::id()));
        let file = File::options().create_new(true).read(true).write(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        for piece in 0..count {
            file.write_all_at(&[1; 4096], piece * (4096 + hole) + hole).unwrap();
        }
        file.set_len(1 << 40).unwrap();
        let file = Fd::from(OwnedFd::from(file));
        let stat = fstat(&file).unwrap();
        pieces(&file, &stat)
    }

    #[test]
    fn a_file_of_many_holes_is_written_without_the_large_ones_or_not_at_all() {
        let count = PIECES as u64 + 100;
        let pieces = pieces_of(count, 4096).unwrap().unwrap();
        assert_eq!(pieces.len(), PIECES + 1);
        assert_eq!(pieces.last(), Some(&(1 << 40, 0)));
        let written: u64 = pieces.iter().map(|(_, length)| length).sum();
        assert_eq!(written, (count + 100) * 4096);
        let refused = pieces_of(count, 32 << 20).unwrap_err();
        assert!(refused.contains("so many holes"), "{refused}");
    }
}
