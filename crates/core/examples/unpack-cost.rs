//! Where the time of unpacking goes: `cargo run --release -p caisson-core --example unpack-cost -- TAR DIRECTORY`.
//!
//! TAR is an archive that is not compressed, as `mmdebstrap --variant=minbase bookworm rootfs.tar` makes one; beside it
//! stand TAR.gz (`gzip -6 -k`) and, if it is to be measured, TAR.zst (`zstd -k`). DIRECTORY is where trees are made, on
//! the disk that counts. Run it as root, so that owners are set.
//!
//! Three tables come out: the parts, each alone on one thread; the whole against GNU tar, which reads the archive that
//! is already inflated and hashes nothing; and removing a tree against `rm -rf`. All take turns, with `sync` before
//! each; figures are in milliseconds. DIRECTORY should not be on an ext4 without journal: that one avoids inodes for
//! minutes after they were freed, and who comes next pays for it (fs/ext4/ialloc.c, recently_deleted).

use caisson_core::archive::{Options, Owner, Report, remove_tree, single, unpack};
use caisson_core::{Error, archive};
use caisson_sys::file::{open, openat2};
use caisson_sys::{Cwd, Fd};
use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

type Answer<T> = Result<T, Box<dyn std::error::Error>>;

/// How often each is done.
const ROUNDS: usize = 9;

fn main() -> Answer<()> {
    let mut words = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(tar), Some(place)) = (words.next(), words.next()) else {
        return Err("usage: unpack-cost TAR DIRECTORY".into());
    };
    let beside = |suffix: &str| {
        let mut name = tar.clone().into_os_string();
        name.push(suffix);
        PathBuf::from(name)
    };
    let (gzip, zstd) = (beside(".gz"), beside(".zst"));
    let place = place.join(format!("unpack-cost-{}", std::process::id()));
    std::fs::create_dir(&place)?;
    let mut measure = Measure { place: place.clone(), out: std::io::stdout() };
    let result = measure.parts(&tar, &gzip, &zstd).and_then(|()| measure.whole(&tar, &gzip, &zstd));
    std::fs::remove_dir_all(&place)?;
    result
}

struct Measure {
    place: PathBuf,
    out: std::io::Stdout,
}

/// A way to do something to a new directory.
type Way<'a> = (&'a str, Box<dyn Fn(&Path) -> Answer<()> + 'a>);

