//! The label in the ring's header: what the daemon wrote there, for a later one, of whose command this is.

use std::sync::atomic::{AtomicU64, Ordering};

/// Words of a label: what is left of the header's first page.
const WORDS: usize = 471;

/// The longest label.
pub const LABEL_BYTES_MAX: usize = WORDS * 8;

/// Bytes that only the reader writes, and only the writer removes.
#[repr(C)]
pub(super) struct Label {
    /// 0: there is none. Written last, and removed first.
    length: AtomicU64,
    words: [AtomicU64; WORDS],
}

impl Label {
    /// Writes it. False: it is too long, or empty.
    pub(super) fn set(&self, label: &[u8]) -> bool {
        if label.is_empty() || label.len() > LABEL_BYTES_MAX {
            return false;
        }
        for (place, bytes) in self.words.iter().zip(label.chunks(8)) {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            place.store(u64::from_ne_bytes(word), Ordering::SeqCst);
        }
        self.length.store(label.len() as u64, Ordering::SeqCst);
        true
    }

    /// What was written; none if a header is torn and says that it is too long.
    pub(super) fn get(&self) -> Option<Vec<u8>> {
        let length = usize::try_from(self.length.load(Ordering::SeqCst)).ok()?;
        if length == 0 || length > LABEL_BYTES_MAX {
            return None;
        }
        let bytes = self.words.iter().flat_map(|word| word.load(Ordering::SeqCst).to_ne_bytes());
        Some(bytes.take(length).collect())
    }

    pub(super) fn clear(&self) {
        self.length.store(0, Ordering::SeqCst);
    }
}
