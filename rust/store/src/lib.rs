//! Log segments.
