//! (value)
