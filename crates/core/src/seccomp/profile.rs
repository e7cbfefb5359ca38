//! An OCI profile, checked and resolved: for each ABI of this machine the outcome of each number that the profile names.
//!
//! Of the conditional rules that match a call the most restrictive wins, in the kernel's order between filters
//! (seccomp(2): kill process, kill thread, trap, errno, trace, log, allow), whatever their order in the profile; of two
//! errnos the first. Of the unconditional rules of a call the first wins that is not the default action, as with
//! libseccomp, and a conditional one beats it only if it is more restrictive; libseccomp lets it hide them all, so a
//! profile never allows more here than there. The default action is for calls that no rule matches.

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator,
    LinuxSyscall,
};

use super::syscalls::{Abi, BEHIND_DOOR, Syscall};
use crate::{Error, Result};

/// `SECCOMP_RET_*` of linux/seccomp.h.
pub const RET_KILL_PROCESS: u32 = 0x8000_0000;
const RET_KILL_THREAD: u32 = 0;
const RET_TRAP: u32 = 0x0003_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_TRACE: u32 = 0x7ff0_0000;
const RET_LOG: u32 = 0x7ffc_0000;
/// The call is carried out.
pub const RET_ALLOW: u32 = 0x7fff_0000;
const RET_ACTION: u32 = 0xffff_0000;

/// A number that the kernel does not have; the words of seccomp_data.ret for it.
pub(super) const RET_ENOSYS: u32 = RET_ERRNO | nix::libc::ENOSYS as u32;

/// Flags of seccomp(2).
const FLAG_TSYNC: u32 = 1;
const FLAG_LOG: u32 = 2;
const FLAG_SPEC_ALLOW: u32 = 4;

/// The kernel's limit of an errno (MAX_ERRNO); a filter that gives more gets this.
const MAX_ERRNO: u32 = 4095;

/// Which ABIs processes of one machine can use: the native one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// x86-64, i386 and x32.
    X86_64,
    /// arm64 and arm.
    Aarch64,
}

impl Machine {
    /// The machine this was built for.
    #[cfg(target_arch = "x86_64")]
    pub const NATIVE: Self = Self::X86_64;
    /// The machine this was built for.
    #[cfg(target_arch = "aarch64")]
    pub const NATIVE: Self = Self::Aarch64;

    /// The ABIs, the native one first.
    #[must_use]
    pub const fn abis(self) -> &'static [Abi] {
        match self {
            Self::X86_64 => &[Abi::X86_64, Abi::X86, Abi::X32],
            Self::Aarch64 => &[Abi::Aarch64, Abi::Arm],
        }
    }
}

/// A condition on one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Condition {
    /// 0 to 5.
    pub index: u32,
    pub test: Test,
}

/// What is asked of the argument, unsigned, 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Test {
    Equal(u64),
    NotEqual(u64),
    Less(u64),
    LessEqual(u64),
    Greater(u64),
    GreaterEqual(u64),
    /// (argument & mask) == value.
    Masked {
        mask: u64,
        value: u64,
    },
}

/// A conditional rule: all its conditions hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Rule {
    pub conditions: Vec<Condition>,
    pub ret: u32,
}

/// What the filter gives for a number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Outcome {
    Ret(u32),
    /// The first rule that matches, else the last word.
    ByArguments(Vec<Rule>, u32),
}

/// The profile for one ABI.
#[derive(Debug)]
pub(super) struct Table {
    pub abi: Abi,
    /// By number: those that rules name and that do not simply have the default.
    pub calls: Vec<(u32, Outcome)>,
    /// Inclusive: numbers newer than the profile, which get ENOSYS: libraries probe for new calls and take only this for
    /// an answer (glibc and clone3, faccessat2).
    pub unknown: Option<(u32, u32)>,
}

/// The profile, checked.
#[derive(Debug)]
pub(super) struct Checked {
    pub default: u32,
    /// The native ABI is always there, as with libseccomp.
    pub tables: Vec<Table>,
    pub flags: u32,
}

