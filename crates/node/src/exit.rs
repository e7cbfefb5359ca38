//! The end of a program that is Caisson's own.

use napi_derive::napi;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Ends the process at once, as `_exit(2)`: nothing of Node is taken down. Those of stdin, stdout and stderr whose numbers
/// are in `blocking` are made to wait again first: others may share them, and `O_NONBLOCK` is the open file's, open(2).
#[napi(catch_unwind)]
pub fn exit(code: i32, blocking: Vec<i32>) {
    let wait = |descriptor: BorrowedFd<'_>| {
        if let Ok(flags) = fcntl(descriptor, FcntlArg::F_GETFL) {
            let flags = OFlag::from_bits_retain(flags) - OFlag::O_NONBLOCK;
            let _ = fcntl(descriptor, FcntlArg::F_SETFL(flags));
        }
    };
    for number in blocking {
        match number {
            0 => wait(io::stdin().as_fd()),
            1 => wait(io::stdout().as_fd()),
            2 => wait(io::stderr().as_fd()),
            _ => {}
        }
    }
    caisson_sys::exit(code)
}
