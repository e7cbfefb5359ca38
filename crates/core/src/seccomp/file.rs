//! Docker's form of a profile, a JSON file: an OCI profile whose entries can depend on capabilities, machine and kernel
//! (`includes`, `excludes`), and whose architectures can be given for several machines (`archMap`).

use oci_spec::runtime::{Arch, Capabilities, Capability, LinuxSeccomp, LinuxSyscall};
use serde_json::{Map, Value};

use super::profile::Machine;
use crate::{Error, Result};

/// Reads `--security-opt seccomp=FILE`, for a container with these capabilities in its bounding set, on this machine and
/// a kernel of this major and minor number. Fields are named from the top of the file: `syscalls[3].includes.caps`.
///
/// # Errors
/// Names the field that is malformed or unknown: a mistyped `excludes` would make a profile that allows more.
pub fn read_profile(text: &str, bounding: &Capabilities, kernel: (u32, u32)) -> Result<LinuxSeccomp> {
    read_profile_for(Machine::NATIVE, text, bounding, kernel)
}

pub(super) fn read_profile_for(
    machine: Machine,
    text: &str,
    bounding: &Capabilities,
    kernel: (u32, u32),
) -> Result<LinuxSeccomp> {
    let container = Container { machine, bounding, kernel };
    let value = serde_json::from_str(text)
        .map_err(|error| Error::invalid("seccomp profile", format!("is no JSON: {error}")))?;
    let mut file = object(value, "seccomp profile")?;
    known(&file, "", &FILE_FIELDS)?;
    // Podman's profiles say it in words too; the number is what counts.
    number_for_word(&mut file, "", "defaultErrno", "defaultErrnoRet")?;
    if let Some(map) = take(&mut file, "archMap") {
        if file.get("architectures").is_some_and(|listed| *listed != Value::Array(Vec::new())) {
            return Err(Error::invalid("archMap", "stands beside architectures: only one of them can"));
        }
        file.insert("architectures".to_owned(), architectures(map, machine)?);
    }
    let entries = match take(&mut file, "syscalls") {
        None => Vec::new(),
        Some(Value::Array(entries)) => entries,
        Some(_) => return Err(Error::invalid("syscalls", "is not a list")),
    };
    file.retain(|field, _| !COMMENTS.contains(&field.as_str()));
    let mut profile: LinuxSeccomp = named(serde_json::from_value(Value::Object(file)), "seccomp profile")?;
    let mut syscalls = Vec::new();
    for (position, entry) in entries.into_iter().enumerate() {
        syscalls.extend(container.entry(entry, &format!("syscalls[{position}]"))?);
    }
    profile.set_syscalls(Some(syscalls));
    Ok(profile)
}

const COMMENTS: [&str; 3] = ["comment", "$comment", "$schema"];
const FILE_FIELDS: [&str; 9] = [
    "defaultAction",
    "defaultErrnoRet",
    "defaultErrno",
    "archMap",
    "architectures",
    "flags",
    "listenerPath",
    "listenerMetadata",
    "syscalls",
];
const ENTRY_FIELDS: [&str; 8] =
    ["names", "name", "action", "errnoRet", "errno", "args", "includes", "excludes"];

struct Container<'a> {
    machine: Machine,
    bounding: &'a Capabilities,
    kernel: (u32, u32),
}

impl Container<'_> {
    /// The entry, if it is for this container.
    fn entry(&self, entry: Value, field: &str) -> Result<Option<LinuxSyscall>> {
        let mut entry = object(entry, field)?;
        let prefix = format!("{field}.");
        known(&entry, &prefix, &ENTRY_FIELDS)?;
        number_for_word(&mut entry, &prefix, "errno", "errnoRet")?;
        if let Some(name) = take(&mut entry, "name").filter(|name| *name != "") {
            if entry.get("names").is_some_and(|names| *names != Value::Array(Vec::new())) {
                return Err(Error::invalid(
                    format!("{field}.name"),
                    "stands beside names: only one of them can",
                ));
            }
            entry.insert("names".to_owned(), Value::Array(vec![name]));
        }
        let excluded = match take(&mut entry, "excludes") {
            None => false,
            Some(filter) => {
                let filter = Filter::read(filter, &format!("{field}.excludes"))?;
                // Any one of them is enough.
                filter.arches.iter().any(|arch| self.is_arch(arch))
                    || filter.caps.iter().any(|cap| self.bounding.contains(cap))
                    || filter.min_kernel.is_some_and(|kernel| self.kernel >= kernel)
            }
        };
        let included = match take(&mut entry, "includes") {
            None => true,
            Some(filter) => {
                let filter = Filter::read(filter, &format!("{field}.includes"))?;
                (filter.arches.is_empty() || filter.arches.iter().any(|arch| self.is_arch(arch)))
                    && filter.caps.iter().all(|cap| self.bounding.contains(cap))
                    && filter.min_kernel.is_none_or(|kernel| self.kernel >= kernel)
            }
        };
        entry.retain(|field, _| !COMMENTS.contains(&field.as_str()));
        let entry = named(serde_json::from_value(Value::Object(entry)), field)?;
        Ok((included && !excluded).then_some(entry))
    }

    /// Go's word for the machine, as docker compares it.
    fn is_arch(&self, arch: &str) -> bool {
        arch == match self.machine {
            Machine::X86_64 => "amd64",
            Machine::Aarch64 => "arm64",
        }
    }
}

