//! What both sides count for themselves of a journal, and the receipt that says it (PROTOCOL.md section 6).

use std::collections::BTreeMap;

use crate::batch::Batch;
use crate::chain::Chain;
use crate::channel::{Channel, PerChannel};
use crate::error::ProtocolError;
use crate::record::{Gap, Head, Log, Record, Records};
use crate::value::{Value, decode_all, map};

mod account;

pub use account::Account;

/// Named logs of one command: more than anyone watches.
pub const LOGS_MAX: usize = 1_024;
/// Marks in a batch are this far apart, or one record: a hundredth of the bytes at most.
const MARK_BYTES: usize = 4096;
const JOURNAL: u8 = 6;

/// Bytes and lines of one channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Bytes delivered.
    pub bytes: u64,
    /// Lines that began in them.
    pub lines: u64,
    /// Bytes in gaps.
    pub missing: u64,
    /// Bytes that were masked. Only the sender can know.
    pub masked: u64,
}

/// What was sent, or received: to be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The chain over all records before the receipt.
    pub chain: [u8; 32],
    /// Their number.
    pub records: u64,
    /// By the channel's key (`log:NAME` for a named log).
    pub channels: BTreeMap<String, Count>,
}

impl Receipt {
    /// The receipt as a `value`.
    pub fn to_value(&self) -> Value {
        let channels = self.channels.iter().map(|(key, count)| {
            let counts = [count.bytes, count.lines, count.missing, count.masked];
            (key.clone(), Value::Array(counts.map(int).to_vec()))
        });
        map([
            ("chain", Value::Bin(self.chain.to_vec())),
            ("records", int(self.records)),
            ("channels", Value::Map(channels.collect())),
        ])
    }

    /// Reads a receipt's body. Unknown keys are skipped.
    pub fn decode(body: &[u8]) -> Result<Self, ProtocolError> {
        let value = decode_all(body)?;
        Self::from_value(&value).ok_or_else(|| error("a receipt that is not as it should be"))
    }

    fn from_value(value: &Value) -> Option<Self> {
        let chain = value.entry("chain")?.as_bin()?.try_into().ok()?;
        let records = number(value.entry("records")?)?;
        let Value::Map(entries) = value.entry("channels")? else { return None };
        let mut channels = BTreeMap::new();
        for (key, counts) in entries {
            let [bytes, lines, missing, masked] = counts.as_array()? else { return None };
            let [bytes, lines, missing, masked] = [number(bytes)?, number(lines)?, number(missing)?, number(masked)?];
            channels.insert(key.clone(), Count { bytes, lines, missing, masked });
        }
        Some(Self { chain, records, channels })
    }
}

fn int(number: u64) -> Value {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

fn number(value: &Value) -> Option<u64> {
    value.as_int().and_then(|number| u64::try_from(number).ok())
}

/// The counts over a journal's records so far.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// What came before is not counted here: only the chain vouches for it.
    resumed: bool,
    chain: Chain,
    offset: u64,
    records: u64,
    channels: PerChannel<Line>,
    end: End,
}

#[derive(Debug, Clone, Copy, Default)]
struct Line {
    count: Count,
    next: Next,
    /// The how manyth channel it is, from 1.
    number: usize,
}

/// What the next byte of a channel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Next {
    #[default]
    BeginsLine,
    ContinuesLine,
    /// Behind a gap one cannot know.
    Either,
}

impl Next {
    const fn behind(partial: bool) -> Self {
        if partial { Self::ContinuesLine } else { Self::BeginsLine }
    }
}

/// How far the end of the journal has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum End {
    #[default]
    Open,
    Complete,
    /// The receipt stands; the chain before it.
    Receipt(Chain),
}

impl Ledger {
    /// One that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that goes on where another stopped, of which only offset and chain are known.
    pub fn resumed(offset: u64, chain: [u8; 32]) -> Self {
        Self { resumed: true, chain: Chain::from(chain), offset, ..Self::default() }
    }

