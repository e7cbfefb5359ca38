//! Digests of small documents: Node's own crypto takes longer to load than a container to start.

use caisson_core::archive::Digest;
use napi_derive::napi;

/// The SHA-256 of bytes, `sha256:` and 64 hex digits.
#[napi(catch_unwind)]
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    Digest::of(bytes).to_string()
}
