//! From a child's bytes to records, and what a receiver does with them.

use std::hint::black_box;

use bytes::Bytes;
use tailrace_core::batch::{Batch, LogRecord};
use tailrace_core::channel::Channel;
use tailrace_core::coalesce::Coalescer;
use tailrace_core::journal::Writer;
use tailrace_core::ledger::Ledger;
use tailrace_core::line;

use crate::input::{WALL_US, journal as made_journal, lines};
use crate::{Failed, Ready};

/// Pieces that come one after another, `step_us` apart, into records.
fn coalesce<'a>(pieces: impl Iterator<Item = &'a [u8]>, step_us: u64, room: usize) {
    let (mut coalescer, mut out) = (Coalescer::new(), Vec::with_capacity(room));
    let mut now = 0;
    for piece in pieces {
        coalescer.push(Channel::Stdout, piece, WALL_US + now, now, &mut out);
        now += step_us;
    }
    coalescer.flush(now, &mut out);
    black_box(out);
}

pub(crate) fn coalesce_blocks() -> Result<Ready, Failed> {
    let text = lines(4 << 20);
    Ok(Box::new(move || {
        coalesce(text.chunks(65_520), 100, 5 << 20);
        Ok(())
    }))
}

pub(crate) fn coalesce_lines() -> Result<Ready, Failed> {
    let text = lines(1 << 20);
    let lines: Vec<Vec<u8>> = text.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    Ok(Box::new(move || {
        coalesce(lines.iter().map(Vec::as_slice), 2, 2 << 20);
        Ok(())
    }))
}

pub(crate) fn coalesce_bytes() -> Result<Ready, Failed> {
    let text = lines(32 << 10);
    Ok(Box::new(move || {
        coalesce(text.chunks(1), 2, 1 << 20);
        Ok(())
    }))
}

pub(crate) fn journal() -> Result<Ready, Failed> {
    let text = lines(1 << 20);
    Ok(Box::new(move || {
        let (mut coalescer, mut writer) = (Coalescer::new(), Writer::new(Vec::with_capacity(2 << 20)));
        for (number, piece) in text.chunks(65_520).enumerate() {
            let now = 100 * number as u64;
            coalescer.push(Channel::Stdout, piece, WALL_US + now, now, &mut writer);
        }
        coalescer.flush(1_000_000, &mut writer);
        black_box(writer);
        Ok(())
    }))
}

pub(crate) fn count_newlines() -> Result<Ready, Failed> {
    let text = lines(4 << 20);
    Ok(Box::new(move || {
        black_box(line::count_newlines(black_box(&text)));
        Ok(())
    }))
}

pub(crate) fn line_starts() -> Result<Ready, Failed> {
    let text = lines(256 << 10);
    let count = line::lines_begun(&text, false);
    Ok(Box::new(move || {
        for index in (0..count).step_by(100) {
            black_box(line::line_start(&text, false, index).ok_or("a line is missing")?);
        }
        Ok(())
    }))
}

pub(crate) fn ledger() -> Result<Ready, Failed> {
    let journal = Bytes::from(made_journal(1 << 20)?);
    Ok(Box::new(move || {
        let mut ledger = Ledger::new();
        ledger.add_batch(&Batch::new(0, journal.clone()))?;
        black_box(ledger.receipt());
        Ok(())
    }))
}

/// What a receiver in Python asks of a batch, made of many small records.
pub(crate) fn batch() -> Result<Ready, Failed> {
    let mut writer = Writer::new(Vec::new());
    for (number, piece) in lines(512 << 10).split_inclusive(|byte| *byte == b'\n').enumerate() {
        let now = 20_000 * number as u64;
        let channel = if number % 8 == 0 { Channel::Stderr } else { Channel::Stdout };
        writer.log(channel, piece, WALL_US + now, now)?;
    }
    let batch = Batch::new(0, Bytes::from(writer.tail().clone()));
    Ok(Box::new(move || {
        black_box(batch.parts()?.len());
        for log in batch.logs() {
            let (offset, log) = log?;
            let record = LogRecord::new(&batch, offset, &log);
            black_box(record.times().map(|run| run.lines).sum::<u64>());
        }
        black_box(batch.data(Channel::Stdout)?.len());
        black_box(batch.updates()?.len());
        Ok(())
    }))
}
