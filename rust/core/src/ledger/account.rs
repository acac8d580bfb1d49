//! A ledger in pieces, so that who must not lose it can write down what changed.

use super::{Count, End, LOGS_MAX, Ledger, Line, Next};
use crate::channel::{Channel, PerChannel};
use crate::journal::Mark;

/// What a ledger has of one channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account<'a> {
    /// The how manyth channel of the journal it is, from 0; below [`Account::MAX`].
    pub index: usize,
    /// Which one.
    pub channel: Channel<'a>,
    /// Its counts.
    pub count: Count,
    /// What the next byte is, as a number.
    pub next: u64,
}

impl Account<'_> {
    /// More channels than a journal can have.
    pub const MAX: usize = LOGS_MAX + 4;
}

impl Ledger {
    /// The account of a channel that occurred.
    pub fn account<'a>(&self, channel: Channel<'a>) -> Option<Account<'a>> {
        self.channels.get(channel).map(|line| line.account(channel))
    }

    /// All accounts.
    pub fn accounts(&self) -> impl Iterator<Item = Account<'_>> {
        self.channels.iter().map(|(channel, line)| line.account(channel))
    }

    /// The number of records.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// The ledger of a journal that is ended, of which no more is known.
    pub fn closed((offset, chain): Mark) -> Self {
        Self { chain, offset, end: End::Receipt(chain), ..Self::default() }
    }

    /// A ledger that was written down while the journal was not ended.
    pub fn restore<'a>(
        (offset, chain): Mark,
        records: u64,
        complete: bool,
        accounts: impl IntoIterator<Item = Account<'a>>,
    ) -> Self {
        let mut channels = PerChannel::default();
        for account in accounts {
            let next = match account.next {
                0 => Next::BeginsLine,
                1 => Next::ContinuesLine,
                _ => Next::Either,
            };
            *channels.entry(account.channel) = Line { count: account.count, next, number: account.index + 1 };
        }
        let end = if complete { End::Complete } else { End::Open };
        Self { chain, offset, records, channels, end, resumed: false }
    }
}

impl Line {
    fn account<'a>(&self, channel: Channel<'a>) -> Account<'a> {
        let next = match self.next {
            Next::BeginsLine => 0,
            Next::ContinuesLine => 1,
            Next::Either => 2,
        };
        Account { index: self.number.saturating_sub(1), channel, count: self.count, next }
    }
}
