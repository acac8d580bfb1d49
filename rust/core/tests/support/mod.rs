//! Two sessions and a fake wire.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use tailrace_core::event::Event;
use tailrace_core::login::Role;
use tailrace_core::session::{Config, Session};

pub const SECRET: &[u8] = b"secret";

pub fn worker_config() -> Config {
    Config {
        role: Role::Worker,
        id: "instance".to_owned(),
        nonce: [0x77; 32],
        name: "w1".to_owned(),
        secret: SECRET.to_vec(),
        stream_window: 4 << 20,
        connection_window: 32 << 20,
        streams_max: 4096,
        software: String::new(),
        capabilities: Vec::new(),
    }
}

pub fn master_config() -> Config {
    Config { role: Role::Master, id: "master".to_owned(), nonce: [0x6d; 32], name: String::new(), ..worker_config() }
}

/// Of who takes compressed bytes.
pub fn knows_zstd(config: Config) -> Config {
    Config { capabilities: vec!["zstd".to_owned()], ..config }
}

/// A worker and a master, and what each was told.
pub struct Pair {
    pub worker: Session,
    pub master: Session,
    pub at_worker: Vec<Event>,
    pub at_master: Vec<Event>,
    /// The wire carries at most this many bytes at a time.
    pub piece: usize,
    /// What can wait is not sent by itself.
    pub waits: bool,
}

impl Pair {
    pub fn new(worker: Config, master: Config) -> Self {
        Self {
            worker: Session::new(worker).unwrap(),
            master: Session::new(master).unwrap(),
            at_worker: Vec::new(),
            at_master: Vec::new(),
            piece: usize::MAX,
            waits: false,
        }
    }

    /// A pair that has logged in, its events forgotten.
    pub fn open() -> Self {
        Self::open_with(worker_config(), master_config())
    }

    pub fn open_with(worker: Config, master: Config) -> Self {
        let mut pair = Self::new(worker, master);
        pair.pump();
        assert!(pair.master.admit(SECRET).unwrap());
        pair.pump();
        pair.forget();
        pair
    }

    /// Carries bytes both ways until there are no more.
    pub fn pump(&mut self) {
        loop {
            let [goes, comes] = [&self.worker, &self.master].map(|session| !self.waits || session.is_urgent());
            let there = if goes { carry(&mut self.worker, &mut self.master, self.piece) } else { 0 };
            let back = if comes { carry(&mut self.master, &mut self.worker, self.piece) } else { 0 };
            self.at_worker.extend(events(&mut self.worker));
            self.at_master.extend(events(&mut self.master));
            if there + back == 0 {
                return;
            }
        }
    }

    pub fn forget(&mut self) {
        self.at_worker.clear();
        self.at_master.clear();
    }

    /// The events since the last call: at the worker, at the master.
    pub fn heard(&mut self) -> (Vec<Event>, Vec<Event>) {
        self.pump();
        (std::mem::take(&mut self.at_worker), std::mem::take(&mut self.at_master))
    }
}

/// Everything that `session` has to send now.
pub fn sent(session: &mut Session) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let slices = session.data_to_send(1 << 18);
        if slices.is_empty() {
            return bytes;
        }
        bytes.extend(slices.concat());
    }
}

/// The events until there are no more; a protocol error ends them.
pub fn events(session: &mut Session) -> Vec<Event> {
    std::iter::from_fn(|| session.next_event().unwrap_or(None)).collect()
}

/// Carries what `from` has to send, in pieces.
pub fn carry(from: &mut Session, to: &mut Session, piece: usize) -> usize {
    let bytes = sent(from);
    for part in bytes.chunks(piece) {
        to.receive_data(part);
    }
    bytes.len()
}

/// Receives as from a socket that has all of `bytes`: payloads where they belong, all else in pieces. How many bytes were put
/// where they belong.
pub fn receive(session: &mut Session, mut bytes: &[u8], piece: usize) -> usize {
    let mut placed = 0;
    while !bytes.is_empty() {
        let put = session.receive_payload(|buffer, left| {
            let (now, later) = bytes.split_at(left.min(bytes.len()));
            buffer.extend_from_slice(now);
            bytes = later;
            now.len()
        });
        let (now, later) = bytes.split_at(if put.is_some() { 0 } else { piece.min(bytes.len()) });
        session.receive_data(now);
        bytes = later;
        placed += put.unwrap_or_default();
    }
    placed
}

/// A record of `length` bytes, prefix included, at least 5.
pub fn record(length: usize) -> Vec<u8> {
    let mut bytes = ((length - 4) as u32).to_be_bytes().to_vec();
    bytes.push(0x40);
    bytes.resize(length, 0xda);
    bytes
}

/// Hexadecimal digits, white space ignored, to bytes.
pub fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}
