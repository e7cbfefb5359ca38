//! Root file systems: layers to mounts, and the only ways below an untrusted root.

pub mod open;
pub mod overlay;
