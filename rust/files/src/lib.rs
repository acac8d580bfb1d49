//! Trees of files, from a disk into a tar stream and back.
//!
//! Every step of every path is opened by the descriptor of the directory above it and never through a link, so that
//! neither an archive nor somebody who exchanges directories for links meanwhile leads out of the tree. Where a tree is
//! unpacked, when it is synced and how it is moved to its place is not decided here.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

pub mod error;
pub mod path;
mod directories;
mod pack;
mod unpack;

pub use error::TreeError;
pub use pack::Packer;
pub use unpack::Unpacker;
