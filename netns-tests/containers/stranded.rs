//! stranded
