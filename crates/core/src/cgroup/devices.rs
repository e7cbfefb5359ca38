//! Devices: the spec's rules to the eBPF program of the group, its list to nodes below /dev.
//!
//! `BPF_PROG_TYPE_CGROUP_DEVICE` is asked at every open and mknod of a device: context `{ access_type, major, minor }`,
//! the low half of access_type is block (1) or char (2), the high half mknod (1), read (2), write (4).

use crate::error::{Error, Result};
use crate::plan::Step;
use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};
use std::ffi::CString;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    allow: bool,
    /// Block (1), char (2), or both (0).
    kind: u32,
    major: Option<u32>,
    minor: Option<u32>,
    access: u32,
}

const MKNOD: u32 = 1;
const READ: u32 = 2;
const WRITE: u32 = 4;
const BLOCK: u32 = 1;
const CHAR: u32 = 2;

const fn allow(kind: u32, major: Option<u32>, minor: Option<u32>, access: u32) -> Rule {
    Rule { allow: true, kind, major, minor, access }
}

/// What every container may use, as runc adds it: any node may be made (opening it is asked again), the six nodes of
/// /dev, ptmx and ptys, tun.
const ALWAYS: [Rule; 11] = [
    allow(CHAR, None, None, MKNOD),
    allow(BLOCK, None, None, MKNOD),
    allow(CHAR, Some(1), Some(3), MKNOD | READ | WRITE),
    allow(CHAR, Some(1), Some(5), MKNOD | READ | WRITE),
    allow(CHAR, Some(1), Some(7), MKNOD | READ | WRITE),
    allow(CHAR, Some(1), Some(8), MKNOD | READ | WRITE),
    allow(CHAR, Some(1), Some(9), MKNOD | READ | WRITE),
    allow(CHAR, Some(5), Some(0), MKNOD | READ | WRITE),
    allow(CHAR, Some(5), Some(2), MKNOD | READ | WRITE),
    allow(CHAR, Some(136), None, MKNOD | READ | WRITE),
    allow(CHAR, Some(10), Some(200), MKNOD | READ | WRITE),
];

/// The nodes that every container has, all 0666 of root: major, minor, name.
const NODES: [(u32, u32, &str); 6] = [
    (1, 3, "/dev/null"),
    (1, 5, "/dev/zero"),
    (1, 7, "/dev/full"),
    (1, 8, "/dev/random"),
    (1, 9, "/dev/urandom"),
    (5, 0, "/dev/tty"),
];

/// The links of /dev, made after the nodes.
const LINKS: [(&str, &str); 5] = [
    ("/dev/ptmx", "pts/ptmx"),
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
];

fn number(field: &str, value: Option<i64>) -> Result<Option<u32>> {
    match value {
        None | Some(-1) => Ok(None),
        Some(value) => u32::try_from(value)
            .map(Some)
            .map_err(|_| Error::invalid(field, format!("{value} is no number of a device"))),
    }
}

fn rule(index: usize, given: &LinuxDeviceCgroup) -> Result<Rule> {
    let field = |name: &str| format!("linux.resources.devices[{index}].{name}");
    let kind = match given.typ() {
        None | Some(LinuxDeviceType::A) => 0,
        Some(LinuxDeviceType::B) => BLOCK,
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => CHAR,
        Some(LinuxDeviceType::P) => return Err(Error::invalid(field("type"), "p is no device")),
    };
    let mut access = 0;
    for letter in given.access().as_deref().unwrap_or("rwm").chars() {
        access |= match letter {
            'r' => READ,
            'w' => WRITE,
            'm' => MKNOD,
            _ => return Err(Error::invalid(field("access"), format!("'{letter}' is none of r, w, m"))),
        };
    }
    Ok(Rule {
        allow: given.allow(),
        kind,
        major: number(&field("major"), given.major())?,
        minor: number(&field("minor"), given.minor())?,
        access,
    })
}

/// The program, `struct bpf_insn` as bytes; empty if every device is allowed. Later rules win, so they are asked first;
/// what no rule names is denied. A node of `linux.devices` gets no rule by itself, as in runc.
///
/// # Errors
/// [`crate::Code::InvalidSpec`] naming the rule.
pub fn program(rules: Option<&[LinuxDeviceCgroup]>) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    for (index, given) in rules.unwrap_or_default().iter().enumerate() {
        all.push(rule(index, given)?);
    }
    if let Some(Rule { allow: true, kind: 0, major: None, minor: None, access: 7 }) = all.last() {
        return Ok(Vec::new());
    }
    all.extend(ALWAYS);
    Ok(assemble(&all))
}

fn kind_of(device: &LinuxDevice) -> Result<(Option<u32>, u32, u32)> {
    let field = format!("linux.devices {}", device.path().display());
    let kind = match device.typ() {
        LinuxDeviceType::B => Some(BLOCK),
        LinuxDeviceType::C | LinuxDeviceType::U => Some(CHAR),
        LinuxDeviceType::P => None,
        LinuxDeviceType::A => return Err(Error::invalid(field, "a is no type of a node")),
    };
    let part = |value: i64| number(&field, Some(value)).map(|value| value.unwrap_or(0));
    Ok((kind, part(device.major())?, part(device.minor())?))
}

