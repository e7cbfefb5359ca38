//! Packets with descriptors. sendmsg(2), recvmsg(2), unix(7): `SCM_RIGHTS`.

use crate::call::{Errno, call, nr};
use crate::fd::{Descriptor, Fd};

/// The most descriptors in one packet.
pub const MAX_DESCRIPTORS: usize = 8;

#[repr(C)]
struct Header {
    name: usize,
    name_length: u32,
    parts: *const Part,
    part_count: usize,
    control: *mut Control,
    control_length: usize,
    flags: i32,
}

#[repr(C)]
struct Part {
    start: *mut u8,
    length: usize,
}

#[repr(C, align(8))]
struct Control {
    length: usize,
    level: i32,
    kind: i32,
    descriptors: [i32; MAX_DESCRIPTORS],
}

const SOL_SOCKET: i32 = 1;
const SCM_RIGHTS: i32 = 1;
const CONTROL_HEADER: usize = 16;
const MSG_CTRUNC: i32 = 0x8;
const MSG_TRUNC: i32 = 0x20;
const MSG_DONTWAIT: usize = 0x40;
const MSG_NOSIGNAL: usize = 0x4000;
const MSG_CMSG_CLOEXEC: usize = 0x4000_0000;

/// Sends one packet, or what a stream has room for, with at most [`MAX_DESCRIPTORS`] descriptors; answers how many bytes
/// went. Never a SIGPIPE.
///
/// # Errors
/// As sendmsg(2): EPIPE after the other end is gone, EAGAIN if `wait` is false and there is no room. E2BIG for too many
/// descriptors.
pub fn send(
    socket: impl Descriptor,
    bytes: &[u8],
    descriptors: &[&dyn Descriptor],
    wait: bool,
) -> Result<usize, Errno> {
    let mut control =
        Control { length: 0, level: SOL_SOCKET, kind: SCM_RIGHTS, descriptors: [0; MAX_DESCRIPTORS] };
    if descriptors.len() > MAX_DESCRIPTORS {
        return Err(Errno::E2BIG);
    }
    for (place, descriptor) in control.descriptors.iter_mut().zip(descriptors) {
        *place = descriptor.raw();
    }
    control.length = CONTROL_HEADER + descriptors.len() * 4;
    let part = Part { start: bytes.as_ptr().cast_mut(), length: bytes.len() };
    let with_control = !descriptors.is_empty();
    let header = Header {
        name: 0,
        name_length: 0,
        parts: &raw const part,
        part_count: 1,
        control: if with_control { &raw mut control } else { core::ptr::null_mut() },
        control_length: if with_control { control.length.next_multiple_of(8) } else { 0 },
        flags: 0,
    };
    let flags = MSG_NOSIGNAL | if wait { 0 } else { MSG_DONTWAIT };
    loop {
        let args = [socket.raw() as usize, core::ptr::from_ref(&header) as usize, flags, 0, 0, 0];
        // SAFETY: the header, its one part and its control message are whole and outlive the call, which only reads them.
        match unsafe { call(nr::SENDMSG, args) } {
            Err(Errno::EINTR) => {}
            answer => return answer,
        }
    }
}

/// A packet that was received.
#[derive(Debug)]
pub struct Received {
    /// How many bytes of the room it filled; 0 at the end of the socket.
    pub length: usize,
    /// Its descriptors, close-on-exec, in order.
    pub descriptors: [Option<Fd>; MAX_DESCRIPTORS],
    /// Whether a part of it did not fit and is lost.
    pub cut: bool,
}

/// Receives one packet into `room`.
///
/// # Errors
/// As recvmsg(2): EAGAIN where nothing waits and `wait` is false.
pub fn receive(socket: impl Descriptor, room: &mut [u8], wait: bool) -> Result<Received, Errno> {
    let mut control = Control { length: 0, level: 0, kind: 0, descriptors: [-1; MAX_DESCRIPTORS] };
    let part = Part { start: room.as_mut_ptr(), length: room.len() };
    let mut header = Header {
        name: 0,
        name_length: 0,
        parts: &raw const part,
        part_count: 1,
        control: &raw mut control,
        control_length: size_of::<Control>(),
        flags: 0,
    };
    let flags = MSG_CMSG_CLOEXEC | if wait { 0 } else { MSG_DONTWAIT };
    let length = loop {
        let args = [socket.raw() as usize, core::ptr::from_mut(&mut header) as usize, flags, 0, 0, 0];
        // SAFETY: the header, its one part (the borrowed room) and the control message are whole and outlive the call.
        match unsafe { call(nr::RECVMSG, args) } {
            Err(Errno::EINTR) => {}
            answer => break answer?,
        }
    };
    let has_rights =
        header.control_length >= CONTROL_HEADER && control.level == SOL_SOCKET && control.kind == SCM_RIGHTS;
    let count = if has_rights { control.length.saturating_sub(CONTROL_HEADER) / 4 } else { 0 };
    let mut received = Received {
        length,
        descriptors: Default::default(),
        cut: header.flags & (MSG_TRUNC | MSG_CTRUNC) != 0,
    };
    for (place, raw) in received.descriptors.iter_mut().zip(control.descriptors).take(count) {
        *place = Some(Fd::from_call(raw as usize));
    }
    Ok(received)
}