impl Checked {
    pub(super) fn new(machine: Machine, profile: &LinuxSeccomp) -> Result<Self> {
        if profile.listener_path().is_some() {
            return Err(Error::unsupported("linux.seccomp.listenerPath"));
        }
        if profile.listener_metadata().as_ref().is_some_and(|metadata| !metadata.is_empty()) {
            return Err(Error::unsupported("linux.seccomp.listenerMetadata"));
        }
        let default = word(
            profile.default_action(),
            profile.default_errno_ret(),
            "linux.seccomp.defaultAction",
            "linux.seccomp.defaultErrnoRet",
        )?;
        let flags = flags(profile.flags().as_deref())?;
        let listed = profile.architectures().as_deref().unwrap_or_default();
        let abis = machine
            .abis()
            .iter()
            .enumerate()
            .filter(|(position, abi)| {
                *position == 0 || listed.iter().any(|arch| of_arch(*arch) == Some(**abi))
            })
            .map(|(_, abi)| *abi);
        let mut drafts: Vec<Draft> = abis.map(Draft::new).collect();
        let syscalls = profile.syscalls().as_deref().unwrap_or_default();
        let named = |door: &str| syscalls.iter().any(|entry| entry.names().iter().any(|name| name == door));
        let doors = Doors { socketcall: named("socketcall"), ipc: named("ipc") };
        for (position, entry) in syscalls.iter().enumerate() {
            add(&mut drafts, entry, &format!("linux.seccomp.syscalls[{position}]"), &doors)?;
        }
        let tables = drafts.into_iter().map(|draft| draft.finish(default)).collect();
        Ok(Self { default, tables, flags })
    }

    /// The ABI's table; none if the profile does not list the ABI.
    pub(super) fn table(&self, abi: Abi) -> Option<&Table> {
        self.tables.iter().find(|table| table.abi == abi)
    }
}

/// Whether a word lets the call through. A tracer is trusted to do what the profile wants, as in runc.
pub(super) fn permissive(ret: u32) -> bool {
    matches!(ret & RET_ACTION, RET_ALLOW | RET_LOG | RET_TRACE)
}

/// Whether the kernel carries the call out without asking anyone.
pub(super) fn carried_out(ret: u32) -> bool {
    matches!(ret & RET_ACTION, RET_ALLOW | RET_LOG)
}

/// Doors of i386 that the profile names itself: what it says of them is then all there is.
struct Doors {
    socketcall: bool,
    ipc: bool,
}

/// One ABI's rules while they are collected.
struct Draft {
    abi: Abi,
    rules: Vec<(u32, Rule)>,
    highest: Option<u32>,
}

impl Draft {
    fn new(abi: Abi) -> Self {
        Self { abi, rules: Vec::new(), highest: None }
    }

    fn push(&mut self, number: u32, rules: &[Rule]) {
        if self.abi.apart().is_none_or(|apart| number < apart) {
            self.highest = self.highest.max(Some(number));
        }
        self.rules.extend(rules.iter().map(|rule| (number, rule.clone())));
    }

    fn finish(mut self, default: u32) -> Table {
        // Stable: rules of one number stay in the profile's order.
        self.rules.sort_by_key(|(number, _)| *number);
        let calls = self.rules.chunk_by(|one, other| one.0 == other.0).filter_map(|rules| {
            let outcome = settle(rules.iter().map(|(_, rule)| rule), default);
            (outcome != Outcome::Ret(default)).then_some((rules[0].0, outcome))
        });
        let last = match (self.abi.apart(), self.abi) {
            (Some(apart), _) => apart - 1,
            (None, Abi::X86_64) => super::syscalls::X32_BIT - 1,
            (None, _) => u32::MAX,
        };
        // A default that lets calls through, or that is ENOSYS, needs no word of its own for new ones.
        let stub = !permissive(default) && default != RET_ENOSYS;
        let unknown = self.highest.filter(|_| stub).map(|highest| (highest + 1, last));
        Table { abi: self.abi, calls: calls.collect(), unknown }
    }
}