impl Measure {
    fn parts(&mut self, tar: &Path, gzip: &Path, zstd: &Path) -> Answer<()> {
        let (plain, packed) = (std::fs::read(tar)?, std::fs::read(gzip)?);
        let repacked = std::fs::read(zstd).unwrap_or_default();
        let mut ways: Vec<Way<'_>> = vec![
            ("read the blob", Box::new(|_| used(read(gzip)?))),
            ("hash the blob", Box::new(|_| used(archive::Digest::of(&packed)))),
            ("hash the archive", Box::new(|_| used(archive::Digest::of(&plain)))),
            ("inflate, gzip", Box::new(|_| used(single::inflate(&packed)?))),
            ("parse the archive", Box::new(|_| used(single::parse(&plain)?))),
            ("apply the archive", Box::new(|to| used(single::apply(&plain, &opened(to)?, &options())?))),
        ];
        if !repacked.is_empty() {
            ways.push(("inflate, zstd", Box::new(|_| used(single::inflate(&repacked)?))));
        }
        self.table("part, one thread", &ways, None, &[])
    }

    fn whole(&mut self, tar: &Path, gzip: &Path, zstd: &Path) -> Answer<()> {
        let mut ways: Vec<Way<'_>> = vec![
            (
                "tar -x of the inflated",
                Box::new(|to| run(Command::new("tar").arg("-xf").arg(tar).arg("-C").arg(to))),
            ),
            ("unpack, gzip", Box::new(|to| used(whole(gzip, to)?))),
            ("unpack, plain", Box::new(|to| used(whole(tar, to)?))),
        ];
        if zstd.exists() {
            ways.push(("unpack, zstd", Box::new(|to| used(whole(zstd, to)?))));
        }
        let removals: Vec<Way<'_>> = vec![
            ("rm -rf", Box::new(|tree| run(Command::new("rm").arg("-rf").arg(tree)))),
            ("remove_tree", Box::new(remove)),
        ];
        self.table("whole", &ways, Some(0), &removals)
    }

    /// Does each way in turn, in a directory of its own, and then removes these; two of them, whose trees are equal,
    /// by the removals in turns.
    fn table(
        &mut self,
        title: &str,
        ways: &[Way<'_>],
        base: Option<usize>,
        removals: &[Way<'_>],
    ) -> Answer<()> {
        let mut times = vec![Vec::new(); ways.len()];
        let mut removed = vec![Vec::new(); removals.len()];
        for round in 0..ROUNDS {
            let directories: Vec<_> =
                (0..ways.len()).map(|index| self.place.join(index.to_string())).collect();
            for (index, (_, way)) in ways.iter().enumerate() {
                std::fs::create_dir(&directories[index])?;
                times[index].push(time(way, &directories[index])?);
            }
            for (turn, directory) in directories.iter().take(removals.len()).enumerate() {
                let index = (round + turn) % removals.len();
                removed[index].push(time(&removals[index].1, directory)?);
            }
            for rest in directories.iter().skip(removals.len()) {
                remove(rest)?;
            }
        }
        self.print(title, ways, &times, base)?;
        if removals.is_empty() { Ok(()) } else { self.print("removal", removals, &removed, Some(0)) }
    }

    fn print(
        &mut self,
        title: &str,
        ways: &[Way<'_>],
        times: &[Vec<f64>],
        base: Option<usize>,
    ) -> Answer<()> {
        let median = |index: usize| {
            let mut sorted = times[index].clone();
            sorted.sort_by(f64::total_cmp);
            (sorted[sorted.len() / 2], sorted[0])
        };
        writeln!(
            self.out,
            "\n| {title:<24} | median ms | least ms | of the first |\n| --- | --- | --- | --- |"
        )?;
        for (index, (name, _)) in ways.iter().enumerate() {
            let (middle, least) = median(index);
            let ratio = base.map(|base| format!("{:.2}", middle / median(base).0)).unwrap_or_default();
            writeln!(self.out, "| {name:<24} | {middle:>9.1} | {least:>8.1} | {ratio:>12} |")?;
        }
        Ok(())
    }
}

fn time(way: &dyn Fn(&Path) -> Answer<()>, directory: &Path) -> Answer<f64> {
    run(&mut Command::new("sync"))?;
    let start = Instant::now();
    way(directory)?;
    Ok(start.elapsed().as_secs_f64() * 1000.0)
}

fn options() -> Options<'static> {
    let root = nix::unistd::geteuid().is_root();
    let owner = if root { Owner::Archived } else { Owner::Caller };
    Options { owner, userxattr: !root, devices: root, ..Options::default() }
}

fn opened(path: &Path) -> Answer<Fd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    openat2(Cwd, &path, open::RDONLY | open::DIRECTORY, 0, 0).map_err(|errno| errno.to_string().into())
}

/// What was worked out counts as used, or the compiler might leave the work out.
fn used<T>(value: T) -> Answer<()> {
    std::hint::black_box(value);
    Ok(())
}

fn read(path: &Path) -> std::io::Result<u64> {
    let (mut file, mut room, mut bytes) = (File::open(path)?, vec![0; 256 * 1024], 0);
    loop {
        match file.read(&mut room)? {
            0 => return Ok(bytes),
            length => bytes += length as u64,
        }
    }
}

fn whole(blob: &Path, to: &Path) -> Answer<Report> {
    Ok(unpack(File::open(blob)?, &opened(to)?, &options())?)
}

fn remove(tree: &Path) -> Answer<()> {
    let (parent, name) = (tree.parent().ok_or("no parent")?, tree.file_name().ok_or("no name")?);
    remove_tree(&opened(parent)?, &CString::new(name.as_bytes())?).map_err(|error: Error| error.into())
}

fn run(command: &mut Command) -> Answer<()> {
    match command.status()?.success() {
        true => Ok(()),
        false => Err(format!("{command:?} failed").into()),
    }
}
