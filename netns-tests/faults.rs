//! The kernel refuses, has no memory, or is too old. Afterwards the rules before are in force, or deny-all,
//! or every link is down: never more than before.

mod batch;
mod process;
