//! Resources of the spec to lines of cgroup files: one table, one loop that writes, one function that says which row
//! could not be had. Conversions are those of runc 1.4 and crun 1.23.

use crate::error::{At, Code, Error, Result, Stage};
use crate::plan::Limit;
use caisson_sys::{Errno, Fd};
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources, LinuxThrottleDevice};
use std::ffi::{CStr, CString};
use std::path::Path;

fn line(field: &str, file: &CStr, value: impl Into<String>) -> Limit {
    Limit {
        field: format!("linux.resources.{field}"),
        file: file.to_owned(),
        value: value.into(),
        optional: false,
    }
}

/// The lines that a container's group is given.
///
/// # Errors
/// [`Code::InvalidSpec`] for values that contradict one another, [`Code::Unsupported`] for fields that version 2 lacks.
pub fn lines(resources: &LinuxResources) -> Result<Vec<Limit>> {
    let mut lines = Vec::new();
    if let Some(memory) = resources.memory() {
        self::memory(memory, &mut lines)?;
    }
    if let Some(cpu) = resources.cpu() {
        self::cpu(cpu, &mut lines)?;
    }
    if let Some(pids) = resources.pids() {
        let value = match pids.limit() {
            limit if limit < 0 => "max".to_owned(),
            limit => limit.max(1).to_string(),
        };
        lines.push(line("pids.limit", c"pids.max", value));
    }
    if let Some(io) = resources.block_io() {
        self::io(io, &mut lines)?;
    }
    for (set, field) in [
        (resources.hugepage_limits().as_ref().is_some_and(|limits| !limits.is_empty()), "hugepageLimits"),
        (resources.network().is_some(), "network"),
        (resources.rdma().as_ref().is_some_and(|limits| !limits.is_empty()), "rdma"),
    ] {
        if set {
            return Err(Error::unsupported(format!("linux.resources.{field}")));
        }
    }
    let mut unified: Vec<_> = resources.unified().iter().flatten().collect();
    unified.sort();
    for (file, value) in unified {
        let field = format!("linux.resources.unified {file}");
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if !file.contains('.') || !file.bytes().all(plain) || file.starts_with("cgroup.") {
            return Err(Error::invalid(field, "is no file of a controller"));
        }
        let name = CString::new(file.as_str()).map_err(|_| Error::invalid(&field, "holds a NUL byte"))?;
        for value in value.lines() {
            lines.push(Limit {
                field: field.clone(),
                file: name.clone(),
                value: value.to_owned(),
                optional: false,
            });
        }
    }
    Ok(lines)
}

fn bytes(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

fn memory(memory: &LinuxMemory, lines: &mut Vec<Limit>) -> Result<()> {
    for (set, field) in [
        (memory.kernel().is_some(), "kernel"),
        (memory.kernel_tcp().is_some(), "kernelTCP"),
        (memory.swappiness().is_some(), "swappiness"),
        (memory.disable_oom_killer().unwrap_or(false), "disableOOMKiller"),
        (memory.use_hierarchy() == Some(false), "useHierarchy"),
    ] {
        if set {
            return Err(Error::unsupported(format!(
                "linux.resources.memory.{field} (cgroup version 2 has no such file)"
            )));
        }
    }
    let limit = memory.limit().filter(|limit| *limit != 0);
    if let Some(reservation) = memory.reservation().filter(|reservation| *reservation != 0) {
        lines.push(line("memory.reservation", c"memory.low", bytes(reservation)));
    }
    if let Some(limit) = limit {
        lines.push(line("memory.limit", c"memory.max", bytes(limit)));
    }
    // memory.swap is memory and swap together; the file counts swap alone.
    if let Some(swap) = memory.swap().filter(|swap| *swap != 0) {
        let value = match (limit, swap) {
            (_, ..0) => "max".to_owned(),
            (None, _) => return Err(Error::invalid("linux.resources.memory.swap", "needs memory.limit")),
            (Some(limit), swap) if limit > 0 && swap >= limit => (swap - limit).to_string(),
            _ => return Err(Error::invalid("linux.resources.memory.swap", "is below memory.limit")),
        };
        // A kernel without swap accounting has no file, and no swap to limit.
        let optional = value == "0" || value == "max";
        lines.push(Limit { optional, ..line("memory.swap", c"memory.swap.max", value) });
    }
    Ok(())
}

/// runc's curve: 1024 shares are a weight of 100, 2 are 1, 262144 are 10000.
fn weight_of_shares(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            10f64.powf((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0).ceil() as u64
        }
    }
}

