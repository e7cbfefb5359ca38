//! What the Linux kernel offers a container runtime, typed: raw system calls with checked arguments, no libc
//! wrapper underneath, no allocation. Nothing here knows what a container is. Every other crate forbids unsafe code,
//! so this crate is all of it.
//!
//! A file a group of man pages: [`mount`] the newer mount API, [`file`] opening and executing, [`process`] clone3 and
//! what belongs to a process, [`identity`] ids, capabilities and filters, [`socket`] packets with descriptors,
//! [`xattr`], [`ioctl`], [`bpf`], [`shared`] memory. [`Fd`] is a descriptor that closes itself; with the feature `std` it converts to and
//! from std's.
#![cfg_attr(not(feature = "std"), no_std)]

pub mod bpf;
mod call;
pub mod fd;
pub mod file;
pub mod identity;
pub mod ioctl;
pub mod mount;
pub mod process;
pub mod shared;
pub mod socket;
pub mod xattr;

pub use call::{Errno, exit};
pub use fd::{Cwd, Descriptor, Fd};