    /// Adds whole records. Checks what only all records together show: that lines go on where they stopped, that
    /// the lines in each are as many as it says, and that nothing stands behind the end. After an error nothing may be added.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), ProtocolError> {
        for record in Records::new(bytes) {
            let (_, bytes) = record?;
            self.add_record(&Record::decode(bytes)?, bytes)?;
        }
        Ok(())
    }

    /// The same, and leaves word in the batch what the chain was, so that who keeps it need not hash it again.
    pub fn add_batch(&mut self, batch: &Batch) -> Result<(), ProtocolError> {
        let mut marks = vec![(batch.start(), self.chain)];
        let mut marked = 0;
        for record in Records::new(batch.bytes()) {
            let (at, bytes) = record?;
            if at - marked >= MARK_BYTES {
                marks.push((batch.start() + at as u64, self.chain));
                marked = at;
            }
            self.add_record(&Record::decode(bytes)?, bytes)?;
        }
        marks.push((batch.end(), self.chain));
        batch.set_marks(marks);
        Ok(())
    }

    /// Adds a log record of ours, which lies in these parts, without decoding it.
    pub(crate) fn add_own_log<const N: usize>(&mut self, head: &Head<'_>, parts: [&[u8]; N]) {
        let line = self.line(head.channel);
        line.next = Next::behind(head.partial);
        line.count.bytes += head.data_bytes as u64;
        line.count.lines += head.lines();
        self.advance(parts);
    }

    /// The chain over all records, the receipt included.
    pub fn chain(&self) -> &[u8; 32] {
        self.chain.as_bytes()
    }

    /// The number of bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether the next byte of `channel` continues a line, as far as is known.
    pub fn is_inside_line(&self, channel: Channel<'_>) -> bool {
        self.channels.get(channel).is_some_and(|line| line.next == Next::ContinuesLine)
    }

    /// Whether the complete record was added.
    pub fn is_complete(&self) -> bool {
        self.end != End::Open
    }

    /// Whether the receipt was added: nothing may follow.
    pub fn is_ended(&self) -> bool {
        matches!(self.end, End::Receipt(_))
    }

    /// The receipt over all records but a receipt itself.
    pub fn receipt(&self) -> Receipt {
        let (chain, records) = match self.end {
            End::Receipt(chain) => (chain, self.records - 1),
            _ => (self.chain, self.records),
        };
        let channels = self.channels.iter().map(|(channel, line)| (channel.key(), line.count)).collect();
        Receipt { chain: *chain.as_bytes(), records, channels }
    }

    /// Whether the other side's receipt says the same. What it masked is believed. One that was resumed compares the chain,
    /// which is over everything that is counted in a receipt.
    pub fn agrees(&self, receipt: &Receipt) -> bool {
        if self.resumed {
            return self.receipt().chain == receipt.chain;
        }
        let mut theirs = receipt.clone();
        theirs.channels.values_mut().for_each(|count| count.masked = 0);
        self.receipt() == theirs
    }

    fn add_record(&mut self, record: &Record<'_>, bytes: &[u8]) -> Result<(), ProtocolError> {
        match (self.end, record) {
            (End::Receipt(_), _) => return Err(error("a record behind the receipt")),
            (_, Record::Receipt(_)) => self.end = End::Receipt(self.chain),
            (End::Complete, _) => return Err(error("a record between complete and receipt")),
            (End::Open, Record::Complete(_)) => self.end = End::Complete,
            (End::Open, Record::Log(log)) => self.add_log(log)?,
            (End::Open, Record::Gap(gap)) => self.add_gap(gap)?,
            (End::Open, Record::Update(_) | Record::Unknown(_)) => {}
            (End::Open, _) => return Err(error("a transfer record in a journal")),
        }
        self.advance([bytes]);
        Ok(())
    }

    fn add_log(&mut self, log: &Log<'_>) -> Result<(), ProtocolError> {
        log.check_lines()?;
        let line = self.channel(log.channel)?;
        if line.next != Next::Either && line.next != Next::behind(log.continues) {
            return Err(error("a record that does not go on where its channel stopped"));
        }
        line.next = Next::behind(log.partial);
        line.count.bytes = add(line.count.bytes, log.data.len() as u64)?;
        line.count.lines = add(line.count.lines, log.lines)?;
        Ok(())
    }

    fn add_gap(&mut self, gap: &Gap<'_>) -> Result<(), ProtocolError> {
        let line = self.channel(gap.channel)?;
        line.next = Next::Either;
        line.count.missing = add(line.count.missing, gap.bytes)?;
        Ok(())
    }

    fn channel(&mut self, channel: Channel<'_>) -> Result<&mut Line, ProtocolError> {
        if self.channels.logs() >= LOGS_MAX && self.channels.get(channel).is_none() {
            return Err(error("too many named logs"));
        }
        Ok(self.line(channel))
    }

    fn line(&mut self, channel: Channel<'_>) -> &mut Line {
        let others = self.channels.len();
        let resumed = self.resumed;
        let line = self.channels.entry(channel);
        if line.number == 0 {
            line.number = others + 1;
            line.next = if resumed { Next::Either } else { Next::BeginsLine };
        }
        line
    }

    fn advance<const N: usize>(&mut self, parts: [&[u8]; N]) {
        self.offset += parts.iter().map(|part| part.len() as u64).sum::<u64>();
        self.records += 1;
        self.chain.push(parts);
    }
}

fn add(count: u64, more: u64) -> Result<u64, ProtocolError> {
    count.checked_add(more).filter(|&sum| sum < 1 << 63).ok_or_else(|| error("a count beyond 2^63"))
}

fn error(what: impl Into<String>) -> ProtocolError {
    ProtocolError::new(JOURNAL, what)
}