/// Sorts the conditional rules so that the first that matches is the one to take.
fn settle<'a>(rules: impl Iterator<Item = &'a Rule> + Clone, default: u32) -> Outcome {
    let whole =
        rules.clone().find(|rule| rule.conditions.is_empty() && rule.ret != default).map(|rule| rule.ret);
    let counts =
        |rule: &&Rule| !rule.conditions.is_empty() && whole.is_none_or(|ret| rank(rule.ret) < rank(ret));
    let mut rules: Vec<Rule> = rules.filter(counts).cloned().collect();
    rules.sort_by_key(|rule| rank(rule.ret));
    let last = whole.unwrap_or(default);
    while rules.last().is_some_and(|rule| rule.ret == last) {
        rules.pop();
    }
    if rules.is_empty() { Outcome::Ret(last) } else { Outcome::ByArguments(rules, last) }
}

/// The kernel compares actions as signed numbers, `SECCOMP_RET_KILL_PROCESS` being negative.
fn rank(ret: u32) -> i32 {
    (ret & RET_ACTION).cast_signed()
}

fn add(drafts: &mut [Draft], entry: &LinuxSyscall, field: &str, doors: &Doors) -> Result<()> {
    let ret =
        word(entry.action(), entry.errno_ret(), &format!("{field}.action"), &format!("{field}.errnoRet"))?;
    if entry.names().is_empty() {
        return Err(Error::invalid(format!("{field}.names"), "names no system call"));
    }
    let conditions = conditions(entry.args().as_deref().unwrap_or_default(), field)?;
    let (wide, narrow) = (rules(&conditions, ret, false), rules(&conditions, ret, true));
    for name in entry.names() {
        if name.is_empty() {
            return Err(Error::invalid(format!("{field}.names"), "an empty name"));
        }
        let syscall = Syscall::find(name);
        for draft in &mut *drafts {
            if let Some(number) = syscall.and_then(|syscall| syscall.number(draft.abi)) {
                draft.push(number, if draft.abi.narrow() { &narrow } else { &wide });
            }
            if draft.abi == Abi::X86 {
                add_door(draft, name, conditions.is_empty(), ret, doors);
            }
        }
    }
    Ok(())
}

/// i386 reaches sockets and System V IPC by other numbers too; a rule on `connect` that left `socketcall` alone would be
/// none. Arguments are behind a pointer there: a rule that denies by arguments denies all, one that allows does nothing.
fn add_door(draft: &mut Draft, name: &str, whole: bool, ret: u32, doors: &Doors) {
    let Ok(position) = BEHIND_DOOR.binary_search_by(|row| row.0.cmp(name)) else { return };
    let (_, door, call) = BEHIND_DOOR[position];
    let socket = door == "socketcall";
    if if socket { doors.socketcall } else { doors.ipc } || !whole && permissive(ret) {
        return;
    }
    // The upper half of ipc's first argument is a version (linux/ipc.h).
    let mask = if socket { 0xffff_ffff } else { 0xffff };
    let condition = Condition { index: 0, test: Test::Masked { mask, value: call } };
    if let Some(number) = draft.abi.number(door) {
        draft.push(number, &[Rule { conditions: vec![condition], ret }]);
    }
}

/// Two conditions on one argument make each condition a rule of its own, as runc does.
fn rules(conditions: &[Condition], ret: u32, narrow: bool) -> Vec<Rule> {
    let conditions: Vec<Condition> =
        conditions.iter().map(|condition| if narrow { condition.narrowed() } else { *condition }).collect();
    let mut seen = [false; 6];
    let twice =
        conditions.iter().any(|condition| std::mem::replace(&mut seen[condition.index as usize], true));
    if twice {
        conditions.into_iter().map(|condition| Rule { conditions: vec![condition], ret }).collect()
    } else {
        vec![Rule { conditions, ret }]
    }
}

impl Condition {
    /// For 32-bit registers, as libseccomp does: -1 is written with 64 bits and seen with 32.
    fn narrowed(self) -> Self {
        let low = |value: u64| value & 0xffff_ffff;
        let test = match self.test {
            Test::Equal(value) => Test::Equal(low(value)),
            Test::NotEqual(value) => Test::NotEqual(low(value)),
            Test::Masked { mask, value } => Test::Masked { mask: low(mask), value: low(value) },
            ordered => ordered,
        };
        Self { test, ..self }
    }
}

