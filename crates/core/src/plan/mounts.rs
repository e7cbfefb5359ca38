//! Mounts of the spec to sources, file systems and places. The options are a table.

use super::compile::c_string;
use super::{Attributes, Filesystem, LaunchPlan, Source, Step};
use crate::error::{Error, Result};
use crate::off::off;
use caisson_sys::mount::{attr, propagation};
use caisson_sys::process::namespace;
use oci_spec::runtime::{Mount, Spec};
use std::ffi::CString;

enum Effect {
    Set(u64),
    Clear(u64),
    SetRecursive(u64),
    ClearRecursive(u64),
    Propagate(u64),
    Bind { recursive: bool },
    Nothing,
}

/// What an option of mount(8) means for a mount; what is not here is the file system's own.
#[rustfmt::skip]
const OPTIONS: &[(&str, Effect)] = &[
    ("bind", Effect::Bind { recursive: false }), ("rbind", Effect::Bind { recursive: true }),
    ("defaults", Effect::Nothing), ("relatime", Effect::Clear(attr::ATIME)), ("norelatime", Effect::Nothing),
    ("ro", Effect::Set(attr::RDONLY)), ("rw", Effect::Clear(attr::RDONLY)),
    ("nosuid", Effect::Set(attr::NOSUID)), ("suid", Effect::Clear(attr::NOSUID)),
    ("nodev", Effect::Set(attr::NODEV)), ("dev", Effect::Clear(attr::NODEV)),
    ("noexec", Effect::Set(attr::NOEXEC)), ("exec", Effect::Clear(attr::NOEXEC)),
    ("noatime", Effect::Set(attr::NOATIME)), ("atime", Effect::Clear(attr::NOATIME)),
    ("strictatime", Effect::Set(attr::STRICTATIME)), ("nostrictatime", Effect::Clear(attr::ATIME)),
    ("nodiratime", Effect::Set(attr::NODIRATIME)), ("diratime", Effect::Clear(attr::NODIRATIME)),
    ("nosymfollow", Effect::Set(attr::NOSYMFOLLOW)), ("symfollow", Effect::Clear(attr::NOSYMFOLLOW)),
    ("rro", Effect::SetRecursive(attr::RDONLY)), ("rrw", Effect::ClearRecursive(attr::RDONLY)),
    ("rnosuid", Effect::SetRecursive(attr::NOSUID)), ("rsuid", Effect::ClearRecursive(attr::NOSUID)),
    ("rnodev", Effect::SetRecursive(attr::NODEV)), ("rdev", Effect::ClearRecursive(attr::NODEV)),
    ("rnoexec", Effect::SetRecursive(attr::NOEXEC)), ("rexec", Effect::ClearRecursive(attr::NOEXEC)),
    ("private", Effect::Propagate(propagation::PRIVATE)), ("rprivate", Effect::Propagate(propagation::PRIVATE)),
    ("slave", Effect::Propagate(propagation::SLAVE)), ("rslave", Effect::Propagate(propagation::SLAVE)),
    ("shared", Effect::Propagate(propagation::SHARED)), ("rshared", Effect::Propagate(propagation::SHARED)),
    ("unbindable", Effect::Propagate(propagation::UNBINDABLE)),
    ("runbindable", Effect::Propagate(propagation::UNBINDABLE)),
];

/// What init can make. proc and sysfs must land on plain directories (CVE-2019-19921 and kin): no link is followed.
const KINDS: &[(&str, &str)] = &[
    ("proc", "proc"),
    ("sysfs", "sysfs"),
    ("tmpfs", "tmpfs"),
    ("devpts", "devpts"),
    ("mqueue", "mqueue"),
    ("cgroup", "cgroup2"),
    ("cgroup2", "cgroup2"),
];

/// A path inside the container: absolute, bounded, without NUL. What it leads to is decided by the kernel, below the
/// container's root.
pub(super) fn inside(field: &str, path: &str) -> Result<CString> {
    if !path.starts_with('/') {
        return Err(Error::invalid(field, format!("'{path}' is not an absolute path")));
    }
    if path.len() > 4096 {
        return Err(Error::invalid(field, "is longer than 4096 bytes"));
    }
    c_string(field, path)
}

