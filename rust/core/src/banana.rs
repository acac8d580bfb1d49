//! Banana: the byte form of Perspective Broker's s-expressions, which Buildbot's PB is made of.
//!
//! An element is a prefix (a number in base 128, its lowest digit first), a type byte, and for two types a body. The
//! decoder keeps what has arrived and what it made of it; no length that was only announced reserves anything. What one
//! expression may hold is bounded in bytes, elements and depth, though the wire has no such bounds.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

use crate::error::UsageError;
use crate::limits::LOG_NAME_BYTES_MAX;

/// The longest string, and the longest list.
pub const LENGTH_MAX: usize = 640 * 1024;
/// The most digits of a prefix, and so of an integer.
pub const DIGITS_MAX: usize = 64;
/// How deep lists nest.
pub const DEPTH_MAX: usize = 100;
/// Bytes of one top-level expression: a file block with its frame is 640 KiB; the rest is for long lists.
pub const EXPRESSION_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Elements of one top-level expression: each costs its sender a byte, and its receiver some sixty.
pub const EXPRESSION_ELEMENTS_MAX: usize = 1 << 20;

const LIST: u8 = 0x80;
const INT: u8 = 0x81;
const STRING: u8 = 0x82;
const NEG: u8 = 0x83;
const FLOAT: u8 = 0x84;
const LONGINT: u8 = 0x85;
const LONGNEG: u8 = 0x86;
const VOCAB: u8 = 0x87;

/// Dialect `pb`: these strings travel as their number, from 1, wherever they stand.
const VOCABULARY: [&str; 31] = [
    "None",
    "class",
    "dereference",
    "reference",
    "dictionary",
    "function",
    "instance",
    "list",
    "module",
    "persistent",
    "tuple",
    "unpersistable",
    "copy",
    "cache",
    "cached",
    "remote",
    "local",
    "lcache",
    "version",
    "login",
    "password",
    "challenge",
    "logged_in",
    "not_logged_in",
    "cachemessage",
    "message",
    "answer",
    "error",
    "decref",
    "decache",
    "uncache",
];

/// Bytes that are no banana. The connection that they came from is over.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("banana: {0}")]
pub struct BananaError(pub String);

/// One element.
#[derive(Debug, Clone, PartialEq)]
pub enum Element {
    /// An integer that fits.
    Int(i64),
    /// Any other integer.
    Long {
        /// It is below zero.
        negative: bool,
        /// Its magnitude in base 128, the lowest digit first.
        digits: Bytes,
    },
    /// A float.
    Float(f64),
    /// A byte string, a word of the vocabulary too.
    Bytes(Bytes),
    /// A list.
    List(Vec<Self>),
}

/// From here on bytes that arrived are kept as they came, and what is made of them shares them.
const SHARED_BYTES_MIN: usize = 16 << 10;

/// Bytes in, top-level expressions out.
#[derive(Debug, Default)]
pub struct Decoder {
    input: Input,
    open: Vec<Open>,
    vocabulary: bool,
    bytes: usize,
    elements: usize,
    error: Option<BananaError>,
    /// An expression that was looked at, and is no output.
    held: Option<Element>,
}

/// A list that is not complete.
#[derive(Debug)]
struct Open {
    items: Vec<Element>,
    missing: usize,
}

/// What stands at the front of the buffer.
enum Token {
    Element(Element),
    List(usize),
}

impl Decoder {
    /// A decoder before the choice of a dialect: without a vocabulary.
    pub fn new() -> Self {
        Self::default()
    }

    /// From the next expression on, words of the vocabulary may come.
    pub fn use_vocabulary(&mut self) {
        self.vocabulary = true;
    }

    /// Bytes that arrived. They are decoded when they are asked for.
    pub fn receive_data(&mut self, data: &[u8]) {
        if self.error.is_none() {
            self.input.push(Bytes::copy_from_slice(data));
        }
    }

