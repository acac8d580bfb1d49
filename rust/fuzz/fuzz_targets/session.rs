//! What a peer sends, before and after the login, against a session whose owner reacts to everything.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tailrace_core::event::Event;
use tailrace_core::frame::StreamRole;
use tailrace_core::login::Role;
use tailrace_core::session::{Config, Session};
use tailrace_core::value::Value;

fuzz_target!(|input: (bool, bool, Vec<Vec<u8>>)| {
    let (is_master, is_logged_in, pieces) = input;
    let mut session = if is_logged_in { logged_in(is_master) } else { new(is_master) };
    session.welcome_compressed(true);
    session.compress(1, u64::MAX);
    let _ = session.call("m", Value::Map(Vec::new()));
    let role = if is_master { StreamRole::Download } else { StreamRole::Journal };
    let _ = session.open(role, "c", 0).and_then(|stream| session.write(stream, &[0, 0, 0, 1, 9]));
    for piece in pieces {
        session.receive_data(&piece);
        while let Ok(Some(event)) = session.next_event() {
            react(&mut session, event);
        }
        while !session.data_to_send(1000).is_empty() {}
    }
    session.receive_eof();
    while let Ok(Some(_)) = session.next_event() {}
});

fn new(is_master: bool) -> Session {
    Session::new(Config {
        role: if is_master { Role::Master } else { Role::Worker },
        id: "id".to_owned(),
        nonce: [7; 32],
        name: "w".to_owned(),
        secret: b"secret".to_vec(),
        stream_window: 1000,
        connection_window: 10_000,
        streams_max: 8,
        software: String::new(),
        capabilities: vec!["zstd".to_owned()],
    })
    .expect("the configuration is right")
}

fn logged_in(is_master: bool) -> Session {
    let (mut worker, mut master) = (new(false), new(true));
    for _ in 0..3 {
        master.receive_data(&worker.data_to_send(usize::MAX).concat());
        let _ = master.admit(b"secret");
        worker.receive_data(&master.data_to_send(usize::MAX).concat());
    }
    let mut session = if is_master { master } else { worker };
    while let Ok(Some(_)) = session.next_event() {}
    session
}

fn react(session: &mut Session, event: Event) {
    let _ = match event {
        Event::LoginAsked { .. } => session.admit(b"secret").map(drop),
        Event::Called { call, args, .. } if call % 2 == 0 => session.reply(call, args),
        Event::Called { call, .. } => session.fail(call, "Error", "no"),
        Event::StreamOpened { stream, .. } if stream % 5 == 0 => session.stop(stream, "no"),
        Event::StreamReadable { stream } => {
            while let Ok(Some((start, records))) = session.take(stream, 100) {
                session.settle(stream, start + records.len() as u64, start).expect("what was taken can be settled");
            }
            session.is_ended(stream).map(drop)
        }
        Event::StreamProgress { stream, .. } => session.write(stream, &[0, 0, 0, 1, 9]),
        _ => Ok(()),
    };
}
