//! Containers as a library. No Node, no CLI, no async runtime; no unsafe code: that is `caisson-sys`.
#![forbid(unsafe_code)]

pub mod error;
pub mod seccomp;

pub use error::{At, Code, Error, Result, Stage};