    /// The same, without a copy if they are many.
    pub fn receive_bytes(&mut self, data: Bytes) {
        if data.len() < SHARED_BYTES_MIN {
            self.receive_data(&data);
        } else if self.error.is_none() {
            self.input.push(data);
        }
    }

    /// Bytes that arrived and were not decoded yet.
    pub fn buffered(&self) -> usize {
        self.input.len()
    }

    /// The next expression, once all of it is there. An error is for ever.
    pub fn next_expression(&mut self) -> Result<Option<Element>, BananaError> {
        if self.held.is_some() {
            return Ok(self.held.take());
        }
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        self.decode().inspect_err(|error| {
            self.error = Some(error.clone());
            self.input = Input::default();
            self.open = Vec::new();
        })
    }

    fn decode(&mut self) -> Result<Option<Element>, BananaError> {
        while let Some(token) = self.token()? {
            self.elements += 1;
            if self.elements > EXPRESSION_ELEMENTS_MAX {
                return Err(BananaError(format!("more than {EXPRESSION_ELEMENTS_MAX} elements in one expression")));
            }
            let complete = match token {
                Token::Element(element) => self.close(element),
                Token::List(0) => self.close(Element::List(Vec::new())),
                Token::List(_) if self.open.len() >= DEPTH_MAX => {
                    return Err(BananaError(format!("lists nest deeper than {DEPTH_MAX}")));
                }
                Token::List(missing) => {
                    self.open.push(Open { items: Vec::new(), missing });
                    None
                }
            };
            if complete.is_some() {
                self.bytes = 0;
                self.elements = 0;
                return Ok(complete);
            }
        }
        Ok(None)
    }

    /// Puts an element where it belongs; the whole expression if that completes it.
    fn close(&mut self, mut element: Element) -> Option<Element> {
        while let Some(mut list) = self.open.pop() {
            list.items.push(element);
            list.missing -= 1;
            if list.missing > 0 {
                self.open.push(list);
                return None;
            }
            element = Element::List(list.items);
        }
        Some(element)
    }

    fn token(&mut self) -> Result<Option<Token>, BananaError> {
        loop {
            let front = self.input.front();
            let missing = match self.measure(front)? {
                Measure::Missing(missing) => missing,
                Measure::Whole { kind, digits, size } => {
                    let token = match kind {
                        LIST => Token::List(length(front.get(..digits), "list")?),
                        VOCAB => Token::Element(self.word(front.get(..digits))?),
                        STRING => {
                            let mut body = self.input.take(size);
                            body.advance(digits + 1);
                            self.bytes += size;
                            return Ok(Some(Token::Element(Element::Bytes(body))));
                        }
                        FLOAT => Token::Element(Element::Float(front.get(digits + 1..).unwrap_or_default().get_f64())),
                        INT | NEG | LONGINT | LONGNEG => {
                            let digits = front.get(..digits).unwrap_or_default();
                            Token::Element(integer(matches!(kind, NEG | LONGNEG), digits))
                        }
                        _ => return Err(BananaError(format!("0x{kind:02x} is no type byte"))),
                    };
                    self.input.skip(size);
                    self.bytes += size;
                    return Ok(Some(token));
                }
            };
            if !self.input.join(missing) {
                return Ok(None);
            }
        }
    }

    /// What stands at the front of these bytes, as far as they go.
    fn measure(&self, bytes: &[u8]) -> Result<Measure, BananaError> {
        let Some(digits) = bytes.iter().take(DIGITS_MAX + 1).position(|byte| *byte >= LIST) else {
            if bytes.len() > DIGITS_MAX {
                return Err(BananaError(format!("a prefix of more than {DIGITS_MAX} bytes")));
            }
            return Ok(Measure::Missing(1));
        };
        let kind = bytes.get(digits).copied().unwrap_or_default();
        let body = match kind {
            STRING => length(bytes.get(..digits), "string")?,
            FLOAT => size_of::<f64>(),
            _ => 0,
        };
        let size = digits + 1 + body;
        if self.bytes + size > EXPRESSION_BYTES_MAX {
            return Err(BananaError(format!("an expression of more than {EXPRESSION_BYTES_MAX} bytes")));
        }
        Ok(match size.checked_sub(bytes.len()) {
            Some(missing @ 1..) => Measure::Missing(missing),
            _ => Measure::Whole { kind, digits, size },
        })
    }

