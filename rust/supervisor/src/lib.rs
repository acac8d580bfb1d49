//! The small process on the worker that owns one command's children, their output and its journal.
//!
//! A *helper* is started early and once; every supervisor is a fork of it. A supervisor reads what its child writes, lets
//! the core make records of it, and puts them into a ring that the worker's daemon maps. So no byte of a log passes
//! through an interpreter on the worker, and the daemon may be stopped, upgraded or killed while commands run on.
//!
//! In the order in which they matter: the ring; the helper; the supervisor's loop and what it looks after; what it talks
//! in. All `unsafe` of the crate is in `ring` (the mapping), `process` (fork, signals, one descriptor) and `launch` (the
//! controlling terminal).

pub mod ring;

pub mod helper;
mod supervisor;
mod running;
mod book;
mod shelf;
mod spool;
mod launch;
mod stop;
mod family;
mod limit;
mod pace;
mod watch;

mod control;
mod request;

mod signal;
mod process;
mod clock;