fn cpu(cpu: &LinuxCpu, lines: &mut Vec<Limit>) -> Result<()> {
    for (set, field) in [
        (cpu.realtime_runtime().is_some_and(|value| value != 0), "realtimeRuntime"),
        (cpu.realtime_period().is_some_and(|value| value != 0), "realtimePeriod"),
    ] {
        if set {
            return Err(Error::unsupported(format!("linux.resources.cpu.{field}")));
        }
    }
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
        lines.push(line("cpu.shares", c"cpu.weight", weight_of_shares(shares).to_string()));
    }
    if cpu.quota().is_some() || cpu.period().is_some() {
        let period = cpu.period().filter(|period| *period != 0).unwrap_or(100_000);
        let quota =
            cpu.quota().filter(|quota| *quota > 0).map_or("max".to_owned(), |quota| quota.to_string());
        lines.push(line("cpu.quota", c"cpu.max", format!("{quota} {period}")));
    }
    if let Some(burst) = cpu.burst() {
        lines.push(line("cpu.burst", c"cpu.max.burst", burst.to_string()));
    }
    if let Some(idle) = cpu.idle() {
        lines.push(line("cpu.idle", c"cpu.idle", idle.to_string()));
    }
    if let Some(cpus) = cpu.cpus().as_ref().filter(|cpus| !cpus.is_empty()) {
        lines.push(line("cpu.cpus", c"cpuset.cpus", cpus.clone()));
    }
    if let Some(mems) = cpu.mems().as_ref().filter(|mems| !mems.is_empty()) {
        lines.push(line("cpu.mems", c"cpuset.mems", mems.clone()));
    }
    Ok(())
}

fn io(io: &LinuxBlockIo, lines: &mut Vec<Limit>) -> Result<()> {
    for (set, field) in [
        (io.leaf_weight().is_some_and(|weight| weight != 0), "leafWeight"),
        (io.weight_device().as_ref().is_some_and(|devices| !devices.is_empty()), "weightDevice"),
    ] {
        if set {
            return Err(Error::unsupported(format!("linux.resources.blockIO.{field}")));
        }
    }
    if let Some(weight) = io.weight().filter(|weight| *weight != 0) {
        if !(10..=1000).contains(&weight) {
            return Err(Error::invalid(
                "linux.resources.blockIO.weight",
                format!("{weight} is not between 10 and 1000"),
            ));
        }
        let weight = 1 + (u64::from(weight) - 10) * 9999 / 990;
        lines.push(line("blockIO.weight", c"io.weight", format!("default {weight}")));
    }
    let mut throttle = |field: &str, key: &str, devices: &Option<Vec<LinuxThrottleDevice>>| {
        for device in devices.iter().flatten() {
            let value = match device.rate() {
                0 => "max".to_owned(),
                rate => rate.to_string(),
            };
            let value = format!("{}:{} {key}={value}", device.major(), device.minor());
            lines.push(line(&format!("blockIO.{field}"), c"io.max", value));
        }
    };
    throttle("throttleReadBpsDevice", "rbps", io.throttle_read_bps_device());
    throttle("throttleWriteBpsDevice", "wbps", io.throttle_write_bps_device());
    throttle("throttleReadIOPSDevice", "riops", io.throttle_read_iops_device());
    throttle("throttleWriteIOPSDevice", "wiops", io.throttle_write_iops_device());
    Ok(())
}

/// The controller that a file belongs to: what stands before its first dot.
fn controller(file: &CStr) -> &str {
    file.to_str().unwrap_or_default().split('.').next().unwrap_or_default()
}

/// Hands the controllers that `limits` need down from the group `dir`, and no others.
///
/// # Errors
/// [`Code::NoController`], naming the limit and what holds the controller.
pub(super) fn enable(path: &Path, dir: &Fd, limits: &[Limit]) -> Result<()> {
    let mut wanted: Vec<(&str, &Limit)> = Vec::new();
    for limit in limits.iter().filter(|limit| !limit.optional) {
        let name = controller(&limit.file);
        if !wanted.iter().any(|(known, _)| *known == name) {
            wanted.push((name, limit));
        }
    }
    let mut room = [0u8; 1024];
    let enabled: Vec<String> = super::read(dir, c"cgroup.subtree_control", &mut room)
        .at(Stage::CGROUP, path.to_string_lossy())?
        .split_ascii_whitespace()
        .map(str::to_owned)
        .collect();
    wanted.retain(|(name, _)| !enabled.iter().any(|known| known == name));
    let Some((_, first)) = wanted.first() else { return Ok(()) };
    let words: Vec<String> = wanted.iter().map(|(name, _)| format!("+{name}")).collect();
    let Err(errno) = super::write(dir, c"cgroup.subtree_control", words.join(" ").as_bytes()) else {
        return Ok(());
    };
    // One of them is missing: say which, and what to do.
    let available = super::read(dir, c"cgroup.controllers", &mut room).unwrap_or_default().to_owned();
    let missing =
        wanted.iter().find(|(name, _)| !available.split_ascii_whitespace().any(|known| known == *name));
    match missing {
        None if errno == Errno::ENOENT || errno == Errno::EBUSY => enable_above(path, dir, &wanted, first),
        None => Err(errno).at(Stage::CGROUP, path.to_string_lossy()),
        Some(_) => enable_above(path, dir, &wanted, first),
    }
}