/// Adds the sources and the steps that open file systems; answers the steps that attach them, to come after the root
/// was entered.
pub(super) fn open(spec: &Spec, plan: &mut LaunchPlan) -> Result<Vec<Step>> {
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    let mut opened = Vec::new();
    let mut places = Vec::new();
    for (index, mount) in mounts.iter().enumerate() {
        let field = format!("mounts[{index}]");
        let target = inside(&format!("{field}.destination"), &mount.destination().to_string_lossy())?;
        if target.as_bytes().iter().all(|byte| *byte == b'/') {
            return Err(Error::invalid(format!("{field}.destination"), "destination can't be '/'"));
        }
        if mount.uid_mappings().is_some() || mount.gid_mappings().is_some() {
            return Err(Error::unsupported(format!("{field}.uidMappings")));
        }
        let (options, bind) = read_options(mount, &field)?;
        keep_proc(mount, bind.is_some(), &field)?;
        match bind.or_else(|| (mount.typ().as_deref() == Some("bind")).then_some(false)) {
            Some(recursive) => {
                places.push((Ok(plan.sources.len()), target, true));
                plan.sources.push(source(mount, &options, recursive, &field)?);
            }
            None => {
                let filesystem = filesystem(mount, options, plan.namespaces, &field)?;
                let follow = !matches!(filesystem.kind.to_bytes(), b"proc" | b"sysfs");
                places.push((Err(opened.len()), target, follow));
                opened.push(filesystem);
            }
        }
    }
    let first_opened = plan.sources.len();
    let attach = places.into_iter().map(|(slot, target, follow)| {
        let (slot, directory) = match slot {
            Ok(source) => (source, false),
            Err(opened) => (first_opened + opened, true),
        };
        Step::Attach { slot: u32::try_from(slot).unwrap_or(u32::MAX), target, directory, follow }
    });
    let attach = attach.collect();
    plan.steps.extend(opened.into_iter().map(|filesystem| Step::Open { filesystem }));
    Ok(attach)
}

/// Nodes as mounts of the machine's own, at the same path: in a user namespace none can be made (mknod(2)).
pub(super) fn bound(nodes: Vec<Step>, plan: &mut LaunchPlan) -> Vec<Step> {
    let attributes = Attributes {
        set: attr::NOSUID | attr::NOEXEC,
        propagation: propagation::PRIVATE,
        ..Attributes::default()
    };
    let bind = |step: Step| match step {
        Step::Node { path, .. } => {
            let field = format!("linux.devices {}", path.to_string_lossy());
            let slot = u32::try_from(plan.sources.len()).unwrap_or(u32::MAX);
            plan.sources.push(Source::Host { path: path.clone(), recursive: false, attributes, field });
            Step::Attach { slot, target: path, directory: false, follow: false }
        }
        other => other,
    };
    nodes.into_iter().map(bind).collect()
}

/// Files of /proc that hold figures of the machine: tools bind the container's own over them.
const FIGURES: [&str; 9] =
    ["cpuinfo", "diskstats", "loadavg", "meminfo", "net/dev", "slabinfo", "stat", "swaps", "uptime"];

/// At /proc stands a procfs, and below it nothing that a command takes for the kernel's word about itself
/// (CVE-2019-16884, CVE-2019-19921).
fn keep_proc(mount: &Mount, bind: bool, field: &str) -> Result<()> {
    let parts = mount.destination().components().filter_map(|part| match part {
        std::path::Component::Normal(name) => Some(name.to_string_lossy()),
        _ => None,
    });
    let parts: Vec<_> = parts.collect();
    let [first, below @ ..] = parts.as_slice() else { return Ok(()) };
    if first != "proc" || off("keep_proc") {
        return Ok(());
    }
    let fits = if below.is_empty() {
        let of_proc = mount.source().as_deref() == Some(std::path::Path::new("/proc"));
        if bind { of_proc } else { mount.typ().as_deref() == Some("proc") }
    } else {
        FIGURES.contains(&below.join("/").as_str())
    };
    let refuse = || {
        let place = mount.destination().display();
        Error::invalid(format!("{field}.destination"), format!("'{place}' would cover the container's /proc"))
    };
    if fits { Ok(()) } else { Err(refuse()) }
}

