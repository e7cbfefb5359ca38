//! What the receipt of a run costs: `receipt-cost [ROUNDS]`, as root, in a pid namespace whose /proc is mounted.
//!
//! Each round is as a run is: a new group, a process forked into it that reads what is in force of itself, and its
//! parent that reads the group's figures and limits once it has ended. Prints one JSON object of three arrays, microseconds
//! a round: `isolation` (in the new process), `limits` (read in place of a run that asked for some), `usage`.

use std::io::{Read, Write};
use std::process::ExitCode;
use std::time::Instant;

use caisson_core::cgroup::{Cgroup, Parent, find};
use caisson_core::init::isolation;
use caisson_sys::process::{self, Fork};
use caisson_sys::{Cwd, Fd, file};

const LIMITS: [&std::ffi::CStr; 3] = [c"memory.max", c"cpu.max", c"pids.max"];

fn micros(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e6
}

/// The microseconds that a new process in the group needs to read what is in force of it.
fn isolation_read(proc: &Fd, group: &Cgroup) -> Result<f64, String> {
    let (mut from, mut to) = std::io::pipe().map_err(|error| error.to_string())?;
    match process::fork(0, Some(&group.main)).map_err(|errno| format!("clone3: {errno}"))? {
        Fork::Child => {
            let begun = Instant::now();
            let read = isolation::read(Some(proc));
            let took = if read.namespaces.len() < 7 { f64::NAN } else { micros(begun) };
            let sent = to.write_all(&took.to_ne_bytes());
            caisson_sys::exit(i32::from(sent.is_err()))
        }
        Fork::Parent { pidfd, .. } => {
            drop(to);
            let mut bytes = [0u8; 8];
            from.read_exact(&mut bytes).map_err(|error| error.to_string())?;
            while process::reap(&pidfd).map_err(|errno| format!("waitid: {errno}"))?.is_none() {
                std::thread::yield_now();
            }
            let took = f64::from_ne_bytes(bytes);
            if took.is_nan() { Err("/proc/self/ns could not be read".to_owned()) } else { Ok(took) }
        }
    }
}

fn measure(rounds: usize) -> Result<[Vec<f64>; 3], String> {
    let proc = file::openat2(Cwd, c"/proc", file::open::PATH | file::open::DIRECTORY, 0, 0)
        .map_err(|errno| format!("/proc: {errno}"))?;
    let text = |error: caisson_core::Error| error.to_string();
    let parent = Parent::open(&find::mount_point().map_err(text)?.join("receipt-cost")).map_err(text)?;
    let mut figures = [const { Vec::new() }; 3];
    for _ in 0..rounds {
        let group = Cgroup::create(&parent, c"round", &[], None).map_err(text)?;
        figures[0].push(isolation_read(&proc, &group)?);
        let begun = Instant::now();
        let _ = group.limits_held(&LIMITS);
        figures[1].push(micros(begun));
        let begun = Instant::now();
        let usage = group.usage();
        figures[2].push(micros(begun));
        if usage.system_us.is_none() {
            return Err("cpu.stat could not be read".to_owned());
        }
        while !group.remove(&parent).map_err(text)? {
            std::thread::yield_now();
        }
    }
    parent.remove_if_empty();
    Ok(figures)
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]
fn main() -> ExitCode {
    let rounds =
        std::env::args().nth(1).map_or(Some(200), |text| text.parse().ok().filter(|rounds| *rounds > 0));
    let Some(rounds) = rounds else {
        eprintln!("usage: receipt-cost [ROUNDS]");
        return ExitCode::from(2);
    };
    match measure(rounds) {
        Ok([isolation, limits, usage]) => {
            println!("{{\"isolation\":{isolation:?},\"limits\":{limits:?},\"usage\":{usage:?}}}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("receipt-cost: {message}");
            ExitCode::FAILURE
        }
    }
}
