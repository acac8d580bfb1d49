//! No bytes make a panic, and the same bytes mean the same, whole or one by one. The deterministic little brother of
//! `rust/fuzz`: conversations that are right are damaged a little, many thousand times.

mod support;

use support::{SECRET, events, hex, knows_zstd, master_config, receive, record, sent, worker_config};
use tailrace_core::event::Event;
use tailrace_core::frame::StreamRole::{Download, Journal, Upload};
use tailrace_core::session::Session;
use tailrace_core::value::{decode_all, map};

/// xorshift64*: the same numbers in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }

    /// `bytes` with a few of them changed, dropped, doubled or made up.
    fn damage(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = bytes.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(out.len().max(1)).min(out.len());
            match self.below(6) {
                0 if at < out.len() => out[at] ^= 1 << self.below(8),
                1 if at < out.len() => out[at] = [0, 1, 0x7f, 0x80, 0xff][self.below(5)],
                2 => drop(out.drain(at..(at + self.below(20)).min(out.len()))),
                3 => out.insert(at, self.below(256) as u8),
                4 => {
                    let piece = out[at..(at + self.below(40)).min(out.len())].to_vec();
                    out.splice(at..at, piece);
                }
                _ => out.truncate(at),
            }
        }
        out
    }
}

/// One side of a conversation that has a bit of everything: what it does, step by step, and what its peer sends.
struct Conversation {
    new: fn() -> Session,
    act: fn(&mut Session, usize),
    from_peer: Vec<Vec<u8>>,
}

fn new_worker() -> Session {
    Session::new(knows_zstd(worker_config())).unwrap()
}

fn new_master() -> Session {
    Session::new(knows_zstd(master_config())).unwrap()
}

fn compresses(session: &mut Session) {
    session.welcome_compressed(true);
    session.compress(1, 200_000);
}

/// What the worker does by itself. After damage it may be refused, which must not panic either.
fn worker_acts(worker: &mut Session, step: usize) {
    match step {
        4 => {
            compresses(worker);
            let _ = worker.open(Journal, "c", 5);
            let _ = worker.open(Upload, "c", 0);
            let _ = worker.write(3, &[record(100), record(5000), record(9)].concat());
            let _ = worker.end(3);
        }
        6 => drop(worker.write(1, &record(30))),
        8 => drop(worker.reset(1, "no")),
        12 => drop(worker.close("bye", "")),
        _ => (),
    }
}

fn master_acts(master: &mut Session, step: usize) {
    match step {
        3 => {
            compresses(master);
            let _ = master.call("startCommand", map([("a", "b".into())]));
            let _ = master.call("large", map([("x", "y".repeat(70_000).as_str().into())]));
            let _ = master.ping(7);
        }
        4 => {
            let _ = master.open(Download, "d", 0);
            let _ = master.write(4, &record(70_000));
        }
        6 => drop(master.reset(4, "no")),
        10 => drop(master.open(Download, "e", 0).and_then(|stream| master.end(stream))),
        _ => (),
    }
}

/// What either side does about what happened, in every way that there is.
fn react(session: &mut Session, happened: &[Event]) {
    for event in happened {
        let _ = match event {
            Event::LoginAsked { .. } => session.admit(SECRET).map(drop),
            Event::Called { call, .. } if call % 2 == 0 => session.reply(*call, map([])),
            Event::Called { call, .. } => session.fail(*call, "Error", "no"),
            Event::StreamOpened { stream, .. } if stream % 7 == 0 => session.stop(*stream, "no"),
            Event::StreamReadable { stream } => {
                while let Ok(Some((start, records))) = session.take(*stream, 4000) {
                    let end = start + records.len() as u64;
                    let _ = session.settle(*stream, end, start);
                    let _ = session.settle(*stream, end, end);
                }
                session.is_ended(*stream).map(drop)
            }
            _ => Ok(()),
        };
    }
}