struct Options {
    attributes: Attributes,
    data: Vec<(CString, Option<CString>)>,
}

fn read_options(mount: &Mount, field: &str) -> Result<(Options, Option<bool>)> {
    let mut bind = None;
    let mut options = Options { attributes: Attributes::default(), data: Vec::new() };
    let change = &mut options.attributes;
    for option in mount.options().iter().flatten() {
        let effect = OPTIONS.iter().find(|(name, _)| name == option).map(|(_, effect)| effect);
        match effect {
            Some(Effect::Set(bits)) => {
                // The last word wins; the access-time settings are one field.
                if bits & attr::ATIME != 0 {
                    change.set &= !attr::ATIME;
                    change.clear |= attr::ATIME;
                } else {
                    change.clear &= !bits;
                }
                change.set |= bits;
            }
            Some(Effect::Clear(bits)) => {
                change.set &= !bits;
                change.clear |= if bits & attr::ATIME != 0 { attr::ATIME } else { *bits };
            }
            Some(Effect::SetRecursive(bits)) => change.set_recursive |= bits,
            Some(Effect::ClearRecursive(bits)) => change.clear_recursive |= bits,
            Some(Effect::Propagate(kind)) => change.propagation = *kind,
            Some(Effect::Bind { recursive }) => bind = Some(*recursive),
            Some(Effect::Nothing) => {}
            None => {
                let field = format!("{field}.options");
                let (key, value) = match option.split_once('=') {
                    Some((key, value)) => (key, Some(c_string(&field, value)?)),
                    None => (option.as_str(), None),
                };
                options.data.push((c_string(&field, key)?, value));
            }
        }
    }
    Ok((options, bind))
}

fn source(mount: &Mount, options: &Options, recursive: bool, field: &str) -> Result<Source> {
    if let Some((key, _)) = options.data.first() {
        let message = format!("'{}' is no option of a bind mount", key.to_string_lossy());
        return Err(Error::invalid(format!("{field}.options"), message));
    }
    let mut attributes = options.attributes;
    if attributes.propagation == 0 {
        attributes.propagation = propagation::PRIVATE;
    }
    let path = mount.source().as_ref().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
    let source_field = format!("{field}.source");
    if path.is_empty() {
        return Err(Error::invalid(source_field, "missing"));
    }
    let name = c_string(&source_field, &path)?;
    Ok(if path.starts_with('/') {
        Source::Host { path: name, recursive, attributes, field: source_field }
    } else {
        Source::Bundle { name, attributes, field: source_field }
    })
}

fn filesystem(mount: &Mount, options: Options, namespaces: u64, field: &str) -> Result<Filesystem> {
    let asked = mount.typ().as_deref().unwrap_or("none");
    let Some((_, kind)) = KINDS.iter().find(|(name, _)| *name == asked) else {
        return Err(Error::unsupported(format!("{field}.type {asked}")));
    };
    let change = options.attributes;
    if change.propagation != 0 && change.propagation != propagation::PRIVATE {
        return Err(Error::unsupported(format!("{field}.options propagation of a {asked}")));
    }
    let needs = match *kind {
        "cgroup2" => namespace::CGROUP,
        "mqueue" => namespace::IPC,
        "sysfs" => namespace::NET,
        _ => 0,
    };
    // In the host's cgroup namespace a fresh mount would change the options of the host's (security.md B3).
    if needs == namespace::CGROUP && namespaces & needs == 0 {
        return Err(Error::unsupported(format!("{field}.type cgroup in the host's cgroup namespace")));
    }
    // What mountinfo and df show as the device; a name, not a place.
    let mut data = options.data;
    if let Some(source) = mount.source().as_ref().filter(|source| !source.as_os_str().is_empty()) {
        let source = c_string(&format!("{field}.source"), &source.to_string_lossy())?;
        data.push((c_string(field, "source")?, Some(source)));
    }
    let mut attributes = change.set | change.set_recursive;
    if *kind == "cgroup2" && off("cgroup_ro") {
        attributes &= !attr::RDONLY;
    }
    Ok(Filesystem { kind: c_string(field, kind)?, options: data, attributes })
}
