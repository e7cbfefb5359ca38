//! Containers as a library. No Node, no CLI, no async runtime; no unsafe code: that is `caisson-sys`.
//!
//! A spec is compiled to a [`plan`], which a shim [`launch`]es: cgroup ([`cgroup`]), mount sources ([`rootfs`]), one
//! clone; the child is [`init`], a loop over the plan's steps. What was made stands in the [`journal`] until it is taken
//! down. [`archive`] unpacks an image's layers into the store, [`layers`]. [`channel`] is what owner, shim and init say to each other, [`wire`] its bytes.
#![forbid(unsafe_code)]

pub mod archive;
pub mod cgroup;
pub mod channel;
pub mod clock;
pub mod error;
pub mod idmap;
mod ingest;
pub mod init;
pub mod isolation;
pub mod journal;
pub mod launch;
pub mod layers;
pub mod off;
pub mod plan;
pub mod rootfs;
pub mod seccomp;
pub mod trust;
pub mod wire;
mod writeback;

pub use error::{At, Code, Error, Result, Stage};
