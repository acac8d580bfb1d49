//! The login (PROTOCOL.md section 3).

mod support;

use support::{Pair, SECRET, events, master_config, sent, worker_config};
use tailrace_core::event::Event;
use tailrace_core::login::{Hello, Party, Role, master_proof, transcript, worker_proof};
use tailrace_core::session::Session;

#[test]
fn both_sides_are_told_who_the_other_is() {
    let mut worker = worker_config();
    worker.software = "tailrace 9".to_owned();
    worker.capabilities = vec!["flying".to_owned()];
    let mut pair = Pair::new(worker, master_config());
    let (at_worker, at_master) = pair.heard();
    assert!(at_worker.is_empty());
    let [Event::LoginAsked { name, instance, software, capabilities }] = at_master.as_slice() else {
        panic!("{at_master:?}")
    };
    assert_eq!((name.as_str(), instance.as_str(), software.as_str()), ("w1", "instance", "tailrace 9"));
    assert_eq!(capabilities, &["flying"]);
    assert!(pair.master.admit(SECRET).unwrap());
    let (at_worker, at_master) = pair.heard();
    assert!(matches!(at_worker.as_slice(), [Event::LoggedIn { peer, version: 1, .. }] if peer == "master"));
    assert!(matches!(at_master.as_slice(), [Event::LoggedIn { peer, version: 1, .. }] if peer == "instance"));
}

#[test]
fn the_proofs_are_as_specified() {
    let key = blake3::derive_key("tailrace v1 login", b"secret");
    let worker = worker_proof(b"secret", b"T");
    assert_eq!(worker, blake3::keyed_hash(&key, b"workerT"));
    let message = [b"masterT".as_slice(), worker.as_bytes()].concat();
    assert_eq!(master_proof(b"secret", b"T", worker.as_bytes()), blake3::keyed_hash(&key, &message));
}

#[test]
fn the_master_is_silent_until_it_was_greeted() {
    let mut master = Session::new(master_config()).unwrap();
    assert!(sent(&mut master).is_empty());
    master.receive_data(b"TAILRACE");
    assert!(sent(&mut master).is_empty());
    master.receive_data(b"\x7f\0\0\0");
    assert!(sent(&mut master).starts_with(b"TAILRACE\x3f"));
}

#[test]
fn a_stranger_learns_nothing() {
    let mut master = Session::new(master_config()).unwrap();
    master.receive_data(b"S");
    let error = master.next_event().unwrap_err();
    assert!(error.to_string().contains("TAILRACE"), "{error}");
    assert!(master.eof_to_send());
    assert!(sent(&mut master).is_empty());
}

#[test]
fn a_wrong_secret_and_no_secret_are_refused_alike() {
    for known in [b"wrong".as_slice(), b""] {
        let mut pair = Pair::new(worker_config(), master_config());
        pair.pump();
        assert!(!pair.master.admit(known).unwrap());
        let (at_worker, at_master) = pair.heard();
        let text = "unknown worker or wrong secret".to_owned();
        assert_eq!(at_worker, [Event::Refused { reason: "credentials".to_owned(), text }]);
        assert_eq!(at_master.len(), 1, "only the question");
        assert!(pair.master.eof_to_send() && pair.worker.eof_to_send());
    }
}

#[test]
fn an_empty_secret_lets_nobody_in() {
    // A worker that was made without our code could prove that it knows the empty secret.
    let worker = Hello {
        party: Party::Worker { versions: (1, 1), name: "w1".to_owned(), instance: "i".to_owned() },
        nonce: [1; 32],
        capabilities: Vec::new(),
        software: String::new(),
        stream_window: 1,
        connection_window: 1,
        streams_max: 1,
    };
    let payload = worker.encode().unwrap();
    let mut master = Session::new(master_config()).unwrap();
    let mut hello = Vec::new();
    tailrace_core::frame::Frame::Hello(&payload).encode(&mut hello).unwrap();
    master.receive_data(b"TAILRACE");
    master.receive_data(&hello);
    let answer = sent(&mut master);
    let both = transcript(&payload, &answer[12..]).unwrap();
    let mut proof = vec![0x02, 0, 0, 32];
    proof.extend_from_slice(worker_proof(b"", &both).as_bytes());
    master.receive_data(&proof);
    assert!(!master.admit(b"").unwrap());
}

#[test]
fn a_master_that_does_not_know_the_secret_is_found_out() {
    let mut pair = Pair::new(worker_config(), master_config());
    pair.pump();
    pair.worker.receive_data(&[&[0x02, 0, 0, 32], [0x55; 32].as_slice()].concat());
    let error = pair.worker.next_event().unwrap_err();
    assert!(error.to_string().contains("the master has not proven"), "{error}");
    assert!(pair.worker.eof_to_send());
}