/// The controllers must come down from every ancestor first; this happens once a boot.
fn enable_above(path: &Path, dir: &Fd, wanted: &[(&str, &Limit)], first: &Limit) -> Result<()> {
    let top = super::find::mount_point()?;
    let words = |names: &[(&str, &Limit)]| {
        names.iter().map(|(name, _)| format!("+{name}")).collect::<Vec<_>>().join(" ")
    };
    let mut ancestors: Vec<&Path> =
        path.ancestors().skip(1).take_while(|ancestor| ancestor.starts_with(&top)).collect();
    ancestors.reverse();
    for ancestor in ancestors {
        let available = std::fs::read_to_string(ancestor.join("cgroup.controllers")).unwrap_or_default();
        for (name, limit) in wanted {
            if !available.split_ascii_whitespace().any(|known| known == *name) {
                return Err(no_controller(name, limit, ancestor, &top));
            }
        }
        let control = ancestor.join("cgroup.subtree_control");
        let handed = std::fs::read_to_string(&control).unwrap_or_default();
        // Somebody else's hand them down already, or not at all.
        if wanted.iter().all(|(name, _)| handed.split_ascii_whitespace().any(|known| known == *name)) {
            continue;
        }
        let written = std::fs::write(&control, words(wanted));
        if let Err(error) = written {
            let busy = error.raw_os_error() == Some(Errno::EBUSY.raw());
            let advice = if busy {
                "it holds processes itself: move them to a group below it"
            } else {
                "it is not delegated"
            };
            let message =
                format!("cannot hand controllers down from {}: {error}; {advice}", ancestor.display());
            return Err(Error::new(Code::NoController, Stage::CGROUP, &first.field, message));
        }
    }
    super::write(dir, c"cgroup.subtree_control", words(wanted).as_bytes())
        .at(Stage::CGROUP, path.to_string_lossy())
}

fn no_controller(name: &str, limit: &Limit, at: &Path, top: &Path) -> Error {
    let held_by_v1 = std::fs::read_to_string("/proc/self/cgroup")
        .unwrap_or_default()
        .lines()
        .any(|line| line.split(':').nth(1).is_some_and(|names| names.split(',').any(|known| known == name)));
    let why = if held_by_v1 {
        "a cgroup version 1 hierarchy holds it: boot with cgroup_no_v1=all or systemd.unified_cgroup_hierarchy=1".to_owned()
    } else if at == top {
        "this kernel or this host's cgroup2 mount does not offer it".to_owned()
    } else {
        format!("{} was not given it: delegate it (Delegate={name} in the unit)", at.display())
    };
    let message = format!("needs the cgroup controller '{name}', which is not available: {why}");
    Error::new(Code::NoController, Stage::CGROUP, &limit.field, message)
}

/// Writes every line.
///
/// # Errors
/// The field, the file and the kernel's errno.
pub(super) fn write(path: &Path, group: &Fd, limits: &[Limit]) -> Result<()> {
    for limit in limits {
        match super::write(group, &limit.file, limit.value.as_bytes()) {
            Err(Errno::ENOENT) if limit.optional => {}
            Err(errno) => {
                let file = limit.file.to_string_lossy();
                let message = format!(
                    "cannot write '{}' to {}/{file}: {}",
                    limit.value,
                    path.display(),
                    nix::errno::Errno::from_raw(errno.raw())
                );
                let code = if errno == Errno::ENOENT { Code::NoController } else { Code::InvalidSpec };
                let error = Error::new(code, Stage::CGROUP, &limit.field, message);
                return Err(Error { errno: Some(errno.raw()), ..error });
            }
            Ok(()) => {}
        }
    }
    Ok(())
}
