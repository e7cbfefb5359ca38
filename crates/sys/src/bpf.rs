//! Device programs of cgroups. bpf(2), `BPF_PROG_TYPE_CGROUP_DEVICE`.

use crate::call::{Errno, call, nr};
use crate::fd::{Descriptor, Fd};

const BPF_PROG_LOAD: usize = 5;
const BPF_PROG_ATTACH: usize = 8;

/// Loads a device program: `program` is an array of `struct bpf_insn` as bytes. The kernel verifies it.
///
/// # Errors
/// As bpf(2): EPERM without CAP_BPF or CAP_SYS_ADMIN; EINVAL or EACCES for a program that the verifier refuses.
pub fn load_device_program(program: &[u8]) -> Result<Fd, Errno> {
    const CGROUP_DEVICE: u32 = 15;
    #[repr(C, align(8))]
    struct Load {
        kind: u32,
        instructions: u32,
        first: u64,
        license: u64,
        rest: [u64; 12],
    }
    let attributes = Load {
        kind: CGROUP_DEVICE,
        instructions: (program.len() / 8) as u32,
        first: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        rest: [0; 12],
    };
    let pointer = core::ptr::from_ref(&attributes) as usize;
    // SAFETY: the attributes are whole, the rest of them zero, and both pointers are valid for what the kernel reads.
    unsafe { call(nr::BPF, [BPF_PROG_LOAD, pointer, size_of::<Load>(), 0, 0, 0]) }.map(Fd::from_call)
}

/// Attaches a loaded device program to a cgroup, beside those of others (`BPF_F_ALLOW_MULTI`).
///
/// # Errors
/// As bpf(2): EPERM where an ancestor's program allows no others.
pub fn attach_device_program(cgroup: impl Descriptor, program: impl Descriptor) -> Result<(), Errno> {
    const BPF_CGROUP_DEVICE: u32 = 6;
    const BPF_F_ALLOW_MULTI: u32 = 2;
    let attributes: [u32; 6] = [
        cgroup.raw().cast_unsigned(),
        program.raw().cast_unsigned(),
        BPF_CGROUP_DEVICE,
        BPF_F_ALLOW_MULTI,
        0,
        0,
    ];
    // SAFETY: the attributes are numbers, and as long as we say.
    unsafe {
        call(nr::BPF, [BPF_PROG_ATTACH, attributes.as_ptr() as usize, size_of_val(&attributes), 0, 0, 0])
    }
    .map(drop)
}
