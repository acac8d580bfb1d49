#![doc = include_str!("../PROTOCOL.md")]
#![allow(clippy::doc_lazy_continuation)]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

// In the order of the wire: integers, values, frames, login, credit, compression, streams, sessions.
pub mod error;
pub mod limits;
pub mod varint;
pub mod value;
pub mod frame;
pub mod login;
pub mod decoder;
pub mod window;
pub mod compression;
pub mod stream;
pub mod event;
pub mod session;
// What streams carry: records, and how they are made of a child's bytes.
pub mod channel;
pub mod line;
pub mod record;
pub mod coalesce;
pub mod chain;
pub mod ledger;
pub mod batch;
pub mod journal;
pub mod chunk;
pub mod tar;
// The other wires: what Buildbot's Perspective Broker is made of.
pub mod banana;
