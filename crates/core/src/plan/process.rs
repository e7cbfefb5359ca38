//! The process of the spec: environment, limits, ids, capabilities, and the order in which rights are given up.

use super::compile::c_string;
use super::{Extras, LaunchPlan, Step, User};
use crate::error::{Error, Result};
use crate::off::off;
use crate::seccomp::Filter;
use crate::wire::Bytes;
use oci_spec::runtime::{Capabilities, PosixRlimitType, Process};
use std::ffi::CString;

/// `RLIMIT_*` of asm-generic/resource.h, which x86-64 and aarch64 share.
const fn resource(kind: PosixRlimitType) -> u32 {
    match kind {
        PosixRlimitType::RlimitCpu => 0,
        PosixRlimitType::RlimitFsize => 1,
        PosixRlimitType::RlimitData => 2,
        PosixRlimitType::RlimitStack => 3,
        PosixRlimitType::RlimitCore => 4,
        PosixRlimitType::RlimitRss => 5,
        PosixRlimitType::RlimitNproc => 6,
        PosixRlimitType::RlimitNofile => 7,
        PosixRlimitType::RlimitMemlock => 8,
        PosixRlimitType::RlimitAs => 9,
        PosixRlimitType::RlimitLocks => 10,
        PosixRlimitType::RlimitSigpending => 11,
        PosixRlimitType::RlimitMsgqueue => 12,
        PosixRlimitType::RlimitNice => 13,
        PosixRlimitType::RlimitRtprio => 14,
        PosixRlimitType::RlimitRttime => 15,
    }
}

/// The environment: each entry `NAME=value`, the last of a name wins.
pub(super) fn environment(entries: Option<&[String]>) -> Result<Vec<CString>> {
    let mut kept: Vec<(&str, CString)> = Vec::new();
    for entry in entries.unwrap_or_default() {
        let Some((name, _)) = entry.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(Error::invalid("process.env", format!("'{entry}' is not NAME=value")));
        };
        let whole = c_string("process.env", entry)?;
        match kept.iter_mut().find(|(known, _)| *known == name) {
            Some(place) => place.1 = whole,
            None => kept.push((name, whole)),
        }
    }
    Ok(kept.into_iter().map(|(_, entry)| entry).collect())
}

/// The number of a capability, from include/uapi/linux/capability.h.
fn number(capability: oci_spec::runtime::Capability) -> u32 {
    use oci_spec::runtime::Capability as C;
    const ORDER: [C; 41] = [
        C::Chown,
        C::DacOverride,
        C::DacReadSearch,
        C::Fowner,
        C::Fsetid,
        C::Kill,
        C::Setgid,
        C::Setuid,
        C::Setpcap,
        C::LinuxImmutable,
        C::NetBindService,
        C::NetBroadcast,
        C::NetAdmin,
        C::NetRaw,
        C::IpcLock,
        C::IpcOwner,
        C::SysModule,
        C::SysRawio,
        C::SysChroot,
        C::SysPtrace,
        C::SysPacct,
        C::SysAdmin,
        C::SysBoot,
        C::SysNice,
        C::SysResource,
        C::SysTime,
        C::SysTtyConfig,
        C::Mknod,
        C::Lease,
        C::AuditWrite,
        C::AuditControl,
        C::Setfcap,
        C::MacOverride,
        C::MacAdmin,
        C::Syslog,
        C::WakeAlarm,
        C::BlockSuspend,
        C::AuditRead,
        C::Perfmon,
        C::Bpf,
        C::CheckpointRestore,
    ];
    ORDER.iter().position(|known| *known == capability).map_or(63, |index| index as u32)
}

fn set(capabilities: &Option<Capabilities>) -> u64 {
    capabilities.iter().flatten().fold(0, |set, capability| set | 1 << number(*capability))
}

/// The bounding set that the spec asks for.
pub(super) fn bounding(process: &Process) -> Capabilities {
    process.capabilities().as_ref().and_then(|sets| sets.bounding().clone()).unwrap_or_default()
}

/// Whatever init still calls after the filter is loaded, without no_new_privs: rights are given up under it.
const CALLS_UNDER_FILTER: [&str; 7] =
    ["prctl", "setgroups", "setresgid", "setresuid", "capset", "execve", "write"];
/// The same with no_new_privs, where the filter comes last.
const CALLS_UNDER_LAST_FILTER: [&str; 2] = ["execve", "write"];
/// Who gives up the rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// The first process of a container.
    Init,
    /// Another one of a container that runs.
    Exec,
}