/// Feeds `steps` in pieces; `placed`: payloads are put where they belong. Says what happened, and whether the peer was found out. (What is sent may differ: how much credit
/// is in a lump depends on how much had arrived when it was granted.)
fn play(conversation: &Conversation, steps: &[Vec<u8>], piece: usize, placed: bool) -> (Vec<Event>, Option<String>) {
    let mut session = (conversation.new)();
    let mut all = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        (conversation.act)(&mut session, number);
        sent(&mut session);
        if placed {
            receive(&mut session, step, piece);
        } else {
            step.chunks(piece).for_each(|part| session.receive_data(part));
        }
        let happened = events(&mut session);
        react(&mut session, &happened);
        all.extend(happened);
    }
    let error = session.next_event().err().map(|error| error.to_string());
    (all, error)
}

/// Records what each side sends, and with that what the other one hears.
fn conversations() -> [Conversation; 2] {
    let (mut worker, mut master) = (new_worker(), new_master());
    let (mut to_master, mut to_worker) = (Vec::new(), Vec::new());
    for step in 0..16 {
        worker_acts(&mut worker, step);
        master_acts(&mut master, step);
        to_master.push(sent(&mut worker));
        to_worker.push(sent(&mut master));
        master.receive_data(&to_master[step]);
        worker.receive_data(&to_worker[step]);
        let (at_worker, at_master) = (events(&mut worker), events(&mut master));
        react(&mut worker, &at_worker);
        react(&mut master, &at_master);
    }
    assert!(worker.next_event().is_ok() && master.next_event().is_ok(), "the undamaged conversation is right");
    assert!(worker.statistics().bytes_saved > 0 && master.statistics().bytes_saved > 0);
    [
        Conversation { new: new_master, act: master_acts, from_peer: to_master },
        Conversation { new: new_worker, act: worker_acts, from_peer: to_worker },
    ]
}

#[test]
fn damaged_conversations_end_in_an_error_or_not_at_all() {
    let mut random = Random(0x7a11_4ace);
    let mut found_out = 0;
    for conversation in conversations() {
        for _ in 0..3000 {
            let mut steps = conversation.from_peer.clone();
            let step = random.below(steps.len());
            steps[step] = random.damage(&steps[step]);
            found_out += usize::from(play(&conversation, &steps, usize::MAX, false).1.is_some());
        }
    }
    assert!(found_out > 1000, "{found_out}");
}

#[test]
fn whole_and_byte_by_byte_mean_the_same() {
    let mut random = Random(0xb17e_5bee);
    for conversation in conversations() {
        let whole = play(&conversation, &conversation.from_peer, usize::MAX, false);
        assert_eq!(whole.1, None);
        for piece in [1, 3, 22, 4096] {
            assert_eq!(play(&conversation, &conversation.from_peer, piece, false), whole);
            assert_eq!(play(&conversation, &conversation.from_peer, piece, true), whole);
        }
        for _ in 0..1000 {
            let mut steps = conversation.from_peer.clone();
            let step = random.below(steps.len());
            steps[step] = random.damage(&steps[step]);
            let whole = play(&conversation, &steps, usize::MAX, false);
            for placed in [false, true] {
                assert_eq!(play(&conversation, &steps, 1 + random.below(50), placed), whole);
            }
        }
    }
}

#[test]
fn no_bytes_panic_as_a_value() {
    let seed = hex("86a161c0a162c3a16393010203a164cb3ff8000000000000a165a568656c6c6fa166c403010203");
    assert!(decode_all(&seed).is_ok());
    let mut random = Random(0x5eed);
    for _ in 0..100_000 {
        let _ = decode_all(&random.damage(&seed));
    }
}

#[test]
fn no_noise_panics() {
    let mut random = Random(0x0153);
    for _ in 0..2000 {
        let noise: Vec<u8> = (0..random.below(300)).map(|_| random.below(256) as u8).collect();
        for role in [new_worker as fn() -> Session, new_master] {
            let mut session = role();
            session.receive_data(b"TAILRACE");
            session.receive_data(&noise);
            events(&mut session);
            sent(&mut session);
        }
    }
}
