//! Spec to plan: one call a subject, in the order in which init will act. Whatever is not built is refused here, by
//! the name of its field.

use super::process::Moment;
use super::{LaunchPlan, Step, mounts, process};
use crate::cgroup::{devices, limits};
use crate::error::{At, Error, Result, Stage};
use crate::off::off;
use crate::seccomp;
use crate::wire::Bytes;
use caisson_sys::process::namespace;
use oci_spec::runtime::{Linux, LinuxNamespaceType, Mount, Process, Spec};
use std::ffi::CString;
use std::path::Path;

/// What the runtime spec has no word for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// Init stays as pid 1 and reaps.
    pub supervise: bool,
    /// A spec without `linux.seccomp` gets the default profile for its capabilities.
    pub default_seccomp: bool,
    /// A spec without `linux.seccomp` gets this profile, in docker's form or the spec's.
    pub profile: Option<String>,
    /// A spec without a limit of open files gets the soft limit that programs expect, 1024, instead of the engine's.
    pub lower_files: bool,
    /// The environment gets `HOSTNAME`, unless the spec's has it: the host name may come with the launch.
    pub host_variable: bool,
    /// It will be launched in a user namespace: devices are bound instead of made, and no program guards them.
    pub mapped: bool,
    /// More groups of the user, by name or number, where the spec gives the user by `username`.
    pub groups: Vec<String>,
}

/// Compiles a spec.
///
/// # Errors
/// [`crate::Code::InvalidSpec`] and [`crate::Code::Unsupported`], with the field as subject.
pub fn compile(spec: &Spec, extras: &Extras) -> Result<LaunchPlan> {
    refuse_unbuilt(spec)?;
    let linux = spec.linux().clone().unwrap_or_default();
    let process = spec.process().as_ref().ok_or_else(|| Error::invalid("process", "missing"))?;
    let namespaces = namespaces(&linux)?;
    let new = |kind: u64| namespaces & kind != 0;
    if !new(namespace::MOUNT) || !new(namespace::PID) {
        return Err(Error::invalid(
            "linux.namespaces",
            "a container has mount and pid namespaces of its own",
        ));
    }
    let resources = linux.resources().clone().unwrap_or_default();
    let mut plan = LaunchPlan {
        namespaces,
        limits: limits::lines(&resources)?,
        devices: Bytes(match extras.mapped {
            true => Vec::new(),
            false => devices::program(resources.devices().as_deref())?,
        }),
        supervise: extras.supervise,
        host_variable: extras.host_variable,
        ..command(process)?
    };
    plan.steps.extend([Step::Session {}, Step::Keyring {}]);
    if new(namespace::NET) {
        plan.steps.push(Step::Loopback {});
    }
    let devices = devices::nodes(linux.devices().as_deref())?;
    let devices = if extras.mapped { mounts::bound(devices, &mut plan) } else { devices };
    let attach = mounts::open(spec, &mut plan)?;
    plan.steps.push(Step::EnterRoot {});
    plan.steps.extend(attach);
    // A directory of the host at /dev has what the caller wants it to have: nothing is made in it.
    let bound =
        |mount: &Mount| mount.destination() == Path::new("/dev") && mount.typ().as_deref() == Some("bind");
    if !spec.mounts().iter().flatten().any(bound) {
        plan.steps.extend(devices);
    }
    plan.steps.extend(terminal(process));
    if new(namespace::UTS) {
        plan.steps.push(Step::Hostname { name: spec.hostname().clone() });
        if let Some(name) = spec.domainname() {
            plan.steps.push(Step::Domainname { name: name.clone() });
        }
    } else if spec.hostname().is_some() {
        return Err(Error::invalid("hostname", "needs a uts namespace"));
    }
    plan.steps.extend(sysctls(&linux, namespaces)?);
    let paths = |field: &str, paths: &Option<Vec<String>>| -> Result<Vec<CString>> {
        paths.iter().flatten().map(|path| mounts::inside(field, path)).collect()
    };
    plan.steps.push(Step::ReadOnly { paths: paths("linux.readonlyPaths", linux.readonly_paths())? });
    plan.steps.push(Step::Mask { paths: paths("linux.maskedPaths", linux.masked_paths())? });
    // The working directory is made before the root may become read-only.
    let path = mounts::inside("process.cwd", &process.cwd().to_string_lossy())?;
    plan.steps.push(Step::WorkingDirectory { path, make: true });
    if spec.root().as_ref().is_some_and(|root| root.readonly().unwrap_or(false)) {
        plan.steps.push(Step::RootReadOnly {});
    }
    let filter = filter(&linux, process, extras)?;
    process::identity(process, filter, extras, Moment::Init, &mut plan)?;
    Ok(plan)
}

