//! Tests in network namespaces. They need root and fail where they cannot run.

mod rules;