fn conditions(args: &[LinuxSeccompArg], field: &str) -> Result<Vec<Condition>> {
    args.iter()
        .enumerate()
        .map(|(position, arg)| {
            let index = u32::try_from(arg.index()).ok().filter(|index| *index < 6).ok_or_else(|| {
                Error::invalid(
                    format!("{field}.args[{position}].index"),
                    "a system call has arguments 0 to 5",
                )
            })?;
            let value = arg.value();
            let test = match arg.op() {
                LinuxSeccompOperator::ScmpCmpEq => Test::Equal(value),
                LinuxSeccompOperator::ScmpCmpNe => Test::NotEqual(value),
                LinuxSeccompOperator::ScmpCmpLt => Test::Less(value),
                LinuxSeccompOperator::ScmpCmpLe => Test::LessEqual(value),
                LinuxSeccompOperator::ScmpCmpGt => Test::Greater(value),
                LinuxSeccompOperator::ScmpCmpGe => Test::GreaterEqual(value),
                LinuxSeccompOperator::ScmpCmpMaskedEq => {
                    Test::Masked { mask: value, value: arg.value_two().unwrap_or(0) }
                }
            };
            Ok(Condition { index, test })
        })
        .collect()
}

fn word(action: LinuxSeccompAction, errno: Option<u32>, field: &str, errno_field: &str) -> Result<u32> {
    let plain = match action {
        LinuxSeccompAction::ScmpActErrno => {
            let errno = errno.unwrap_or(nix::libc::EPERM as u32);
            if errno > MAX_ERRNO {
                return Err(Error::invalid(
                    errno_field,
                    format!("{errno} is not an errno (0 to {MAX_ERRNO})"),
                ));
            }
            return Ok(RET_ERRNO | errno);
        }
        LinuxSeccompAction::ScmpActTrace => {
            let message = errno.unwrap_or(nix::libc::EPERM as u32);
            if message > 0xffff {
                return Err(Error::invalid(errno_field, format!("{message} has more than 16 bits")));
            }
            return Ok(RET_TRACE | message);
        }
        LinuxSeccompAction::ScmpActNotify => {
            return Err(Error::unsupported(format!("{field} SCMP_ACT_NOTIFY")));
        }
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => RET_KILL_THREAD,
        LinuxSeccompAction::ScmpActKillProcess => RET_KILL_PROCESS,
        LinuxSeccompAction::ScmpActTrap => RET_TRAP,
        LinuxSeccompAction::ScmpActLog => RET_LOG,
        LinuxSeccompAction::ScmpActAllow => RET_ALLOW,
    };
    // config-linux.md, seccomp: an errno for an action that has none must fail. 0 is how some tools write "none".
    if errno.is_some_and(|errno| errno != 0) {
        return Err(Error::invalid(errno_field, format!("{action} takes no errno")));
    }
    Ok(plain)
}

fn flags(listed: Option<&[LinuxSeccompFilterFlag]>) -> Result<u32> {
    // Without it the filter turns on a mitigation that costs CPU-bound programs up to 85 % before Linux 5.16.
    let Some(listed) = listed else { return Ok(FLAG_SPEC_ALLOW) };
    listed.iter().try_fold(0, |flags, flag| {
        Ok(flags
            | match flag {
                LinuxSeccompFilterFlag::SeccompFilterFlagLog => FLAG_LOG,
                LinuxSeccompFilterFlag::SeccompFilterFlagTsync => FLAG_TSYNC,
                LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => FLAG_SPEC_ALLOW,
                // Of use only with a listener, and the kernel refuses it without.
                LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => {
                    return Err(Error::unsupported(
                        "linux.seccomp.flags SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
                    ));
                }
            })
    })
}

/// The ABI of an OCI architecture; none for those that no machine of ours can run.
fn of_arch(arch: Arch) -> Option<Abi> {
    match arch {
        Arch::ScmpArchX86_64 => Some(Abi::X86_64),
        Arch::ScmpArchX86 => Some(Abi::X86),
        Arch::ScmpArchX32 => Some(Abi::X32),
        Arch::ScmpArchAarch64 => Some(Abi::Aarch64),
        Arch::ScmpArchArm => Some(Abi::Arm),
        _ => None,
    }
}
