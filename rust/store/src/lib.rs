#![doc = include_str!("../FORMAT.md")]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

// From the bytes upwards: what can go wrong, what is counted, where it lies, how it is written down, one file, all files of a run.
pub mod error;
pub mod totals;
pub mod disk;
pub mod format;
pub mod index;
pub mod segment;
mod directory;
pub mod seal;
mod live;
pub mod writer;
pub mod reader;

#[cfg(feature = "simulation")]
pub mod simulated;

pub use error::StoreError;
pub use reader::LogReader;
pub use seal::{seal_next, seal_next_on};
pub use totals::{Channel, Count, Select, Totals};
pub use writer::LogWriter;
