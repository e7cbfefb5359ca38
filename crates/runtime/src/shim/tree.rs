//! Killing a command with all its children where it has no cgroup. It is the one to which its orphans go
//! (`PR_SET_CHILD_SUBREAPER`), so all of them are below it for as long as it lives: it is stopped, not killed, until they
//! are gone.

use caisson_sys::Fd;
use caisson_sys::process;
use std::collections::BTreeMap;
use std::fs;

const SIGKILL: i32 = 9;
const SIGSTOP: i32 = 19;
/// Rounds in which what forks faster than it is found is tried.
const ROUNDS: usize = 64;

/// Kills the children of `pid`, and theirs, then itself.
pub(super) fn kill(pid: u32, pidfd: &Fd) {
    let _ = process::send_signal(pidfd, SIGSTOP);
    for _ in 0..ROUNDS {
        let below = below(pid);
        if below.is_empty() {
            break;
        }
        for child in below {
            // The handle first, and the question after it: what it refers to is then known.
            if let Ok(handle) = process::pidfd_open(child)
                && is_below(child, pid)
            {
                let _ = process::send_signal(&handle, SIGKILL);
            }
        }
    }
    let _ = process::send_signal(pidfd, SIGKILL);
}

/// Parent and state, fields 4 and 3 of proc_pid_stat(5).
fn parent(pid: u32) -> Option<(u32, u8)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut words = stat.rsplit_once(") ")?.1.split(' ');
    let state = *words.next()?.as_bytes().first()?;
    Some((words.next()?.parse().ok()?, state))
}

fn is_below(mut pid: u32, root: u32) -> bool {
    // Bounded: a pid namespace has no chain of this length but by a race.
    for _ in 0..4096 {
        match parent(pid) {
            Some((above, _)) if above == root => return true,
            Some((above, _)) if above > 1 => pid = above,
            _ => return false,
        }
    }
    false
}

/// All that live below `root`: a dead child waits there for a parent that is stopped.
fn below(root: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let known: BTreeMap<u32, (u32, u8)> = pids.filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let reaches = |pid: u32| {
        let mut at = pid;
        for _ in 0..4096 {
            match known.get(&at) {
                Some((above, _)) if *above == root => return true,
                Some((above, _)) => at = *above,
                None => return false,
            }
        }
        false
    };
    let alive = known.iter().filter(|(_, (_, state))| *state != b'Z' && *state != b'X');
    alive.map(|(pid, _)| *pid).filter(|pid| reaches(*pid)).collect()
}
