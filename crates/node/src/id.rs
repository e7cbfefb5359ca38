//! Ids of containers: made here, since Node's own crypto takes longer to load than a container to start.

use napi_derive::napi;
use std::fmt::Write;

/// The short form of an id, which is the default host name.
const SHORT: usize = 12;

/// A random container id, 64 hex digits, the first 12 of them no number: some resolvers take a host name that is one for
/// an address.
///
/// # Errors
/// As getrandom(2).
#[napi(catch_unwind)]
pub fn random_id() -> napi::Result<String> {
    let mut id = String::with_capacity(64);
    while id.len() < 64 {
        id.clear();
        let mut bytes = [0u8; 32];
        getrandom::fill(&mut bytes).map_err(|error| napi::Error::from_reason(error.to_string()))?;
        for byte in bytes {
            let _ = write!(id, "{byte:02x}");
        }
        if id.bytes().take(SHORT).all(|digit| digit.is_ascii_digit()) {
            id.clear();
        }
    }
    Ok(id)
}
