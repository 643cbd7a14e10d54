//! The policy in nftables terms: a small typed rule language with two renderings.
