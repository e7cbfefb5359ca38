//! The napi-rs binding. It converts and carries; it decides nothing. Failures are values, made into errors in
//! TypeScript, where the caller's stack is.
#![allow(clippy::needless_pass_by_value, reason = "napi hands arguments over by value")]

pub mod digest;
mod executable;
pub mod exit;
pub mod held;
pub mod id;
pub mod lock;
pub mod outbox;
mod outcome;
pub mod plan;
pub mod request;
pub mod shim;
mod start;
pub mod stdio;
