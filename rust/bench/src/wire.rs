//! The native wire: frames, and two sessions that have logged in.

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use tailrace_core::channel::Channel;
use tailrace_core::decoder::Decoder;
use tailrace_core::event::Event;
use tailrace_core::frame::{Frame, PREFACE, StreamRole};
use tailrace_core::journal::{MemoryJournal, Source};
use tailrace_core::limits::FRAME_BYTES_MAX;
use tailrace_core::login::Role;
use tailrace_core::session::{Config, Session};
use tailrace_core::value::{Value, map};

use crate::input::{journal, lines};
use crate::{Failed, Ready};

const SECRET: &[u8] = b"secret";
const READ_BYTES: usize = 256 << 10;
const STREAM_BYTES: usize = 3 << 20;

fn config(role: Role) -> Config {
    let (id, name) = if role == Role::Worker { ("instance", "w1") } else { ("master", "") };
    Config {
        role,
        id: id.to_owned(),
        nonce: [id.len() as u8; 32],
        name: name.to_owned(),
        secret: SECRET.to_vec(),
        stream_window: 4 << 20,
        // So large that a stream's window is so from the start: what is counted is not to wait for credit.
        connection_window: 4 << 30,
        streams_max: 4096,
        software: String::new(),
        capabilities: Vec::new(),
    }
}

/// All that one has to say, as it is read from a socket: 256 KiB at a time.
fn carry(from: &mut Session, to: &mut Session) -> usize {
    let said = drain(from);
    for part in said.chunks(READ_BYTES) {
        to.receive_data(part);
    }
    said.len()
}

fn drain(session: &mut Session) -> Vec<u8> {
    let mut said = Vec::with_capacity(STREAM_BYTES + (1 << 20));
    loop {
        let slices = session.data_to_send(READ_BYTES);
        if slices.is_empty() {
            return said;
        }
        for slice in slices {
            said.extend_from_slice(&slice);
        }
    }
}

fn settle(one: &mut Session, other: &mut Session) {
    while carry(one, other) + carry(other, one) > 0 {}
}

fn forget(session: &mut Session) -> Result<(), Failed> {
    while session.next_event()?.is_some() {}
    Ok(())
}

/// A worker and a master who trust each other.
fn pair() -> Result<(Session, Session), Failed> {
    let (mut worker, mut master) = (Session::new(config(Role::Worker))?, Session::new(config(Role::Master))?);
    settle(&mut worker, &mut master);
    if !master.admit(SECRET)? {
        return Err("the worker was not let in".into());
    }
    settle(&mut worker, &mut master);
    forget(&mut worker)?;
    forget(&mut master)?;
    Ok((worker, master))
}

/// The journal's bytes out of a source, as frames.
pub(crate) fn send_journal() -> Result<Ready, Failed> {
    let (mut worker, mut master) = pair()?;
    let source = Arc::new(MemoryJournal::new());
    for piece in lines(STREAM_BYTES).chunks(64 << 10) {
        source.write(|writer| writer.log(Channel::Stdout, piece, 1, 1))?;
    }
    let stream = worker.open(StreamRole::Journal, "1", 0)?;
    settle(&mut worker, &mut master);
    Ok(Box::new(move || {
        worker.write_journal(stream, source.clone())?;
        loop {
            let slices = worker.data_to_send(READ_BYTES);
            if slices.is_empty() {
                break;
            }
            black_box(slices);
        }
        if worker.sent(stream)? < source.end() { Err("it waits for credit".into()) } else { Ok(()) }
    }))
}

/// Writes all bytes to a stream, each time as many as there is room for; what is to be sent goes to `wire`.
fn write_all(session: &mut Session, stream: u64, bytes: &[u8], mut wire: impl FnMut(Bytes)) -> Result<(), Failed> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let room = session.room(stream)?.min(rest.len());
        if room == 0 {
            return Err("it waits for credit".into());
        }
        let (now, later) = rest.split_at(room);
        session.write(stream, now)?;
        rest = later;
        session.data_to_send(READ_BYTES).into_iter().for_each(&mut wire);
    }
    Ok(())
}

