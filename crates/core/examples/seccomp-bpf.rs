//! Writes the default filter's bytes to a file, an array of `sock_filter` as seccomp(2) takes it, for programs that
//! measure its load alone: `seccomp-bpf [--profile PROFILE] FILE [CAPABILITY ...]`, names as in `CAP_SYS_ADMIN`, the
//! usual fourteen if none. PROFILE gets the profile that it was compiled from, as `linux.seccomp` of a config.json: what
//! another runtime is to be given in a comparison.

use std::process::ExitCode;

use caisson_core::seccomp::{compile, default_profile};
use oci_spec::runtime::{Capabilities, Capability};

const USUAL: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

fn write(file: &str, names: &[String], json: Option<&str>) -> Result<(), String> {
    let usual: Vec<String> = USUAL.map(str::to_owned).to_vec();
    let names = if names.is_empty() { &usual } else { names };
    let bounding = names
        .iter()
        .map(|name| {
            let short = name.strip_prefix("CAP_").and_then(|short| short.parse::<Capability>().ok());
            short.ok_or_else(|| format!("{name} is not a capability"))
        })
        .collect::<Result<Capabilities, _>>()?;
    // Any kernel since 4.8 has the same profile.
    let profile = default_profile(&bounding, (5, 0));
    if let Some(json) = json {
        let text = serde_json::to_string(&profile).map_err(|error| error.to_string())?;
        std::fs::write(json, text).map_err(|error| format!("{json}: {error}"))?;
    }
    let filter = compile(&profile).map_err(|error| error.to_string())?;
    std::fs::write(file, &filter.program).map_err(|error| format!("{file}: {error}"))
}

#[expect(clippy::print_stderr, reason = "a program for people")]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (json, rest) = match arguments.as_slice() {
        [flag, json, rest @ ..] if flag == "--profile" => (Some(json.as_str()), rest),
        rest => (None, rest),
    };
    let done = match rest.split_first() {
        Some((file, names)) if !file.starts_with('-') => write(file, names, json),
        _ => Err("usage: seccomp-bpf [--profile PROFILE] FILE [CAPABILITY ...]".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("seccomp-bpf: {message}");
            ExitCode::FAILURE
        }
    }
}
