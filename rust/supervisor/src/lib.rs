//! The small process on the worker that owns one command's children, their output and its journal.

pub mod ring;