// The few opcodes of eBPF that are needed, from include/uapi/linux/bpf.h.
const LDX_W: u8 = 0x61;
const MOV32_REG: u8 = 0xbc;
const MOV32_IMM: u8 = 0xb4;
const AND32_IMM: u8 = 0x54;
const RSH32_IMM: u8 = 0x74;
const JNE32_IMM: u8 = 0x56;
const JNE32_REG: u8 = 0x5e;
const EXIT: u8 = 0x95;

fn instruction(out: &mut Vec<u8>, code: u8, destination: u8, source: u8, offset: i16, immediate: i32) {
    out.push(code);
    out.push(source << 4 | destination);
    out.extend_from_slice(&offset.to_ne_bytes());
    out.extend_from_slice(&immediate.to_ne_bytes());
}

fn assemble(rules: &[Rule]) -> Vec<u8> {
    let mut out = Vec::new();
    // r2 kind, r3 access, r4 major, r5 minor.
    instruction(&mut out, LDX_W, 2, 1, 0, 0);
    instruction(&mut out, MOV32_REG, 3, 2, 0, 0);
    instruction(&mut out, AND32_IMM, 2, 0, 0, 0xffff);
    instruction(&mut out, RSH32_IMM, 3, 0, 0, 16);
    instruction(&mut out, LDX_W, 4, 1, 4, 0);
    instruction(&mut out, LDX_W, 5, 1, 8, 0);
    let mut every = false;
    for rule in rules.iter().rev() {
        // Each test skips to the next rule; the length of the rest of the block is known from what it tests.
        let partial = rule.access != MKNOD | READ | WRITE;
        let tests = usize::from(rule.kind != 0)
            + usize::from(rule.major.is_some())
            + usize::from(rule.minor.is_some());
        let mut left = tests + if partial { 3 } else { 0 } + 2;
        let mut test = |out: &mut Vec<u8>, register: u8, value: u32| {
            left -= 1;
            instruction(out, JNE32_IMM, register, 0, left as i16, value.cast_signed());
        };
        if rule.kind != 0 {
            test(&mut out, 2, rule.kind);
        }
        if let Some(major) = rule.major {
            test(&mut out, 4, major);
        }
        if let Some(minor) = rule.minor {
            test(&mut out, 5, minor);
        }
        if partial {
            // An allowing rule must cover all that is asked; a denying one any of it.
            instruction(&mut out, MOV32_REG, 1, 3, 0, 0);
            instruction(&mut out, AND32_IMM, 1, 0, 0, rule.access.cast_signed());
            if rule.allow {
                instruction(&mut out, JNE32_REG, 1, 3, 2, 0);
            } else {
                instruction(&mut out, 0x16, 1, 0, 2, 0); // JEQ32: nothing of it asked
            }
        }
        instruction(&mut out, MOV32_IMM, 0, 0, 0, i32::from(rule.allow));
        instruction(&mut out, EXIT, 0, 0, 0, 0);
        every = tests == 0 && !partial;
        if every {
            break;
        }
    }
    if !every {
        instruction(&mut out, MOV32_IMM, 0, 0, 0, 0);
        instruction(&mut out, EXIT, 0, 0, 0, 0);
    }
    out
}

/// The steps that fill /dev: the six nodes and the links that every container has, and the spec's own.
///
/// # Errors
/// [`crate::Code::InvalidSpec`] naming the device.
pub fn nodes(devices: Option<&[LinuxDevice]>) -> Result<Vec<Step>> {
    const CHARACTER: u32 = 0o020_000;
    const BLOCK_NODE: u32 = 0o060_000;
    const FIFO: u32 = 0o010_000;
    let path =
        |text: &str| CString::new(text).map_err(|_| Error::invalid("linux.devices", "holds a NUL byte"));
    let mut steps = Vec::new();
    for (major, minor, name) in NODES {
        steps.push(Step::Node { path: path(name)?, mode: CHARACTER | 0o666, major, minor, uid: 0, gid: 0 });
    }
    for (name, target) in LINKS {
        steps.push(Step::Link { path: path(name)?, target: path(target)? });
    }
    for device in devices.unwrap_or_default() {
        let text = device.path().to_string_lossy();
        if NODES.iter().any(|(.., name)| *name == text) {
            continue;
        }
        if !text.starts_with("/dev/") || text.split('/').any(|part| part == "..") {
            return Err(Error::invalid(format!("linux.devices {text}"), "is no path below /dev"));
        }
        let (kind, major, minor) = kind_of(device)?;
        let kind = match kind {
            Some(BLOCK) => BLOCK_NODE,
            Some(_) => CHARACTER,
            None => FIFO,
        };
        let mode = kind | device.file_mode().unwrap_or(0o666) & 0o7777;
        let (uid, gid) = (device.uid().unwrap_or(0), device.gid().unwrap_or(0));
        steps.push(Step::Node { path: path(&text)?, mode, major, minor, uid, gid });
    }
    Ok(steps)
}
