//! The hot loops, each on a fixed input: `hot-loops LOOP` prepares one and runs it once, in [`counted`].
//!
//! For counting instructions, which do not depend on what else the machine does: `bench/instructions.py` runs every loop
//! under callgrind, collects within `counted` alone, and compares with what is written down. Without a name it lists them.

use std::error::Error;
use std::io::Write;

mod input;
mod log;
mod store;
mod values;
mod wire;

/// What went wrong while a loop was prepared or run: nothing is to.
type Failed = Box<dyn Error>;

/// A loop, ready to run once.
type Ready = Box<dyn FnMut() -> Result<(), Failed>>;

/// What prepares a loop.
type Prepare = fn() -> Result<Ready, Failed>;

/// In the order of a log's way. The names are the keys of `bench/instructions.json`.
const LOOPS: [(&str, Prepare); 21] = [
    ("coalesce: 64 KiB a push", log::coalesce_blocks),
    ("coalesce: a line a push", log::coalesce_lines),
    ("coalesce: a byte a push", log::coalesce_bytes),
    ("journal: records, chain, counts", log::journal),
    ("line index: count newlines", log::count_newlines),
    ("line index: find line starts", log::line_starts),
    ("ring: append, read, release", store::ring),
    ("session: send a journal", wire::send_journal),
    ("session: send written bytes", wire::send_written),
    ("frames: decode whole", wire::decode_whole),
    ("frames: decode in pieces", wire::decode_pieces),
    ("session: receive a stream", wire::receive_stream),
    ("session: calls and replies", wire::calls),
    ("ledger: check, chain, count", log::ledger),
    ("batch: parts, records, times", log::batch),
    ("segment: append", store::append),
    ("segment: read in order", store::read),
    ("segment: seek line and time", store::seek),
    ("value: encode, decode", values::value),
    ("banana: decode output", values::banana_output),
    ("tar: encode, decode", values::tar),
];

fn main() -> Result<(), Failed> {
    let mut arguments = std::env::args().skip(1);
    let Some(name) = arguments.next() else {
        let mut out = std::io::stdout().lock();
        return Ok(LOOPS.iter().try_for_each(|(name, _)| writeln!(out, "{name}"))?);
    };
    let (_, prepare) = LOOPS.iter().find(|(known, _)| *known == name).ok_or("there is no such loop")?;
    counted(&mut *prepare()?)
}

/// Only what happens in here is counted: callgrind finds it by its name, which is therefore not mangled.
#[unsafe(no_mangle)]
#[inline(never)]
extern "Rust" fn counted(run: &mut dyn FnMut() -> Result<(), Failed>) -> Result<(), Failed> {
    run()
}
