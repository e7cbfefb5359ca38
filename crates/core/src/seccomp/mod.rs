//! System call filters: an OCI seccomp profile in, the bytes of a classic BPF program for seccomp(2) out.
//!
//! `profile` checks and resolves, `tree` chooses the shape, `bpf` writes and runs instructions, `syscalls` and `default`
//! are data, `file` reads docker's form of a profile. Differences from runc, which goes through libseccomp, are in
//! `profile`'s first lines; numbers newer than the profile get ENOSYS as there.

mod bpf;
mod default;
mod file;
mod profile;
mod syscalls;
mod tree;

#[cfg(test)]
mod tests;

use oci_spec::runtime::LinuxSeccomp;

pub use bpf::{Data, End, INSTRUCTION, MAX_INSTRUCTIONS, run};
pub use default::default_profile;
pub use file::read_profile;
pub use profile::{Machine, RET_ALLOW, RET_KILL_PROCESS};
pub use syscalls::{Abi, X32_BIT};

use crate::{Code, Error, Result, Stage};

/// A compiled filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// An array of `struct sock_filter` (8 bytes each) in this machine's byte order, at most 4096 of them.
    pub program: Vec<u8>,
    /// `SECCOMP_FILTER_FLAG_*` for seccomp(2).
    pub flags: u32,
    machine: Machine,
}

/// Compiles a profile for this machine.
///
/// # Errors
/// Names the field below `linux.seccomp` that is malformed or not supported; `linux.seccomp.syscalls` if the program
/// would be longer than the kernel takes.
pub fn compile(profile: &LinuxSeccomp) -> Result<Filter> {
    compile_for(Machine::NATIVE, profile)
}

/// Compiles a profile for another kind of machine, of this one's byte order.
///
/// # Errors
/// As [`compile`].
pub fn compile_for(machine: Machine, profile: &LinuxSeccomp) -> Result<Filter> {
    let checked = profile::Checked::new(machine, profile)?;
    let assembler = tree::assemble(&checked);
    if assembler.len() > MAX_INSTRUCTIONS {
        let message = format!("needs {} instructions, the kernel takes {MAX_INSTRUCTIONS}", assembler.len());
        return Err(Error::invalid("linux.seccomp.syscalls", message));
    }
    Ok(Filter { program: assembler.finish(), flags: checked.flags, machine })
}

impl Filter {
    /// What a call of an ABI gets: all words that are possible for it, with these arguments or with any.
    ///
    /// # Errors
    /// A bug of ours: the program is not one that `compile` makes.
    pub fn answers(&self, abi: Abi, number: u32, arguments: Option<[u64; 6]>) -> Result<Vec<End>> {
        run(&self.program, &Data { number, arch: abi.audit(), arguments })
            .ok_or_else(|| Error::new(Code::Internal, Stage::SECCOMP, "program", "is not a filter of ours"))
    }

    /// Refuses a filter that does not let through what is still to be called after it is loaded, by the names of the
    /// native ABI, whatever the arguments.
    ///
    /// # Errors
    /// Names the call: the profile forbids it, or allows it only with some arguments.
    pub fn check_launch(&self, needs: &[&str]) -> Result<()> {
        needs.iter().try_for_each(|name| self.check_call(name, None))
    }

    /// The same for one call, with these arguments only if they are given.
    ///
    /// # Errors
    /// As [`Filter::check_launch`].
    pub fn check_call(&self, name: &str, arguments: Option<[u64; 6]>) -> Result<()> {
        let native = self.machine.abis()[0];
        let number = native.number(name).ok_or_else(|| {
            Error::new(Code::Internal, Stage::SECCOMP, name, "is no system call of this machine")
        })?;
        let ends = self.answers(native, number, arguments)?;
        let allowed = ends.iter().filter(|end| profile::carried_out(end.word)).count();
        if allowed == ends.len() {
            return Ok(());
        }
        let how = if allowed == 0 { "forbids" } else { "allows only with some arguments" };
        let message = format!("the profile {how} {name}, which is still called after the filter is loaded");
        Err(Error::invalid("linux.seccomp.syscalls", message))
    }
}