    fn word(&self, digits: Option<&[u8]>) -> Result<Element, BananaError> {
        if !self.vocabulary {
            return Err(BananaError("a word of the vocabulary before dialect `pb` was chosen".to_owned()));
        }
        let number = digits.and_then(prefix);
        let word = number.and_then(|number| VOCABULARY.get(number.checked_sub(1)?));
        match word {
            Some(word) => Ok(Element::Bytes(Bytes::from_static(word.as_bytes()))),
            None => Err(BananaError("a word that is not in the vocabulary".to_owned())),
        }
    }
}

/// What is known of the token at the front.
enum Measure {
    /// At least so many bytes have to come.
    Missing(usize),
    Whole {
        kind: u8,
        digits: usize,
        size: usize,
    },
}

fn length(digits: Option<&[u8]>, what: &str) -> Result<usize, BananaError> {
    match digits.and_then(prefix) {
        Some(length) if length <= LENGTH_MAX => Ok(length),
        _ => Err(BananaError(format!("a {what} longer than {LENGTH_MAX}"))),
    }
}

/// The number before the type byte, if it fits.
fn prefix(digits: &[u8]) -> Option<usize> {
    usize::try_from(small(digits)?).ok()
}

/// What has arrived. Only a token that came in parts is put together.
#[derive(Debug, Default)]
struct Input {
    /// The parts of the first token, if it is such a one.
    joined: BytesMut,
    /// What follows it.
    next: VecDeque<Bytes>,
}

impl Input {
    fn push(&mut self, data: Bytes) {
        if !data.is_empty() {
            self.next.push_back(data);
        }
    }

    fn len(&self) -> usize {
        self.joined.len() + self.next.iter().map(Bytes::len).sum::<usize>()
    }

    /// Where the first token begins.
    fn front(&self) -> &[u8] {
        if self.joined.is_empty() { self.next.front().map_or(&[], |next| next) } else { &self.joined }
    }

    /// Puts up to so many more bytes to the first token than it has at the front. `false`: none have come.
    fn join(&mut self, missing: usize) -> bool {
        if self.joined.is_empty() {
            let Some(front) = self.next.pop_front() else { return false };
            self.joined.extend_from_slice(&front);
        }
        let Some(next) = self.next.front_mut() else { return false };
        self.joined.extend_from_slice(&next.split_to(missing.min(next.len())));
        self.drop_empty();
        true
    }

    /// The first bytes, which are at the front.
    fn take(&mut self, size: usize) -> Bytes {
        let taken = match self.next.front_mut() {
            Some(next) if self.joined.is_empty() => next.split_to(size),
            _ => self.joined.split_to(size).freeze(),
        };
        self.drop_empty();
        taken
    }

    fn skip(&mut self, size: usize) {
        match self.next.front_mut() {
            Some(next) if self.joined.is_empty() => next.advance(size),
            _ => self.joined.advance(size),
        }
        self.drop_empty();
    }

    fn drop_empty(&mut self) {
        if self.next.front().is_some_and(Bytes::is_empty) {
            self.next.pop_front();
        }
    }
}

/// Output that a worker of Buildbot's tells of: calls of `update` that follow each other, whose elements are all text.
///
/// They are most of what a master receives, and have one shape. As values each would be a dozen objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The object that they are called on.
    pub target: i64,
    /// The calls, each of which wants an answer.
    pub calls: Vec<i64>,
    /// What they bring, in order.
    pub texts: Vec<Text>,
}

