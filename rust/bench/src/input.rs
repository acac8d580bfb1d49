//! What the loops work on: made up, the same each time.

use tailrace_core::channel::Channel;
use tailrace_core::journal::Writer;
use tailrace_core::record::PREFIX;

use crate::Failed;

/// A time like any other.
pub(crate) const WALL_US: u64 = 1_760_000_000_000_000;

/// Lines of 20 to 147 bytes, as compilers write them, up to `bytes` of them.
pub(crate) fn lines(bytes: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes + 200);
    let mut random = 1u32;
    while text.len() < bytes {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let length = 19 + (random >> 25) as usize;
        text.extend((0..length).map(|at| b'a' + ((random >> 16) as usize + at) as u8 % 26));
        text.push(b'\n');
    }
    text.truncate(bytes);
    text
}

/// A journal of stdout with a piece of stderr now and then, in records of 64 KiB or so, 1 ms apart.
pub(crate) fn journal(bytes: usize) -> Result<Vec<u8>, Failed> {
    let mut writer = Writer::new(Vec::new());
    for (number, piece) in lines(bytes).chunks(64 << 10).enumerate() {
        let now = 1_000 * number as u64;
        if number % 16 == 15 {
            writer.log(Channel::Stderr, b"warning: it is slow\n", WALL_US + now, now)?;
        }
        writer.log(Channel::Stdout, piece, WALL_US + now, now)?;
    }
    Ok(writer.tail().clone())
}

/// The records that make up a journal, one by one.
pub(crate) fn records(journal: &[u8]) -> impl Iterator<Item = Result<&[u8], Failed>> {
    tailrace_core::record::Records::new(journal).map(|record| {
        let (_, record) = record?;
        debug_assert!(record.len() > PREFIX);
        Ok(record)
    })
}
