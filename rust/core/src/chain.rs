//! The chain: 32 bytes that identify a journal's prefix at every record (PROTOCOL.md section 6).

/// Eight of the hash's chunks are hashed abreast, but only where they lie together and begin at a multiple of eight. So the
/// chain and the record's first parts are put together up to here: what follows is abreast too, where it lies.
const ABREAST_BYTES: usize = 8 << 10;

/// The shortest record for which that pays.
const SHORT_BYTES: usize = 3 << 10;

/// The chain after some records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Chain([u8; 32]);

impl Chain {
    /// Goes on over one whole record, its length prefix included, that lies in these parts.
    pub fn push<const N: usize>(&mut self, record: [&[u8]; N]) {
        let mut hasher = blake3::Hasher::new();
        if record.iter().map(|part| part.len()).sum::<usize>() < SHORT_BYTES {
            hasher.update(&self.0);
            for part in record {
                hasher.update(part);
            }
        } else {
            let mut begin = [0; ABREAST_BYTES];
            let mut room = begin.as_mut_slice();
            move_into(&mut room, &self.0);
            let rest = record.map(|part| move_into(&mut room, part));
            let begun = ABREAST_BYTES - room.len();
            hasher.update(begin.get(..begun).unwrap_or_default());
            for part in rest {
                hasher.update(part);
            }
        }
        self.0 = *hasher.finalize().as_bytes();
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Chain {
    /// A chain that was written down.
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

/// Copies what there is room for, and gives back the rest.
fn move_into<'a>(room: &mut &mut [u8], part: &'a [u8]) -> &'a [u8] {
    let (now, later) = part.split_at(part.len().min(room.len()));
    let (place, left) = std::mem::take(room).split_at_mut(now.len());
    place.copy_from_slice(now);
    *room = left;
    later
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However a record lies, its chain is the hash of the chain before and of its bytes.
        #[test]
        fn it_is_the_plain_hash(length in prop_oneof![0..200_usize, 3000..3200_usize, 8000..8400_usize, 0..70_000_usize], cuts: [prop::sample::Index; 2]) {
            let record: Vec<u8> = (0..length).map(|at| (at * 31 % 251) as u8).collect();
            let mut cuts = cuts.map(|cut| cut.index(length + 1));
            cuts.sort_unstable();
            let mut chain = Chain([7; 32]);
            chain.push([&record[..cuts[0]], &record[cuts[0]..cuts[1]], &record[cuts[1]..]]);
            prop_assert_eq!(chain.0, *blake3::hash(&[[7; 32].as_slice(), record.as_slice()].concat()).as_bytes());
        }
    }
}