/// UTF-8 of one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// `stdout`, `stderr`, `header` or `log`.
    pub channel: &'static str,
    /// Which log, if it is one.
    pub name: Option<Bytes>,
    /// The text, in the pieces in which it came.
    pub pieces: Vec<Bytes>,
}

/// From here on what follows is another [`Output`].
const OUTPUT_BYTES_MAX: usize = 4 << 20;

impl Decoder {
    /// The next expressions, as far as they have come and are output; `None`: the next one is to be asked for as it is.
    pub fn next_output(&mut self) -> Result<Option<Output>, BananaError> {
        let mut output: Option<Output> = None;
        let mut bytes = 0;
        while bytes < OUTPUT_BYTES_MAX {
            let element = match self.next_expression() {
                Ok(Some(element)) => element,
                // An error is for ever: it comes again.
                Err(error) if output.is_none() => return Err(error),
                _ => break,
            };
            let Some(call) = output_call(&element).filter(|call| match &output {
                Some(output) => output.target == call.target,
                None => true,
            }) else {
                self.held = Some(element);
                break;
            };
            let output =
                output.get_or_insert_with(|| Output { target: call.target, calls: Vec::new(), texts: Vec::new() });
            output.calls.push(call.number);
            for (channel, name, text) in call.texts {
                bytes += text.len();
                match output.texts.last_mut() {
                    Some(last) if last.channel == channel && last.name.as_ref() == name => {
                        last.pieces.push(text.clone());
                    }
                    _ => output.texts.push(Text { channel, name: name.cloned(), pieces: vec![text.clone()] }),
                }
            }
        }
        Ok(output)
    }
}

struct OutputCall<'a> {
    number: i64,
    target: i64,
    texts: Vec<(&'static str, Option<&'a Bytes>, &'a Bytes)>,
}

/// `None`: it is something else, or has an element that is no text.
fn output_call(element: &Element) -> Option<OutputCall<'_>> {
    use Element::{Bytes as B, Int, List};
    let List(items) = element else { return None };
    let [B(message), Int(number), Int(target), B(method), Int(1), args, List(kwargs)] = items.as_slice() else {
        return None;
    };
    if message != "message" || method != "update" || kwargs.len() != 1 {
        return None;
    }
    let [updates] = form(args, "tuple")? else { return None };
    let texts = form(updates, "list")?.iter().map(output_text).collect::<Option<Vec<_>>>()?;
    Some(OutputCall { number: *number, target: *target, texts })
}

fn output_text(update: &Element) -> Option<(&'static str, Option<&Bytes>, &Bytes)> {
    let [entries, Element::Int(_)] = form(update, "list")? else { return None };
    let [Element::List(entry)] = form(entries, "dictionary")? else { return None };
    let [key, value] = entry.as_slice() else { return None };
    let key = text(key)?;
    if key == "log" {
        let [name, value] = form(value, "tuple")? else { return None };
        // A name that no journal takes is for that one call to fail with.
        let name = text(name).filter(|name| name.len() <= LOG_NAME_BYTES_MAX)?;
        return Some(("log", Some(name), text(value)?));
    }
    let channel = ["stdout", "stderr", "header"].into_iter().find(|channel| key == channel)?;
    Some((channel, None, text(value)?))
}

/// What follows the name of this form.
fn form<'a>(element: &'a Element, name: &str) -> Option<&'a [Element]> {
    let Element::List(items) = element else { return None };
    match items.split_first()? {
        (Element::Bytes(first), rest) if first == name => Some(rest),
        _ => None,
    }
}

fn text(element: &Element) -> Option<&Bytes> {
    match form(element, "unicode")? {
        [Element::Bytes(utf8)] if std::str::from_utf8(utf8).is_ok() => Some(utf8),
        _ => None,
    }
}

/// The number of these digits, if it fits.
fn small(digits: &[u8]) -> Option<i64> {
    digits.iter().rev().try_fold(0_i64, |number, digit| number.checked_mul(128)?.checked_add(i64::from(*digit)))
}