/// The steps from limits to the last right given up, in the order of the DESIGN: without no_new_privs the filter is
/// loaded while SYS_ADMIN is effective; with it, last.
pub(super) fn identity(
    process: &Process,
    filter: Option<Filter>,
    extras: &Extras,
    moment: Moment,
    plan: &mut LaunchPlan,
) -> Result<()> {
    let steps = &mut plan.steps;
    if let Some(score) = process.oom_score_adj() {
        if !(-1000..=1000).contains(&score) {
            return Err(Error::invalid(
                "process.oomScoreAdj",
                format!("{score} is not between -1000 and 1000"),
            ));
        }
        steps.push(Step::OomScore { score });
    }
    let mut seen = Vec::new();
    let mut limits = Vec::new();
    for limit in process.rlimits().iter().flatten() {
        let field = format!("process.rlimits {}", limit.typ());
        if seen.contains(&limit.typ()) {
            return Err(Error::invalid(field, "stands twice"));
        }
        if limit.soft() > limit.hard() {
            return Err(Error::invalid(field, "its soft limit is above its hard limit"));
        }
        seen.push(limit.typ());
        let resource = resource(limit.typ());
        limits.push(Step::ResourceLimit { resource, soft: limit.soft(), hard: limit.hard(), field });
    }
    if extras.lower_files && !seen.contains(&PosixRlimitType::RlimitNofile) {
        limits.push(Step::LowerFiles {});
    }
    let user = process.user();
    steps.push(Step::FindUser { user: find(process, &extras.groups) });
    steps.push(Step::Umask { mask: user.umask().unwrap_or(0o022) & 0o777 });
    steps.push(Step::Report {});
    // Not before init has opened all that it opens.
    steps.append(&mut limits);

    let no_new_privileges = process.no_new_privileges().unwrap_or(false);
    let sets = process.capabilities().clone().unwrap_or_default();
    let keep = set(sets.bounding());
    let (permitted, ambient) = (set(sets.permitted()), set(sets.ambient()));
    let inheritable = set(sets.inheritable());
    if ambient & !(permitted & inheritable) != 0 {
        return Err(Error::invalid(
            "process.capabilities.ambient",
            "holds what is not permitted and inheritable",
        ));
    }
    let load = |filter: Filter, needs: &[&str]| -> Result<Step> {
        filter.check_launch(needs)?;
        Ok(Step::Filter { program: Bytes(filter.program), flags: filter.flags })
    };
    let (early, late) = if no_new_privileges { (None, filter) } else { (filter, None) };
    let appears_first = moment == Moment::Exec && off("early");
    if appears_first {
        steps.push(Step::Appear {});
    }
    steps.push(Step::LimitBounding { keep });
    if let Some(filter) = early {
        if moment == Moment::Exec {
            check_joiner(&filter, plan.terminal)?;
        }
        steps.push(load(filter, &CALLS_UNDER_FILTER)?);
    }
    steps.push(Step::Become {});
    steps.push(Step::Capabilities { effective: set(sets.effective()), permitted, inheritable, ambient });
    if no_new_privileges {
        steps.push(Step::NoNewPrivileges {});
    }
    if moment == Moment::Exec && !appears_first {
        steps.push(Step::Appear {});
    }
    if let Some(filter) = late {
        steps.push(load(filter, &CALLS_UNDER_LAST_FILTER)?);
    }
    Ok(())
}

/// A joiner becomes a process of the container under the filter, unless that comes last.
fn check_joiner(filter: &Filter, terminal: bool) -> Result<()> {
    const CLONE_PARENT_SIGCHLD: u64 = 0x8000 | 17;
    const TIOCSCTTY: u64 = 0x540e;
    filter.check_call("clone", Some([CLONE_PARENT_SIGCHLD, 0, 0, 0, 0, 0]))?;
    filter.check_call("read", None)?;
    filter.check_call("setsid", None)?;
    if terminal { filter.check_call("ioctl", Some([0, TIOCSCTTY, 0, 0, 0, 0])) } else { Ok(()) }
}

/// A `username` (docker's words) is looked up in the container; plain ids are taken as they are, the gid first among
/// the groups (CVE-2022-36109).
fn find(process: &Process, more: &[String]) -> User {
    let user = process.user();
    let extra = user.additional_gids().clone().unwrap_or_default();
    match user.username() {
        Some(words) => {
            let groups = extra.iter().map(ToString::to_string).chain(more.iter().cloned()).collect();
            User::Named { words: words.clone(), groups }
        }
        None => {
            let mut groups = vec![user.gid()];
            groups.extend(extra.into_iter().filter(|gid| *gid != user.gid()));
            User::Ids { uid: user.uid(), gid: user.gid(), groups }
        }
    }
}
