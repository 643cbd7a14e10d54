//! Tests against the kernel, in network namespaces of their own. They need root or `unshare -Urnm`, and
//! fail where they cannot run.

mod sys;
