//! Tests against the kernel, in network namespaces of their own. They need root or `unshare -Urnm`, and
//! fail where they cannot run.

#![expect(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

mod sys;
