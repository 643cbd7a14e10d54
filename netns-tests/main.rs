//! Tests in network namespaces.

mod rules;
mod sys;
