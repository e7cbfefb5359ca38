//! What the Linux kernel offers a container runtime, typed: raw system calls with checked arguments, no libc
//! wrapper underneath, no allocation. Nothing here knows what a container is. Every other crate forbids unsafe code,
//! so this crate is all of it.
#![cfg_attr(not(feature = "std"), no_std)]

mod call;

pub use call::Errno;