/// The same of bytes that are handed over, as an upload's are.
pub(crate) fn send_written() -> Result<Ready, Failed> {
    let (mut worker, mut master) = pair()?;
    let bytes = journal(STREAM_BYTES)?;
    let stream = worker.open(StreamRole::Journal, "1", 0)?;
    settle(&mut worker, &mut master);
    Ok(Box::new(move || write_all(&mut worker, stream, &bytes, |slice| drop(black_box(slice)))))
}

/// 3 MiB of DATA frames behind a preface.
fn frames() -> Result<Vec<u8>, Failed> {
    let mut bytes = PREFACE.to_vec();
    let mut offset = 0;
    for payload in lines(STREAM_BYTES).chunks(FRAME_BYTES_MAX - 32) {
        Frame::Data { stream: 1, offset, payload }.encode(&mut bytes)?;
        offset += payload.len() as u64;
    }
    Ok(bytes)
}

fn decode(bytes: &[u8], piece: usize) -> Result<(), Failed> {
    let mut decoder = Decoder::default();
    decoder.allow(FRAME_BYTES_MAX);
    for mut input in bytes.chunks(piece) {
        while let Some(frame) = decoder.next(&mut input)? {
            black_box(frame);
        }
    }
    Ok(())
}

pub(crate) fn decode_whole() -> Result<Ready, Failed> {
    let bytes = frames()?;
    Ok(Box::new(move || decode(&bytes, usize::MAX)))
}

/// As a network cuts them.
pub(crate) fn decode_pieces() -> Result<Ready, Failed> {
    let bytes = frames()?;
    Ok(Box::new(move || decode(&bytes, 1_448)))
}

/// What a master does with a stream: it comes, is taken in batches, and credit returns.
pub(crate) fn receive_stream() -> Result<Ready, Failed> {
    let (mut worker, mut master) = pair()?;
    let stream = worker.open(StreamRole::Journal, "1", 0)?;
    let mut said = Vec::new();
    write_all(&mut worker, stream, &journal(STREAM_BYTES)?, |slice| said.extend_from_slice(&slice))?;
    said.extend(drain(&mut worker));
    Ok(Box::new(move || {
        let mut taken = 0;
        for part in said.chunks(READ_BYTES) {
            master.receive_data(part);
            while let Some(event) = master.next_event()? {
                let Event::StreamReadable { stream } = event else { continue };
                while let Some((start, bytes)) = master.take(stream, 1 << 20)? {
                    taken += bytes.len();
                    let end = start + bytes.len() as u64;
                    master.settle(stream, end, end)?;
                }
            }
            black_box(master.data_to_send(READ_BYTES));
        }
        if taken < STREAM_BYTES { Err("not all of it came".into()) } else { Ok(()) }
    }))
}

/// A hundred calls there, a hundred replies back.
pub(crate) fn calls() -> Result<Ready, Failed> {
    let (mut worker, mut master) = pair()?;
    let words: Vec<Value> = ["make", "-j8", "all", "VERBOSE=1"].map(Value::from).to_vec();
    let args = map([("command", Value::Array(words)), ("workdir", "build".into()), ("timeout", Value::Int(1200))]);
    Ok(Box::new(move || {
        for _ in 0..100 {
            master.call("start", args.clone())?;
        }
        carry(&mut master, &mut worker);
        while let Some(event) = worker.next_event()? {
            if let Event::Called { call, .. } = event {
                worker.reply(call, Value::Nil)?;
            }
        }
        carry(&mut worker, &mut master);
        let mut replies = 0;
        while let Some(event) = master.next_event()? {
            replies += usize::from(matches!(event, Event::Replied { .. }));
        }
        if replies == 100 { Ok(()) } else { Err("replies are missing".into()) }
    }))
}
