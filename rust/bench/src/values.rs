//! What is not a log: values, Perspective Broker's banana, tar streams.

use std::hint::black_box;

use bytes::Bytes;
use tailrace_core::banana::{self, Element};
use tailrace_core::tar::{self, Entry, Event, Kind};
use tailrace_core::value::{self, Value, map};

use crate::input::lines;
use crate::{Failed, Ready};

pub(crate) fn value() -> Result<Ready, Failed> {
    let entries = (0..200).map(|number| {
        let key = format!("file-{number}");
        let entry =
            map([("path", key.as_str().into()), ("size", Value::Int(number * 1_000)), ("is_new", Value::Bool(true))]);
        (key, entry)
    });
    let value = Value::Map(entries.collect());
    Ok(Box::new(move || {
        for _ in 0..10 {
            let mut out = Vec::new();
            value::encode(&value, &mut out)?;
            black_box(value::decode_all(&out)?);
        }
        Ok(())
    }))
}

fn word(text: &str) -> Element {
    Element::Bytes(Bytes::copy_from_slice(text.as_bytes()))
}

/// A call of `update` that brings a line, as Buildbot's worker makes it.
fn update(number: i64, text: &[u8]) -> Element {
    use Element::{Int, List};
    let unicode = |text: &[u8]| List(vec![word("unicode"), Element::Bytes(Bytes::copy_from_slice(text))]);
    let entry = List(vec![unicode(b"stdout"), unicode(text)]);
    let entries = List(vec![word("dictionary"), entry]);
    let updates = List(vec![word("list"), List(vec![word("list"), entries, Int(0)])]);
    let args = List(vec![word("tuple"), updates]);
    let kwargs = List(vec![word("dictionary")]);
    List(vec![word("message"), Int(number), Int(7), word("update"), Int(1), args, kwargs])
}

pub(crate) fn banana_output() -> Result<Ready, Failed> {
    let mut said = Vec::new();
    for (number, text) in lines(256 << 10).chunks(512).enumerate() {
        let mut encoder = banana::Encoder::new(true);
        encoder.element(&update(number as i64, text))?;
        said.extend(encoder.finish());
    }
    let count = lines(256 << 10).chunks(512).count();
    Ok(Box::new(move || {
        let mut decoder = banana::Decoder::new();
        decoder.use_vocabulary();
        let mut calls = 0;
        for part in said.chunks(64 << 10) {
            decoder.receive_data(part);
            while let Some(output) = decoder.next_output()? {
                calls += output.calls.len();
                black_box(output);
            }
        }
        if calls == count { Ok(()) } else { Err("what was decoded is no output".into()) }
    }))
}

pub(crate) fn tar() -> Result<Ready, Failed> {
    let data = lines(2_000);
    Ok(Box::new(move || {
        let (mut encoder, mut decoder) = (tar::Encoder::new(), tar::Decoder::new());
        let mut entries = 0;
        for number in 0..200 {
            let path = format!("src/module-{}/file-{number}.c", number / 20).into_bytes();
            let kind = Kind::File(data.len() as u64);
            encoder.entry(&Entry { path, kind, mode: 0o644, mtime: 1_760_000_000, mtime_ns: 5 })?;
            encoder.data(&data)?;
            decoder.receive_data(&encoder.take());
            while let Some(event) = decoder.next_event()? {
                entries += usize::from(matches!(event, Event::Entry(_)));
                black_box(event);
            }
        }
        if entries == 200 { Ok(()) } else { Err("entries are missing".into()) }
    }))
}
