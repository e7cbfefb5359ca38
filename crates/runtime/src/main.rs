//! The static executable of Caisson. Its role is its first argument: `shim` is what the addon starts,
//! `join` what a shim makes of itself for another command in a container.
#![forbid(unsafe_code)]

mod shim;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next().as_deref().and_then(std::ffi::OsStr::to_str) {
        Some("shim") => shim::run(),
        // What a shim makes of itself, with a socket as standard input.
        Some("join") => match caisson_sys::fd::duplicate(caisson_sys::fd::Number(0), 3) {
            Ok(socket) => caisson_core::init::join(socket),
            Err(_) => ExitCode::from(1),
        },
        // What an init that stays makes of itself.
        Some("init") => match args.next().as_deref().and_then(std::ffi::OsStr::to_str).map(str::parse) {
            Some(Ok(main)) if std::process::id() == 1 => caisson_core::init::stay(main),
            _ => ExitCode::from(1),
        },
        Some("--version") => {
            say(&format!("caisson-runtime version {}\n", env!("CARGO_PKG_VERSION")));
            ExitCode::SUCCESS
        }
        _ => {
            say(
                "usage: caisson-runtime --version\n\nThe addon of the npm package caisson starts this program itself.\n",
            );
            ExitCode::from(1)
        }
    }
}

/// A line for people; where nobody listens it is not missed.
fn say(text: &str) {
    use std::io::Write;
    let _ = std::io::stdout().write_all(text.as_bytes());
}
