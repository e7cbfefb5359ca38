//! Figures of a group, from its own files. A file that is absent is a figure that is absent, never zero.

use crate::wire::wire;
use caisson_sys::Fd;
use std::ffi::CStr;

wire! {
    /// What a container used. Times in microseconds, sizes in bytes.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct Usage {
        /// CPU time in user mode.
        pub user_us: Option<u64>,
        /// CPU time in the kernel.
        pub system_us: Option<u64>,
        /// Periods in which cpu.max held it back.
        pub throttled_periods: Option<u64>,
        /// Memory now.
        pub memory: Option<u64>,
        /// The most memory at one time (5.19).
        pub memory_peak: Option<u64>,
        /// Bytes read from block devices.
        pub io_read: Option<u64>,
        /// Bytes written to block devices.
        pub io_written: Option<u64>,
        /// Processes and threads now.
        pub pids: Option<u64>,
        /// The most processes and threads at one time (6.1).
        pub pids_peak: Option<u64>,
        /// Processes that the OOM killer took, in the whole container.
        pub oom_kills: Option<u64>,
    }
}

/// The value behind `key ` in a file of `key value` lines.
fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

fn number(group: &Fd, name: &CStr) -> Option<u64> {
    super::read(group, name, &mut [0u8; 32]).ok()?.trim().parse().ok()
}

/// The figures of a group and all below it.
#[must_use]
pub fn usage(group: &Fd) -> Usage {
    let mut usage = Usage::default();
    let mut room = [0u8; 16 << 10];
    if let Ok(text) = super::read(group, c"cpu.stat", &mut room) {
        usage.user_us = keyed(text, "user_usec");
        usage.system_us = keyed(text, "system_usec");
        usage.throttled_periods = keyed(text, "nr_throttled");
    }
    if let Ok(text) = super::read(group, c"memory.events", &mut room) {
        usage.oom_kills = keyed(text, "oom_kill");
        usage.memory = number(group, c"memory.current");
        usage.memory_peak = number(group, c"memory.peak");
    }
    if let Ok(text) = super::read(group, c"io.stat", &mut room) {
        let sum = |key: &str| {
            let values =
                text.split_ascii_whitespace().filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok());
            Some(values.sum())
        };
        usage.io_read = sum("rbytes=");
        usage.io_written = sum("wbytes=");
    }
    usage.pids = number(group, c"pids.current");
    if usage.pids.is_some() {
        usage.pids_peak = number(group, c"pids.peak");
    }
    usage
}

/// How many processes of a group the OOM killer took: the half of `cause: 'oom'` that the kernel counts. The other half is
/// that the command died of SIGKILL.
#[must_use]
pub fn oom_kills(group: &Fd) -> u64 {
    super::read(group, c"memory.events", &mut [0u8; 1024])
        .ok()
        .and_then(|text| keyed(text, "oom_kill"))
        .unwrap_or(0)
}

/// The limits that the kernel holds for a group now: file and value, of the files that are there.
#[must_use]
pub fn limits_held(group: &Fd, files: &[&CStr]) -> Vec<(String, String)> {
    let mut held = Vec::new();
    for file in files {
        if let Ok(text) = super::read(group, file, &mut [0u8; 4096]) {
            held.push((file.to_string_lossy().into_owned(), text.trim().to_owned()));
        }
    }
    held
}
