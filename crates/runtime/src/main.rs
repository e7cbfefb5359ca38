//! The static executable.

fn main() {}
