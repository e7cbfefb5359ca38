//! What the receipt of a run costs: `receipt-cost [ROUNDS]`, as root.
//!
//! Each round is as a run is: a new group, a process forked into it, and its parent that reads what namespaces it is in, and
//! the group's figures and limits once it has ended. Prints one JSON object of three arrays, microseconds a round:
//! `isolation`, `limits` (read in place of a run that asked for some), `usage`.

use std::io::Read;
use std::process::ExitCode;
use std::time::Instant;

use caisson_core::cgroup::{Cgroup, Parent, find};
use caisson_core::isolation;
use caisson_sys::process::{self, Fork};

const LIMITS: [&std::ffi::CStr; 3] = [c"memory.max", c"cpu.max", c"pids.max"];

fn micros(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e6
}

/// The microseconds that the parent of a new process in the group needs to see what namespaces it is in.
fn isolation_read(group: &Cgroup) -> Result<f64, String> {
    let (mut from, to) = std::io::pipe().map_err(|error| error.to_string())?;
    match process::fork(0, Some(&group.main)).map_err(|errno| format!("clone3: {errno}"))? {
        Fork::Child => {
            drop(to);
            let ended = from.read(&mut [0u8]);
            caisson_sys::exit(i32::from(ended.is_err()))
        }
        Fork::Parent { pidfd, .. } => {
            let begun = Instant::now();
            let namespaces = isolation::namespaces_of(&pidfd);
            let took = micros(begun);
            drop(to);
            while process::reap(&pidfd).map_err(|errno| format!("waitid: {errno}"))?.is_none() {
                std::thread::yield_now();
            }
            namespaces.map(|_| took).ok_or_else(|| "this kernel does not tell namespaces by pidfd".to_owned())
        }
    }
}

fn measure(rounds: usize) -> Result<[Vec<f64>; 3], String> {
    let text = |error: caisson_core::Error| error.to_string();
    let parent = Parent::open(&find::mount_point().map_err(text)?.join("receipt-cost")).map_err(text)?;
    let mut figures = [const { Vec::new() }; 3];
    for _ in 0..rounds {
        let group = Cgroup::create(&parent, c"round", &[], None).map_err(text)?;
        figures[0].push(isolation_read(&group)?);
        let begun = Instant::now();
        let _ = caisson_core::cgroup::stats::limits_held(&group.whole, &LIMITS);
        figures[1].push(micros(begun));
        let begun = Instant::now();
        let usage = caisson_core::cgroup::stats::usage(&group.whole);
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
