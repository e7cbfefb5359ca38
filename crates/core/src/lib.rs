//! Containers as a library. No Node, no CLI, no async runtime; no unsafe code: that is `caisson-sys`.
#![forbid(unsafe_code)]

pub mod archive;
pub mod error;
pub mod off;

pub use error::{At, Code, Error, Result, Stage};
