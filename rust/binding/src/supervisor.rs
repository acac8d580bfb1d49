//! (supervisor)