#[test]
fn no_byte_of_the_hellos_can_be_changed_on_the_way() {
    let hello = sent(&mut Session::new(worker_config()).unwrap());
    for index in 0..hello.len() {
        let mut pair = Pair::new(worker_config(), master_config());
        let mut changed = sent(&mut pair.worker);
        changed[index] ^= 1;
        pair.master.receive_data(&changed);
        pair.pump();
        // Either the bytes mean nothing any more, or the proof does not match them.
        let asked = pair.at_master.iter().any(|event| matches!(event, Event::LoginAsked { .. }));
        assert!(!asked || !pair.master.admit(SECRET).unwrap(), "byte {index}");
    }
}

#[test]
fn nothing_may_come_before_the_login_is_over() {
    let ping = [0x30, 0, 0, 1, 9];
    let mut early = Pair::new(worker_config(), master_config());
    let hello = sent(&mut early.worker);
    early.master.receive_data(&hello);
    early.master.receive_data(&ping);
    assert!(early.master.next_event().is_err());

    let mut asked = Pair::new(worker_config(), master_config());
    asked.pump();
    asked.master.receive_data(&ping);
    assert!(asked.master.next_event().is_err());
    assert!(asked.master.admit(SECRET).is_err());
}

#[test]
fn frames_are_small_until_the_login_is_over() {
    let mut master = Session::new(master_config()).unwrap();
    master.receive_data(b"TAILRACE\x01\x00\x0f\xfd");
    assert!(master.next_event().unwrap_err().to_string().contains("4097 bytes"));

    let mut pair = Pair::open();
    pair.master.call("print", tailrace_core::value::map([("m", "x".repeat(60_000).as_str().into())])).unwrap();
    assert!(matches!(pair.heard().0.as_slice(), [Event::Called { .. }]));
}

#[test]
fn a_worker_of_another_version_is_told_so() {
    let mut worker = Session::new(worker_config()).unwrap();
    let ours = sent(&mut worker);
    let mut hello = Hello::decode(&ours[12..], Role::Worker).unwrap();
    if let Party::Worker { versions, .. } = &mut hello.party {
        *versions = (2, 3);
    }
    let payload = hello.encode().unwrap();
    let mut bytes = b"TAILRACE".to_vec();
    tailrace_core::frame::Frame::Hello(&payload).encode(&mut bytes).unwrap();
    let mut master = Session::new(master_config()).unwrap();
    master.receive_data(&bytes);
    assert!(master.next_event().unwrap_err().to_string().contains("versions 2 to 3"));
    worker.receive_data(&sent(&mut master));
    assert!(matches!(events(&mut worker).as_slice(), [Event::Refused { reason, .. }] if reason == "version"));
}

#[test]
fn a_range_of_versions_is_met_at_the_highest_common_one() {
    use tailrace_core::login::common_version;
    assert_eq!(common_version((1, 1)), Some(1));
    assert_eq!(common_version((0, 7)), Some(1));
    assert_eq!(common_version((2, 7)), None);
    assert_eq!(common_version((0, 0)), None);
    assert_eq!(common_version((5, 1)), None);
}

#[test]
fn a_master_that_picks_a_version_that_was_not_offered_is_in_error() {
    let mut worker = Session::new(worker_config()).unwrap();
    sent(&mut worker);
    let hello = Hello {
        party: Party::Master { version: 2, master: "m".to_owned() },
        nonce: [1; 32],
        capabilities: Vec::new(),
        software: String::new(),
        stream_window: 1,
        connection_window: 1,
        streams_max: 1,
    };
    let mut bytes = b"TAILRACE".to_vec();
    tailrace_core::frame::Frame::Hello(&hello.encode().unwrap()).encode(&mut bytes).unwrap();
    worker.receive_data(&bytes);
    assert!(worker.next_event().unwrap_err().to_string().contains("version 2"));
}

#[test]
fn unknown_keys_of_a_hello_are_skipped_and_missing_ones_are_not() {
    use tailrace_core::value::{Value, decode_all, encode};
    let ours = sent(&mut Session::new(worker_config()).unwrap());
    let Ok(Value::Map(entries)) = decode_all(&ours[12..]) else { panic!() };
    let decode = |entries: Vec<(String, Value)>| {
        let mut payload = Vec::new();
        encode(&Value::Map(entries), &mut payload).unwrap();
        Hello::decode(&payload, Role::Worker)
    };
    let mut more = entries.clone();
    more.push(("zzz".to_owned(), Value::Nil));
    assert!(decode(more).is_ok());
    for missing in 0..entries.len() {
        let mut fewer = entries.clone();
        let (key, _) = fewer.remove(missing);
        assert!(decode(fewer).unwrap_err().to_string().contains(&key));
    }
}

#[test]
fn a_transport_that_ends_during_the_login_is_told() {
    let mut worker = Session::new(worker_config()).unwrap();
    worker.receive_eof();
    assert!(matches!(events(&mut worker).as_slice(), [Event::PeerClosed { reason, .. }] if reason == "eof"));
}
