//! The `vpngw` program.

fn main() {}