/// `includes` or `excludes`.
struct Filter {
    caps: Vec<Capability>,
    arches: Vec<String>,
    min_kernel: Option<(u32, u32)>,
}

impl Filter {
    fn read(value: Value, field: &str) -> Result<Self> {
        let mut filter = object(value, field)?;
        known(&filter, &format!("{field}."), &["caps", "arches", "minKernel"])?;
        let caps_field = format!("{field}.caps");
        let caps = words(take(&mut filter, "caps"), &caps_field)?
            .into_iter()
            .map(|name| {
                name.strip_prefix("CAP_")
                    .and_then(|name| name.parse().ok())
                    .ok_or_else(|| Error::invalid(&caps_field, format!("{name} is not a capability")))
            })
            .collect::<Result<_>>()?;
        let arches = words(take(&mut filter, "arches"), &format!("{field}.arches"))?;
        let min_kernel = match take(&mut filter, "minKernel") {
            None => None,
            Some(value) => {
                let version = value.as_str().and_then(|text| {
                    let (major, minor) = text.split_once('.')?;
                    Some((major.parse().ok()?, minor.parse().ok()?))
                });
                Some(version.ok_or_else(|| {
                    Error::invalid(
                        format!("{field}.minKernel"),
                        format!("{value} is not two numbers with a point"),
                    )
                })?)
            }
        };
        Ok(Self { caps, arches, min_kernel })
    }
}

/// The line of this machine, with those below it.
fn architectures(map: Value, machine: Machine) -> Result<Value> {
    let native = match machine {
        Machine::X86_64 => Arch::ScmpArchX86_64,
        Machine::Aarch64 => Arch::ScmpArchAarch64,
    };
    let Value::Array(rows) = map else { return Err(Error::invalid("archMap", "is not a list")) };
    let mut found = Vec::new();
    for (position, row) in rows.into_iter().enumerate() {
        let field = format!("archMap[{position}]");
        let mut row = object(row, &field)?;
        known(&row, &format!("{field}."), &["architecture", "subArchitectures"])?;
        let architecture = take(&mut row, "architecture").unwrap_or_default();
        let architecture: Arch =
            named(serde_json::from_value(architecture), &format!("{field}.architecture"))?;
        let below = words(take(&mut row, "subArchitectures"), &format!("{field}.subArchitectures"))?;
        if architecture == native && found.is_empty() {
            found = std::iter::once(native.to_string()).chain(below).map(Value::String).collect();
        }
    }
    Ok(Value::Array(found))
}

fn number_for_word(map: &mut Map<String, Value>, prefix: &str, word: &str, number: &str) -> Result<()> {
    let said = take(map, word).is_some_and(|word| word != "");
    if said && map.get(number).is_none_or(Value::is_null) {
        return Err(Error::unsupported(format!("{prefix}{word} without {number}")));
    }
    Ok(())
}

/// Takes a field out; null is as good as absent.
fn take(map: &mut Map<String, Value>, field: &str) -> Option<Value> {
    map.remove(field).filter(|value| !value.is_null())
}

fn object(value: Value, field: &str) -> Result<Map<String, Value>> {
    match value {
        Value::Object(map) => Ok(map),
        _ => Err(Error::invalid(field, "is not an object")),
    }
}

fn known(map: &Map<String, Value>, prefix: &str, fields: &[&str]) -> Result<()> {
    match map.keys().find(|key| !fields.contains(&key.as_str()) && !COMMENTS.contains(&key.as_str())) {
        Some(key) => Err(Error::invalid(format!("{prefix}{key}"), "is no field of a seccomp profile")),
        None => Ok(()),
    }
}

fn words(value: Option<Value>, field: &str) -> Result<Vec<String>> {
    value.map_or(Ok(Vec::new()), |value| named(serde_json::from_value(value), field))
}

fn named<T>(read: serde_json::Result<T>, field: &str) -> Result<T> {
    read.map_err(|error| Error::invalid(field, error.to_string()))
}