/// Compiles another command for a container that runs: of a spec, its process and its filter. What the container is made
/// of is not looked at.
///
/// # Errors
/// As [`compile`].
pub fn compile_exec(spec: &Spec, extras: &Extras) -> Result<LaunchPlan> {
    refuse_unbuilt(spec)?;
    let linux = spec.linux().clone().unwrap_or_default();
    let process = spec.process().as_ref().ok_or_else(|| Error::invalid("process", "missing"))?;
    // Written through a procfs of the container's, which only a process of its pid namespace could mount.
    if process.oom_score_adj().is_some() {
        return Err(Error::unsupported("process.oomScoreAdj"));
    }
    let mut plan = LaunchPlan { host_variable: extras.host_variable, ..command(process)? };
    plan.steps.extend([Step::Session {}, Step::Keyring {}]);
    plan.steps.extend(terminal(process));
    let path = mounts::inside("process.cwd", &process.cwd().to_string_lossy())?;
    plan.steps.push(Step::WorkingDirectory { path, make: false });
    let filter = filter(&linux, process, extras)?;
    process::identity(process, filter, extras, Moment::Exec, &mut plan)?;
    Ok(plan)
}

/// Words, environment, kind of stdio.
fn command(process: &Process) -> Result<LaunchPlan> {
    let words = process.args().iter().flatten().map(|word| c_string("process.args", word));
    let args = words.collect::<Result<Vec<_>>>()?;
    if args.is_empty() {
        return Err(Error::invalid("process.args", "no command specified"));
    }
    Ok(LaunchPlan {
        args,
        env: process::environment(process.env().as_deref())?,
        terminal: process.terminal().unwrap_or(false),
        ..LaunchPlan::default()
    })
}

fn terminal(process: &Process) -> Option<Step> {
    let size = process.console_size();
    let side = |side: u64| u16::try_from(side).unwrap_or(u16::MAX);
    let (columns, rows) = size.map_or((0, 0), |size| (side(size.width()), side(size.height())));
    process.terminal().unwrap_or(false).then_some(Step::Terminal { columns, rows })
}

fn filter(linux: &Linux, process: &Process, extras: &Extras) -> Result<Option<seccomp::Filter>> {
    if let Some(profile) = linux.seccomp() {
        return seccomp::compile(profile).map(Some);
    }
    let bounding = process::bounding(process);
    let profile = match &extras.profile {
        Some(text) => seccomp::read_profile(text, &bounding, kernel()?)?,
        None if extras.default_seccomp => seccomp::default_profile(&bounding, kernel()?),
        None => return Ok(None),
    };
    seccomp::compile(&profile).map(Some)
}

/// The running kernel's version, which decides what a default profile allows.
fn kernel() -> Result<(u32, u32)> {
    let name = nix::sys::utsname::uname().at(Stage::PLAN, "uname")?;
    let release = name.release().to_string_lossy().into_owned();
    let mut parts = release.split(['.', '-']).map_while(|part| part.parse().ok());
    Ok((parts.next().unwrap_or(0), parts.next().unwrap_or(0)))
}

/// A string that the kernel will be given.
pub(super) fn c_string(field: &str, text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::invalid(field, "holds a NUL byte"))
}