fn integer(negative: bool, digits: &[u8]) -> Element {
    match small(digits) {
        Some(number) => Element::Int(if negative { -number } else { number }),
        None => Element::Long { negative, digits: Bytes::copy_from_slice(digits) },
    }
}

/// Writes elements. On an error nothing was written.
#[derive(Debug, Default)]
pub struct Encoder {
    out: Vec<u8>,
    vocabulary: bool,
}

impl Encoder {
    /// An encoder into an empty buffer; with or without the vocabulary of dialect `pb`.
    pub fn new(vocabulary: bool) -> Self {
        Self { out: Vec::new(), vocabulary }
    }

    /// What was written.
    pub fn finish(self) -> Vec<u8> {
        self.out
    }

    /// A list begins: the next `length` elements are in it.
    pub fn list(&mut self, length: usize) -> Result<(), UsageError> {
        check_length(length, "list")?;
        self.head(length as u64, LIST);
        Ok(())
    }

    /// A byte string, or the word that it is.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), UsageError> {
        check_length(bytes.len(), "string")?;
        let word = if self.vocabulary { word_of(bytes) } else { None };
        if let Some(number) = word {
            self.head(number as u64, VOCAB);
        } else {
            self.head(bytes.len() as u64, STRING);
            self.out.extend_from_slice(bytes);
        }
        Ok(())
    }

    /// An integer that fits.
    pub fn int(&mut self, number: i64) {
        let kind = match number {
            0x8000_0000.. => LONGINT,
            0.. => INT,
            -0x8000_0000.. => NEG,
            _ => LONGNEG,
        };
        self.head(number.unsigned_abs(), kind);
    }

    /// Any integer: its magnitude in base 128, the lowest digit first.
    pub fn long(&mut self, negative: bool, digits: &[u8]) -> Result<(), UsageError> {
        let length = digits.iter().rposition(|digit| *digit != 0).map_or(1, |last| last + 1);
        if length > DIGITS_MAX || digits.iter().any(|digit| *digit >= LIST) {
            return Err(UsageError(format!("an integer of more than {DIGITS_MAX} digits in base 128")));
        }
        if let Some(number) = small(digits) {
            self.int(if negative { -number } else { number });
        } else {
            self.out.extend(digits.iter().take(length));
            self.out.push(if negative { LONGNEG } else { LONGINT });
        }
        Ok(())
    }

    /// A float.
    pub fn float(&mut self, number: f64) {
        self.out.push(FLOAT);
        self.out.extend_from_slice(&number.to_be_bytes());
    }

    /// An element with all that is in it.
    pub fn element(&mut self, element: &Element) -> Result<(), UsageError> {
        match element {
            Element::Int(number) => self.int(*number),
            Element::Long { negative, digits } => self.long(*negative, digits)?,
            Element::Float(number) => self.float(*number),
            Element::Bytes(bytes) => self.bytes(bytes)?,
            Element::List(items) => {
                self.list(items.len())?;
                items.iter().try_for_each(|item| self.element(item))?;
            }
        }
        Ok(())
    }

    fn head(&mut self, mut number: u64, kind: u8) {
        loop {
            self.out.push((number & 0x7f) as u8);
            number >>= 7;
            if number == 0 {
                break;
            }
        }
        self.out.push(kind);
    }
}

fn check_length(length: usize, what: &str) -> Result<(), UsageError> {
    if length > LENGTH_MAX {
        return Err(UsageError(format!("a {what} of {length} is too long to send: at most {LENGTH_MAX}")));
    }
    Ok(())
}

fn word_of(bytes: &[u8]) -> Option<usize> {
    // The longest word has 13 letters; file data is no word, and is not compared.
    if !(4..=13).contains(&bytes.len()) {
        return None;
    }
    VOCABULARY.iter().position(|word| word.as_bytes() == bytes).map(|index| index + 1)
}