fn refuse_unbuilt(spec: &Spec) -> Result<()> {
    let refuse = |set: bool, field: &str| if set { Err(Error::unsupported(field)) } else { Ok(()) };
    refuse(spec.hooks().is_some(), "hooks")?;
    refuse(spec.vm().is_some(), "vm")?;
    if let Some(process) = spec.process() {
        refuse(process.apparmor_profile().is_some(), "process.apparmorProfile")?;
        refuse(process.selinux_label().is_some(), "process.selinuxLabel")?;
        refuse(process.io_priority().is_some(), "process.ioPriority")?;
        refuse(process.scheduler().is_some(), "process.scheduler")?;
        refuse(process.exec_cpu_affinity().is_some(), "process.execCPUAffinity")?;
    }
    let Some(linux) = spec.linux() else { return Ok(()) };
    refuse(linux.uid_mappings().is_some(), "linux.uidMappings")?;
    refuse(linux.gid_mappings().is_some(), "linux.gidMappings")?;
    refuse(linux.net_devices().is_some(), "linux.netDevices")?;
    refuse(linux.mount_label().is_some(), "linux.mountLabel")?;
    refuse(linux.intel_rdt().is_some(), "linux.intelRdt")?;
    refuse(linux.memory_policy().is_some(), "linux.memoryPolicy")?;
    refuse(linux.personality().is_some(), "linux.personality")?;
    refuse(linux.time_offsets().is_some(), "linux.timeOffsets")?;
    match linux.rootfs_propagation().as_deref() {
        None | Some("" | "private" | "rprivate") => Ok(()),
        Some(_) => Err(Error::unsupported("linux.rootfsPropagation")),
    }
}

fn namespaces(linux: &Linux) -> Result<u64> {
    let mut flags = 0;
    for entry in linux.namespaces().iter().flatten() {
        if entry.path().is_some() {
            return Err(Error::unsupported("linux.namespaces.path"));
        }
        let flag = match entry.typ() {
            LinuxNamespaceType::Mount => namespace::MOUNT,
            LinuxNamespaceType::Cgroup => namespace::CGROUP,
            LinuxNamespaceType::Uts => namespace::UTS,
            LinuxNamespaceType::Ipc => namespace::IPC,
            LinuxNamespaceType::Pid => namespace::PID,
            LinuxNamespaceType::Network => namespace::NET,
            LinuxNamespaceType::User | LinuxNamespaceType::Time => {
                return Err(Error::unsupported(format!("linux.namespaces {}", entry.typ())));
            }
        };
        if flags & flag != 0 {
            return Err(Error::invalid("linux.namespaces", format!("{} stands twice", entry.typ())));
        }
        flags |= flag;
    }
    Ok(flags)
}

/// Settings that a namespace of the container's own holds, and no others (CVE-2022-0811: a value is one write to one
/// file, a key is a path of plain components).
fn sysctls(linux: &Linux, namespaces: u64) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    for (key, value) in linux.sysctl().iter().flatten() {
        let field = || format!("linux.sysctl {key}");
        let separator =
            if key.contains('/') && key.find('/') < key.find('.').or(Some(usize::MAX)) { '/' } else { '.' };
        let parts: Vec<&str> = key.split(separator).collect();
        let plain = |part: &&str| {
            let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
            !part.is_empty() && *part != "." && *part != ".." && part.bytes().all(good)
        };
        if !parts.iter().all(plain) {
            return Err(Error::invalid(field(), "is no name of a setting"));
        }
        let held_by = match parts.as_slice() {
            ["net", _, ..] => namespace::NET,
            ["fs", "mqueue", _] => namespace::IPC,
            [
                "kernel",
                "msgmax" | "msgmnb" | "msgmni" | "sem" | "shmall" | "shmmax" | "shmmni" | "shm_rmid_forced",
            ] => namespace::IPC,
            ["kernel", "domainname"] => namespace::UTS,
            _ if off("sysctl_list") => namespace::NET,
            _ => return Err(Error::invalid(field(), "is not a setting of a namespace that a container has")),
        };
        if namespaces & held_by == 0 {
            return Err(Error::invalid(field(), "needs a namespace of the container's own"));
        }
        if value.contains(['\n', '\0']) {
            return Err(Error::invalid(field(), "its value is more than one line"));
        }
        let path = c_string(&field(), &parts.join("/"))?;
        steps.push(Step::Sysctl { path, value: value.clone() });
    }
    Ok(steps)
}
